"""EndpointSlices as a packing problem: members by equal ports, at most 100 to a slice, with few writes. Pure.

Members stay in the slice they are in; new ones fill the room that is left, then new slices; empty slices go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mycel.cluster.controllers.objects import Obj, evolve, labels, meta
from mycel.cluster.controllers.writes import Write, create, delete, update
from mycel.k8s.resources import ENDPOINT_SLICES

MAX_MEMBERS = 100


class Port(NamedTuple):
    """One port of a slice; equal sets of these share slices."""

    name: str
    protocol: str
    port: int
    app_protocol: str | None

    def entry(self) -> Obj:
        """As the API has it."""
        entry: Obj = {"name": self.name, "port": self.port, "protocol": self.protocol}
        if self.app_protocol:
            entry["appProtocol"] = self.app_protocol
        return entry

    @classmethod
    def parse(cls, entry: Mapping[str, object]) -> Port:
        """From the API."""
        number = entry.get("port")
        return cls(
            str(entry.get("name") or ""),
            str(entry.get("protocol") or "TCP"),
            number if isinstance(number, int) else 0,
            str(entry["appProtocol"]) if entry.get("appProtocol") else None,
        )


Ports = tuple[Port, ...]


def in_order(ports: Iterable[Port]) -> Ports:
    """The set of ports in its one order."""
    return tuple(sorted(ports, key=lambda port: (port.name, port.protocol, port.port, port.app_protocol or "")))


class Member(NamedTuple):
    """One endpoint: who it is (the pod's uid, or an address) and its entry in a slice."""

    identity: str
    entry: Obj


Groups = Mapping[Ports, tuple[Member, ...]]


def group_members(members: Iterable[tuple[Ports, Member]]) -> Groups:
    """Members by the set of ports they serve."""
    groups: dict[Ports, list[Member]] = {}
    for ports, member in members:
        groups.setdefault(in_order(ports), []).append(member)
    return {ports: tuple(found) for ports, found in groups.items()}


def reconcile_slices(template: Obj, current: Iterable[Obj], groups: Groups, *, keep_one: bool) -> list[Write]:
    """The writes from the `current` slices (of one service and address family) to `groups`.

    With `keep_one` the last slice stays even when it is empty, as it does for a Service with a selector.
    """
    left = {ports: {member.identity: member for member in members} for ports, members in groups.items()}
    kept: list[tuple[Obj, Ports, list[Obj]]] = []
    for one in sorted(current, key=lambda found: meta(found).get("name", "")):
        ports = in_order(map(Port.parse, one.get("ports") or ()))
        wanted = left.get(ports, {})
        staying = [
            wanted.pop(identity).entry
            for entry in one.get("endpoints") or ()
            if (identity := _identity(entry)) in wanted
        ]
        kept.append((one, ports, staying))
    for _, ports, staying in kept:
        wanted = left.get(ports, {})
        while wanted and len(staying) < MAX_MEMBERS:
            staying.append(wanted.pop(next(iter(wanted))).entry)
    writes: list[Write] = []
    creates = [
        _fresh(template, ports, [member.entry for member in batch])
        for ports, wanted in left.items()
        for batch in _batches(list(wanted.values()), empty=not wanted and not groups[ports])
        if wanted or not any(found == ports for _, found, _ in kept)
    ]
    alive = sum(bool(staying) for _, _, staying in kept) + len(creates)
    for one, _, staying in kept:
        if not staying and (alive or not keep_one):
            writes.append(delete(ENDPOINT_SLICES, one))
            continue
        alive += not staying
        fresh = evolve(one, "endpoints", value=staying or None)
        owned = {**labels(one), **template["metadata"]["labels"]}
        stale = labels(one).keys() - template["metadata"]["labels"].keys()
        owned = {label: value for label, value in owned.items() if label not in stale}
        fresh = evolve(fresh, "metadata", "labels", value=owned)
        if (one.get("endpoints") or []) == staying:
            fresh = evolve(fresh, "endpoints", value=one.get("endpoints"))
        writes.extend(update(ENDPOINT_SLICES, one, fresh))
    return [*creates, *writes]


def _identity(entry: Obj) -> str:
    reference = entry.get("targetRef") or {}
    return reference.get("uid") or (entry.get("addresses") or [""])[0]


def _batches(members: list[Member], *, empty: bool) -> Iterable[list[Member]]:
    if empty:
        yield []
    for start in range(0, len(members), MAX_MEMBERS):
        yield members[start : start + MAX_MEMBERS]


def _fresh(template: Obj, ports: Ports, entries: list[Obj]) -> Write:
    return create(
        ENDPOINT_SLICES,
        {**template, "ports": [port.entry() for port in ports], "endpoints": entries},
    )
