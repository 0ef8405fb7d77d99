"""What proxies saw, as rows and as Hubble's messages: the rules of part L7 of Hubble's API in one place."""

from __future__ import annotations

import functools
import struct

import msgspec

from mycel import abi
from mycel.api import flow_pb2 as pb
from mycel.flow.l7 import End, Half, L7Record, L7Verdict
from mycel.flow.records import Directory
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


_NOTHING = abi.FlowEvent.unpack(bytes(abi.FlowEvent.SIZE))._replace(kind=L7_EVENT)
_address = functools.lru_cache(maxsize=8192)(parse_address)  # the same few come with every request


def detail(record: L7Record) -> L7Record:
    """A message without what is its row's own, so that equal ones are stored once."""
    return msgspec.structs.replace(record, time_ns=0, source=_NOWHERE, destination=_NOWHERE)


def event_of(record: L7Record, directory: Directory, *, wall_offset_ns: int) -> bytes:
    """The row's event, packed: a response goes from the server to the client.

    `wall_offset_ns` is that of `Enricher.enrich`. Raises ValueError for a record that can be no row.
    """
    at_ns = max(min(0, record.time_ns), record.time_ns - wall_offset_ns)  # at the machine's start if it was before
    ends = (record.source, record.destination)
    source, destination = ends if record.half == Half.REQUEST else ends[::-1]
    first, second = _address(source.address), _address(destination.address)
    event = _NOTHING._replace(
        time_ns=at_ns,
        source=first,
        destination=second,
        source_identity=_identity(first, directory, at_ns),
        destination_identity=_identity(second, directory, at_ns),
        source_port=source.port,
        destination_port=destination.port,
        proxy_port=record.listener,
        verdict=_VERDICTS[record.verdict],
        direction=abi.Direction.INGRESS if record.ingress else abi.Direction.EGRESS,
        protocol=_PROTOCOLS.get(record.protocol, 0),
        is_reply=abi.ReplyState.TRUE if record.half == Half.RESPONSE else abi.ReplyState.FALSE,
        family=6 if ":" in source.address else 4,
    )
    try:
        return event.pack()
    except (struct.error, OverflowError) as exc:
        raise ValueError(f"a number of it does not fit: {exc}") from exc


def _identity(address: Address, directory: Directory, at_ns: int) -> int:
    known = directory.owner(address, 0, at_ns).endpoint
    return known.identity if known is not None else abi.ReservedIdentity.WORLD


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
