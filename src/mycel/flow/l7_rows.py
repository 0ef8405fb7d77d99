"""What proxies saw, as rows and as Hubble's messages: the rules of part L7 of Hubble's API in one place."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec
import numpy as np

from mycel import abi
from mycel.api import flow_pb2 as pb
from mycel.flow.l7 import End, Half, L7Record, L7Verdict
from mycel.flow.records import NOW_NS, Directory, Owner
from mycel.flow.rows import EVENT, Events
from mycel.model.address import Address, parse_address

L7_EVENT = 129
"""flow.CiliumEventType.type of what a proxy saw."""
_VERDICTS = {
    L7Verdict.FORWARDED: abi.Verdict.FORWARDED,
    L7Verdict.DROPPED: abi.Verdict.DROPPED,
    L7Verdict.ERROR: abi.Verdict.ERROR,
}
_PROTOCOLS = {"TCP": 6, "UDP": 17}
_NOWHERE = End("", 0)
_NO_TTL = 4294967295  # as Hubble says of errors
_RCODES = {1: "Format Error", 2: "Server Failure", 3: "Non-Existent Domain", 4: "Not Implemented", 5: "Query Refused"}


_address = functools.lru_cache(maxsize=8192)(parse_address)  # the same few come with every request


def detail(record: L7Record) -> L7Record:
    """A message without what is its row's own, so that equal ones are stored once."""
    return msgspec.structs.replace(record, time_ns=0, source=_NOWHERE, destination=_NOWHERE)


def check(record: L7Record) -> None:
    """Raise ValueError for a record that can be no row, why."""
    _address(record.source.address)
    _address(record.destination.address)
    for name, number, limit in (
        ("time", record.time_ns, 1 << 63),
        ("source port", record.source.port, 1 << 16),
        ("destination port", record.destination.port, 1 << 16),
        ("listener", record.listener, 1 << 16),
    ):
        if not 0 <= number < limit:
            raise ValueError(f"its {name} {number} does not fit")


def events_of(records: Sequence[L7Record], directory: Directory, *, wall_offset_ns: int) -> Events:
    """The rows' events, in the records' order: a response goes from the server to the client.

    `wall_offset_ns` is that of `Enricher.enrich`. Records that `check` refuses must not be among them.
    """
    events = np.zeros(len(records), EVENT)
    if not records:
        return events
    at_ns = [max(0, each.time_ns - wall_offset_ns) for each in records]  # at the machine's start if it was before
    answers = [each.half == Half.RESPONSE for each in records]
    ends = [
        (each.destination, each.source) if answer else (each.source, each.destination)
        for each, answer in zip(records, answers, strict=True)
    ]
    identities = _Identities(directory)
    for side, chosen in zip(("source", "destination"), zip(*ends, strict=True), strict=True):
        addresses = [_address(end.address) for end in chosen]
        events[side] = np.frombuffer(b"".join(addresses), EVENT[side])
        events[f"{side}_identity"] = list(map(identities.of, addresses, at_ns))
        events[f"{side}_port"] = [end.port for end in chosen]
    events["kind"] = L7_EVENT
    events["time_ns"] = at_ns
    events["proxy_port"] = [each.listener for each in records]
    events["verdict"] = [_VERDICTS[each.verdict] for each in records]
    events["direction"] = [abi.Direction.INGRESS if each.ingress else abi.Direction.EGRESS for each in records]
    events["protocol"] = [_PROTOCOLS.get(each.protocol, 0) for each in records]
    events["is_reply"] = np.where(answers, abi.ReplyState.TRUE, abi.ReplyState.FALSE)
    events["family"] = [6 if ":" in each.source.address else 4 for each in records]
    return events


class _Identities:
    """Who had an address, asked once for all records of the time since."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._now: dict[Address, Owner] = {}
        self._nobodys: dict[Address, int] = {}

    def of(self, address: Address, at_ns: int) -> int:
        owner = self._now.get(address)
        if owner is None:
            owner = self._now[address] = self._directory.owner(address, 0, NOW_NS)
        if at_ns < owner.since_ns:
            owner = self._directory.owner(address, 0, at_ns)
        if owner.endpoint is not None:
            return owner.endpoint.identity
        found = self._nobodys.get(address)
        if found is None:
            found = self._nobodys[address] = self._directory.identity(address)
        return found


def describe_l7(flow: pb.Flow, record: L7Record) -> None:
    """Fill in what a message says beyond its connection."""
    flow.Type = pb.L7
    flow.event_type.type = L7_EVENT
    flow.is_reply.value = flow.reply = record.half == Half.RESPONSE
    flow.l7.type = pb.RESPONSE if record.half == Half.RESPONSE else pb.REQUEST
    flow.l7.latency_ns = record.latency_ns
    if record.trace_id:
        flow.trace_context.parent.trace_id = record.trace_id
    if record.http is not None:
        http = flow.l7.http
        http.code, http.method = record.http.code, record.http.method
        http.url, http.protocol = record.http.url, record.http.protocol
        for key, value in record.http.headers:
            http.headers.add(key=key, value=value)
        http.SetInParent()
    if record.dns is not None:
        dns = flow.l7.dns
        dns.query, dns.rcode, dns.ttl = record.dns.query, record.dns.rcode, record.dns.ttl
        dns.observation_source = "proxy"
        dns.ips.extend(record.dns.ips)
        dns.cnames.extend(record.dns.cnames)
        dns.qtypes.extend(record.dns.qtypes)
        dns.rrtypes.extend(record.dns.rrtypes)
    flow.Summary = summary(record)


def summary(record: L7Record) -> str:
    """As Hubble words it."""
    if record.http is not None:
        http = record.http
        asked = f"{http.method} {http.url}"
        if record.half == Half.REQUEST:
            return f"{http.protocol} {asked}"
        return f"{http.protocol} {http.code} {record.latency_ns // 1_000_000}ms ({asked})"
    if record.tls is not None:
        return "no TLS" if record.tls.plain else f"TLS {record.tls.server_name or 'without a server name'}"
    assert record.dns is not None
    dns = record.dns
    asked = f"{dns.query} {','.join(dns.qtypes)}"
    if record.half == Half.REQUEST:
        return f"DNS Query {asked}"
    if dns.rcode:
        said = f"RCode: {_RCODES.get(dns.rcode, str(dns.rcode))} TTL: {_NO_TTL}"
    else:
        names = f' CNAMEs: "{",".join(dns.cnames)}"' if dns.cnames else ""
        said = f'"{",".join(dns.ips)}"{names} TTL: {dns.ttl}'
    return f"DNS Answer {said} (Proxy {asked})"
