"""Rules that are about one peer → the rows the kernel finds them by.

The kernel takes the longest prefix of (protocol, port) among one identity's rows, so that row has to say
everything: what every broader row says is put into the narrower ones it covers. Among what covers a port a
denial wins, then the proxy, then a plain allowance. Rows that say no more than the next broader one are left
out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mycel.policy.rules import L7, LAST_PORT, ContainerPort, PortMatch, Rule, RuleRef
from mycel.policy.visibility import LOOK, Visible

L3_BITS = 32  # of a key: the identity
PROTOCOL_BITS = 40
PORT_BITS = 48  # and then as many as the port's prefix has
FULL_BITS = 64


class Prefix(NamedTuple):
    """A key without its identity."""

    length: int  # of the whole key, in bits
    protocol: int  # 0 with L3_BITS
    port: int  # masked


class Row(NamedTuple):
    """What a prefix means. `l7` holds every proxy section that applies; None among them is "any request"."""

    deny: bool
    l7: frozenset[L7 | None]  # empty: not for the proxy
    rules: tuple[RuleRef, ...]
    explicit: bool = True  # False: only because nothing is denied by default
    looks: bool = False  # `l7` is not asked for by rules, and allows everything


EVERYTHING = Prefix(L3_BITS, 0, 0)
_OPEN = Row(deny=False, l7=frozenset(), rules=(), explicit=False)


def prefixes(match: PortMatch) -> Iterator[Prefix]:
    """A range cut into prefixes, longest possible steps first."""
    if (match.first, match.last) == (0, LAST_PORT):
        yield Prefix(PROTOCOL_BITS, match.protocol, 0)
        return
    first = match.first
    while first <= match.last:
        bits = 16
        while bits and not first & (1 << (16 - bits)) and first + (1 << (17 - bits)) - 1 <= match.last:
            bits -= 1
        yield Prefix(PORT_BITS + bits, match.protocol, first)
        first += 1 << (16 - bits)


def numbered(matches: Iterable[PortMatch], named_ports: Sequence[ContainerPort]) -> Iterator[PortMatch]:
    """Matches with names replaced by the ports they stand for at the destination; unknown names stand for none."""
    for match in matches:
        if not match.name:
            yield match
            continue
        for each in named_ports:
            if (each.name, each.protocol) == (match.name, match.protocol):
                yield PortMatch(match.protocol, each.port, each.port)


def _covering(prefix: Prefix) -> Iterator[Prefix]:
    """The prefix and all broader ones, narrowest first."""
    for length in range(prefix.length, PORT_BITS - 1, -1):
        bits = length - PORT_BITS
        yield Prefix(length, prefix.protocol, prefix.port & (0xFFFF << (16 - bits)) & 0xFFFF)
    if prefix.length >= PROTOCOL_BITS:
        yield Prefix(PROTOCOL_BITS, prefix.protocol, 0)
    yield EVERYTHING


def compile_rows(
    rules: Iterable[Rule],
    *,
    named_ports: Sequence[ContainerPort],
    open_by_default: bool = False,
    terse: bool = False,
    visible: Iterable[Visible] = (),
) -> dict[Prefix, Row]:
    """Rows of rules that are all about the same peer.

    `named_ports` are the destination's. `open_by_default` adds that what no rule denies is allowed. `terse`
    leaves out allowances a broader one covers, which only tell which rule it was. `visible`: ports where a proxy looks
    at what is allowed and not judged by one.
    """
    said: dict[Prefix, list[Rule]] = {EVERYTHING: []} if open_by_default else {}
    for rule in rules:
        if rule.ports is None:
            said.setdefault(EVERYTHING, []).append(rule)
            continue
        for match in numbered(rule.ports, named_ports):
            for prefix in prefixes(match):
                said.setdefault(prefix, []).append(rule)
    looked_at = {Prefix(FULL_BITS, each.protocol, each.port): None if each.dns else LOOK for each in visible}
    for prefix in looked_at:
        if any(each in said for each in _covering(prefix)):
            said.setdefault(prefix, [])
    rows: dict[Prefix, Row] = {}
    for prefix in sorted(said):
        broader: Row | None = None
        covering: list[Rule] = []
        for each in _covering(prefix):
            covering += said.get(each, ())
            broader = broader or (rows.get(each) if each != prefix else None)
        row = _combine(covering, open_by_default=open_by_default)
        if prefix in looked_at and not row.deny and not row.l7:
            row = row._replace(l7=frozenset({looked_at[prefix]}), looks=True)
        if broader is None or _adds(row, broader, terse=terse):
            rows[prefix] = row
    return rows


def _combine(rules: Sequence[Rule], *, open_by_default: bool) -> Row:
    denials = tuple(dict.fromkeys(rule.ref for rule in rules if rule.deny))
    if denials:
        return Row(deny=True, l7=frozenset(), rules=denials)
    sections = {rule.l7 for rule in rules}
    if not rules:
        return _OPEN
    if sections == {None}:
        sections = set()
    elif open_by_default:
        sections.add(None)  # nothing is denied by default, so no request is either
    return Row(deny=False, l7=frozenset(sections), rules=tuple(dict.fromkeys(rule.ref for rule in rules)))


def _adds(row: Row, broader: Row, *, terse: bool) -> bool:
    """Whether a narrower row says more than the broader one it lies in."""
    if row.deny or broader.deny:
        return row.deny != broader.deny
    if row.l7 != broader.l7:
        return True
    return not terse and row.rules != broader.rules
