"""Looking at queries and answers just far enough. Bytes in, values out; nothing here trusts a length."""

from __future__ import annotations

from typing import NamedTuple

from mycel.kit import dns
from mycel.kit.dns import DnsFormatError, RCode, Type
from mycel.model.address import Address
from mycel.policy.fqdn import canonical_name

_HEADER = 12
_V4 = b"\0" * 10 + b"\xff\xff"


class Query(NamedTuple):
    """A query that may be judged."""

    name: str  # canonical
    type: int
    question: bytes  # as an answer repeats it, lower case


class Bad(NamedTuple):
    """A query that is answered at once; None: not answered at all."""

    rcode: RCode | None


class Answer(NamedTuple):
    """What an answer says."""

    rcode: int
    addresses: tuple[tuple[Address, int], ...]  # of the name, by its aliases; with TTL
    aliases: tuple[str, ...]
    types: tuple[int, ...]


FAILED = Answer(RCode.SERVFAIL, (), (), ())
"""What is said where no answer comes."""


def read_query(wire: bytes) -> Query | Bad:
    """One query. RFC 1035 and 8906: what is no query is silence, what has no single question is FORMERR."""
    if len(wire) < _HEADER or wire[2] & 0x80:
        return Bad(None)
    if wire[2] & 0x78:
        return Bad(RCode.NOTIMP)
    try:
        message = dns.parse(wire)
    except DnsFormatError:
        return Bad(RCode.FORMERR)
    if len(message.questions) != 1 or message.answers or message.authority:
        return Bad(RCode.FORMERR)
    question = message.questions[0]
    end = _name_end(wire) + 4
    return Query(canonical_name(question.name), question.type, wire[_HEADER:end].lower())


def is_answer(wire: bytes, query: Query) -> bool:
    """Whether a message with the right id repeats the question. An error may leave it out."""
    if len(wire) < _HEADER or not wire[2] & 0x80:
        return False
    if wire[4:6] == b"\0\0":
        return wire[3] & 0xF != 0 and wire[6:8] == b"\0\0"
    end = _HEADER + len(query.question)
    return wire[4:6] == b"\0\1" and wire[_HEADER:end].lower() == query.question


def read_answer(wire: bytes, query: Query) -> Answer:
    """Addresses of the name that was asked for, by way of its CNAMEs; what is not on that way is not learnt.

    Raises DnsFormatError.
    """
    message = dns.parse(wire)
    targets: dict[str, list[str]] = {}
    for record in message.answers:
        if record.type == Type.CNAME and (target := record.target()):
            targets.setdefault(canonical_name(record.name), []).append(canonical_name(target))
    reached = {query.name: None}
    for name in reached_from(query.name, targets):
        reached[name] = None
    addresses = tuple(
        (Address(record.data if record.type == Type.AAAA else _V4 + record.data), record.ttl)
        for record in message.answers
        if record.type in (Type.A, Type.AAAA) and canonical_name(record.name) in reached
    )
    types = tuple(dict.fromkeys(record.type for record in message.answers))
    return Answer(message.rcode, addresses, tuple(reached)[1:], types)


def reached_from(name: str, targets: dict[str, list[str]]) -> list[str]:
    """Names that aliases lead to, each once: a loop ends where it began."""
    found: dict[str, None] = {}
    left = [name]
    while left:
        for target in targets.get(left.pop(), ()):
            if target not in found and target != name:
                found[target] = None
                left.append(target)
    return list(found)


def refusal(wire: bytes, rcode: RCode) -> bytes:
    """An answer without records to a query, its EDNS kept. What cannot be read is answered by its header."""
    try:
        return dns.serialize(dns.parse(wire).reply(rcode))
    except DnsFormatError:
        return wire[:2] + bytes((0x80 | wire[2] & 0x79, rcode)) + bytes(8)


def type_name(number: int) -> str:
    """`A`, or RFC 3597's name of a type without one here."""
    try:
        return Type(number).name
    except ValueError:
        return f"TYPE{number}"


def _name_end(wire: bytes) -> int:
    """Where the question's name ends, in a message that was parsed."""
    at = _HEADER
    while wire[at]:
        if wire[at] >= 0xC0:
            return at + 2
        at += wire[at] + 1
    return at + 1
