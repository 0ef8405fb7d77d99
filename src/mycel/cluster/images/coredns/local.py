"""Names that never leave the machine: localhost, its reverse, and the networks nobody owns (RFC 6303, 6761). Pure."""

from __future__ import annotations

import ipaddress

from mycel.cluster.images.coredns.answer import Answer
from mycel.cluster.images.coredns.config import within
from mycel.kit.dns import Question, RCode, Record, Type
from mycel.kit.dns_records import address_record, name_record, soa_record

_ZONES = ("localhost.", "0.in-addr.arpa.", "127.in-addr.arpa.", "255.in-addr.arpa.")
_TTL_S = 604800
_LOOPBACK = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


def resolve(question: Question) -> Answer | None:
    """The answer, or None when the question is for the next plugin."""
    folded = question.name.lower()
    zone = next((one for one in _ZONES if within(folded, one)), None)
    if zone is None:
        # `localhost.<search domain>` is asked by resolvers that append their search path.
        if not folded.startswith("localhost."):
            return None
        return _loopback(question, question.name)
    if folded == "localhost.":
        return _loopback(question, zone)
    if folded == "1.0.0.127.in-addr.arpa.":
        wanted = question.type in (Type.PTR, Type.ANY)
        target = name_record(question.name, Type.PTR, _TTL_S, "localhost.")
        return Answer((target,)) if wanted else Answer(authority=(_soa(zone),))
    if folded == zone and question.type in (Type.SOA, Type.NS):
        soa = _soa(zone)
        return Answer((soa,) if question.type == Type.SOA else (name_record(zone, Type.NS, _TTL_S, "localhost."),))
    if zone == "localhost.":
        return _loopback(question, zone)
    return Answer(authority=(_soa(zone),), rcode=RCode.NXDOMAIN if folded != zone else RCode.NOERROR)


def _loopback(question: Question, zone: str) -> Answer:
    records = tuple(
        record
        for address in _LOOPBACK
        if (record := address_record(question.name, _TTL_S, address)).type == question.type
    )
    return Answer(records) if records else Answer(authority=(_soa(zone),))


def _soa(zone: str) -> Record:
    return soa_record(zone, _TTL_S, mname="localhost.", rname=f"root.{zone}", serial=1, timers=(0, 0, 0, _TTL_S))
