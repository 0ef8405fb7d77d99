"""Events become rows: wall time, and the numbers of both ends' records, services and DNS names.

Addresses of a batch are grouped first, so the directory is asked once per new address and not per packet;
answers are remembered until the directory's version changes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mycel import abi
from mycel.flow.l7 import Half, L7Record, L7Verdict
from mycel.flow.l7_rows import check, detail, events_of
from mycel.flow.records import NOW_NS, Directory, Endpoint, Interner, PolicyName, Request, ServiceName
from mycel.flow.rows import ROW, Events, Mask, Numbers, Rows, Words, group, has_ports
from mycel.flow.text import RESERVED_IDENTITIES
from mycel.model.address import Address

_CACHED_ENDS = 65_536
_REPLY = 1
_NAMESPACE = "k8s:io.kubernetes.pod.namespace="


class _End(NamedTuple):
    """What an (address, identity) was found to be."""

    record: int
    names: int
    services: bool
    since_ns: int  # of earlier events it says nothing


class Records:
    """The interned names that rows refer to."""

    def __init__(self) -> None:
        self.endpoints: Interner[Endpoint] = Interner()
        self.services: Interner[ServiceName] = Interner()
        self.names: Interner[tuple[str, ...]] = Interner()
        self.interfaces: Interner[tuple[int, str]] = Interner()
        self.policies: Interner[tuple[PolicyName, ...]] = Interner()
        self.l7: Interner[L7Record] = Interner()
        """Messages without their time and ends, which are the row's own."""

    def keep(self, rows: Rows) -> None:
        """Forget what no row refers to any more."""
        for interner, columns in (
            (self.endpoints, ("source_record", "destination_record")),
            (self.services, ("source_service", "destination_service")),
            (self.names, ("source_names", "destination_names")),
            (self.interfaces, ("interface",)),
            (self.policies, ("policies",)),
            (self.l7, ("l7",)),
        ):
            interner.keep({int(number) for column in columns for number in np.unique(rows[column])})


class Enricher:
    """Turns batches of events into rows, with a cache of names in front of the directory."""

    def __init__(self, directory: Directory, records: Records) -> None:
        self._directory = directory
        self._records = records
        self._version = directory.version
        self._ends: dict[bytes, _End] = {}
        self._interfaces: dict[int, int] = {}

    def enrich(self, events: Events, *, wall_offset_ns: int) -> Rows:
        """Rows in the order of time. `wall_offset_ns` is wall clock minus CLOCK_MONOTONIC."""
        return self._rows(events[np.argsort(events["time_ns"], kind="stable")], wall_offset_ns)

    def enrich_l7(
        self, sheets: Sequence[Sequence[L7Record]], refuse: Callable[[str], None], *, wall_offset_ns: int
    ) -> list[Rows]:
        """Rows of what proxies saw, of each sheet in the order of time.

        `refuse` is told of each message that can be no row, why.
        """
        usable: list[L7Record] = []
        ends: list[int] = []
        for sheet in sheets:
            for each in sorted(sheet, key=lambda each: each.time_ns):
                try:
                    check(each)
                except ValueError as exc:
                    refuse(str(exc))
                else:
                    usable.append(each)
            ends.append(len(usable))
        rows = self._rows(events_of(usable, self._directory, wall_offset_ns=wall_offset_ns), wall_offset_ns)
        if usable:
            rows["l7"] = [self._records.l7.number(detail(each)) for each in usable]
            self._name_requests(rows, usable)
        return [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _rows(self, events: Events, wall_offset_ns: int) -> Rows:
        if self._directory.version != self._version or len(self._ends) > _CACHED_ENDS:
            self._version = self._directory.version
            self.forget()
        rows = np.zeros(len(events), ROW)
        rows["event"] = events
        rows["wall_ns"] = events["time_ns"] + np.uint64(wall_offset_ns)
        if len(rows):
            self._name_ends(rows)
            self._name_interfaces(rows)
            self._name_policies(rows)
        return rows

    def forget(self) -> None:
        """Ask the directory again from now on."""
        self._ends.clear()
        self._interfaces.clear()

    def _name_ends(self, rows: Rows) -> None:
        is_reply = rows["event"]["is_reply"] == _REPLY
        translated = (rows["event"]["original"]["hi"] | rows["event"]["original"]["lo"]) != 0
        ip = rows["event"]["family"] != 0
        with_ports = has_ports(rows) & ip
        for side in ("source", "destination"):
            place, ends = self._ends_of(rows, side)
            rows[f"{side}_record"] = np.array([end.record for end in ends], np.uint32)[place]
            rows[f"{side}_names"] = np.array([end.names for end in ends], np.uint32)[place]
            served = np.array([end.services for end in ends], np.bool_)[place] & with_ports
            self._name_services(rows, served, side=side, field=side)
            # The frontend that was dialled names the side that answers.
            answers = is_reply if side == "source" else ~is_reply
            self._name_services(rows, answers & translated & ~served, side=side, field="original")

    def _ends_of(self, rows: Rows, side: str) -> tuple[Numbers, list[_End]]:
        event = rows["event"]
        keys: Words = np.empty((len(rows), 3), np.uint64)
        keys[:, 0] = event[side]["hi"]
        keys[:, 1] = event[side]["lo"]
        keys[:, 2] = event[f"{side}_identity"]
        keys[:, 2] |= (event["family"] != 0).astype(np.uint64) << np.uint64(32)
        first, place = group(keys)
        ends = [self._end(keys[index]) for index in first]
        since = np.array([end.since_ns for end in ends], np.uint64)
        for late in np.flatnonzero(event["time_ns"] < since[place]).tolist():
            # From before the address has who has it now.
            place[late] = len(ends)
            ends.append(self._look_up(keys[late], int(event["time_ns"][late])))
        return place, ends

    def _end(self, key: Words) -> _End:
        packed = key.tobytes()
        found = self._ends.get(packed)
        if found is None:
            found = self._ends[packed] = self._look_up(key, NOW_NS)
        return found

    def _look_up(self, key: Words, at_ns: int) -> _End:
        address = Address(key[:2].astype(">u8").tobytes())
        identity, has_address = int(key[2]) & 0xFFFF_FFFF, bool(int(key[2]) >> 32)
        endpoint, since_ns = self._directory.owner(address, identity, at_ns) if has_address else (None, 0)
        if endpoint is None:
            endpoint = self._nameless(identity)
        elif identity and identity != endpoint.identity:
            # Somebody else's packet, or another node's news are late: what was enforced is shown, and no pod's name.
            endpoint = self._nameless(identity)._replace(cluster_name=endpoint.cluster_name)
        names = self._directory.names(address) if has_address else ()
        return _End(
            record=self._records.endpoints.number(endpoint),
            names=self._records.names.number(names or None),
            services=has_address and bool(self._directory.services(address)),
            since_ns=since_ns,
        )

    def _nameless(self, identity: int) -> Endpoint:
        """What an identity alone tells."""
        labels = self._labels(identity)
        namespace = next((each.removeprefix(_NAMESPACE) for each in labels if each.startswith(_NAMESPACE)), "")
        return Endpoint(identity, namespace=namespace, labels=labels)

    def _labels(self, identity: int) -> tuple[str, ...]:
        labels = self._directory.labels(identity)
        if not labels and (name := RESERVED_IDENTITIES.get(identity)) is not None:
            return (f"reserved:{name}",)
        return labels

    def _name_services(self, rows: Rows, chosen: Mask, *, side: str, field: str) -> None:
        where = np.flatnonzero(chosen)
        if not len(where):
            return
        event = rows["event"][where]
        port = event["original_port"] if field == "original" else event[f"{field}_port"]
        keys: Words = np.empty((len(where), 3), np.uint64)
        keys[:, 0] = event[field]["hi"]
        keys[:, 1] = event[field]["lo"]
        keys[:, 2] = port.astype(np.uint64) << np.uint64(8) | event["protocol"]
        first, place = group(keys)
        numbers: list[int] = []
        for key in keys[first]:
            services = self._directory.services(Address(key[:2].astype(">u8").tobytes()))
            numbers.append(self._records.services.number(services.get((int(key[2]) >> 8, int(key[2]) & 0xFF))))
        rows[f"{side}_service"][where] = np.array(numbers, np.uint32)[place]

    def _name_policies(self, rows: Rows) -> None:
        """A verdict's rules as they are called now: numbers live as long as their rules, rows longer."""
        where = np.flatnonzero(rows["event"]["kind"] == abi.EventKind.POLICY_VERDICT)
        if not len(where):
            return
        event = rows["event"][where]
        keys: Words = np.empty((len(where), 2), np.uint64)
        keys[:, 0] = event["policy_rule"]
        keys[:, 1] = event["endpoint_id"].astype(np.uint64) << np.uint64(16)
        keys[:, 1] |= event["direction"].astype(np.uint64) << np.uint64(8)
        keys[:, 1] |= event["verdict"] == abi.Verdict.DROPPED
        first, place = group(keys)
        numbers: list[int] = []
        for rule, rest in keys[first].tolist():
            found = self._directory.policies(
                rule, rest >> 16, ingress=rest >> 8 & 0xFF == abi.Direction.INGRESS, denied=bool(rest & 1)
            )
            numbers.append(self._records.policies.number(found or None))
        rows["policies"][where] = np.array(numbers, np.uint32)[place]

    def _name_requests(self, rows: Rows, messages: Sequence[L7Record]) -> None:
        """What let a request through; an answer has its request's."""
        known: dict[tuple[object, ...], int] = {}
        found: list[int] = []
        columns = (rows["source_record"], rows["destination_record"], rows["event"]["protocol"])
        for message, source, destination, protocol in zip(
            messages, *(column.tolist() for column in columns), strict=True
        ):
            client, server = (source, destination) if message.half == Half.REQUEST else (destination, source)
            mine, other = (server, client) if message.ingress else (client, server)
            query = message.dns.query if message.dns else ""
            denied = message.verdict == L7Verdict.DROPPED
            port = message.destination.port
            key = (message.listener, message.rule, query, mine, other, protocol, port, message.ingress, denied)
            number = known.get(key)
            if number is None:
                subject, peer = self._records.endpoints[mine], self._records.endpoints[other]
                request = Request(
                    listener=message.listener,
                    rule=message.rule,
                    query=query,
                    endpoint_id=subject.endpoint_id if subject else 0,
                    peer=peer.identity if peer else 0,
                    protocol=protocol,
                    port=port,
                    ingress=message.ingress,
                    denied=denied,
                )
                names = self._directory.request_policies(request)
                number = known[key] = self._records.policies.number(names or None)
            found.append(number)
        rows["policies"] = found

    def _name_interfaces(self, rows: Rows) -> None:
        indices, place = np.unique(rows["event"]["ifindex"], return_inverse=True)
        numbers: list[int] = []
        for ifindex in indices.tolist():
            if ifindex not in self._interfaces:
                name = self._directory.interface(ifindex) if ifindex else ""
                known = (ifindex, name) if ifindex else None
                self._interfaces[ifindex] = self._records.interfaces.number(known)
            numbers.append(self._interfaces[ifindex])
        rows["interface"] = np.array(numbers, np.uint32)[place]
