"""Names from a hosts file. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mycel.cluster.images.coredns.answer import Answer
from mycel.cluster.images.coredns.config import Hosts, within
from mycel.kit.dns import IPAddress, Question, RCode, Record, Type
from mycel.kit.dns_records import address_of_reverse, address_record, name_record, soa_record

Entries = Mapping[str, tuple[IPAddress, ...]]


def resolve(question: Question, settings: Hosts, entries: Entries) -> Answer | None:
    """The answer, or None when the question is for the next plugin."""
    folded = question.name.lower()
    address = address_of_reverse(folded)
    if address is not None and settings.reverse and question.type == Type.PTR:
        names = [name for name, found in entries.items() if address in found]
        if names:
            return Answer(tuple(name_record(question.name, Type.PTR, settings.ttl_s, one) for one in names))
    if not any(within(folded, zone) for zone in settings.zones):
        return None
    found = entries.get(folded)
    if found is None:
        if settings.fallthrough.covers(folded):
            return None
        known = any(name.endswith("." + folded) for name in entries)
        return Answer(authority=(_soa(settings),), rcode=RCode.NOERROR if known else RCode.NXDOMAIN)
    records = tuple(
        record for one in found if (record := address_record(question.name, settings.ttl_s, one)).type == question.type
    )
    return Answer(records) if records else Answer(authority=(_soa(settings),))


def _soa(settings: Hosts) -> Record:
    zone = settings.zones[0]
    mname, rname = f"ns.dns.{zone.lstrip('.')}", f"hostmaster.{zone.lstrip('.')}"
    return soa_record(zone, settings.ttl_s, mname=mname, rname=rname, serial=1, timers=(7200, 1800, 86400, 30))
