"""HTTP and DNS on one port of one peer: no proxy speaks both, and the port would stay closed. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable

from mycel.policy.errors import PolicyInvalid
from mycel.policy.rules import Everyone, Peer, PortMatch, Rule


class _Ports:
    """Ports with DNS rules: single ones, by number or name, with the field that says so."""

    def __init__(self) -> None:
        self._numbers: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
        self._names: dict[tuple[int, str], str] = {}

    def add(self, match: PortMatch, field: str) -> None:
        if match.name:
            self._names[match.protocol, match.name] = field
        else:
            insort(self._numbers[match.protocol], (match.first, field))

    def within(self, match: PortMatch) -> str:
        """The field of one of the ports that are in `match`; empty: none is."""
        if match.name:
            return self._names.get((match.protocol, match.name), "")
        numbers = self._numbers.get(match.protocol, [])
        place = bisect_left(numbers, (match.first, ""))
        return numbers[place][1] if place < len(numbers) and numbers[place][0] <= match.last else ""


def check_protocols(rules: Iterable[Rule]) -> None:
    """That the rules of a direction speak one protocol on a port of a peer. Raises PolicyInvalid.

    Peers are compared as they are written: where selectors overlap, nodes find that no listener can serve both.
    """
    listed = list(rules)
    by_peer: defaultdict[Peer | None, _Ports] = defaultdict(_Ports)
    of_any = _Ports()
    for rule, match in _ports(listed, "dns"):
        of_any.add(match, rule.ref.field)
        for peer in _peers(rule):
            by_peer[peer].add(match, rule.ref.field)
    for rule, match in _ports(listed, "http"):
        peers = _peers(rule)
        tables = [of_any] if None in peers else [by_peer[peer] for peer in (None, *peers) if peer in by_peer]
        for table in tables:
            if field := table.within(match):
                said = f"has rules.http on {match} for a peer {field} has rules.dns for"
                raise PolicyInvalid(rule.ref.field, f"{said}: a port speaks one protocol, take it out of one of them")


def _ports(rules: Iterable[Rule], parser: str) -> Iterable[tuple[Rule, PortMatch]]:
    for rule in rules:
        if rule.l7 is not None and rule.l7.parser == parser:
            for match in rule.ports or ():
                yield rule, match


def _peers(rule: Rule) -> tuple[Peer | None, ...]:
    """None: everybody."""
    return (None,) if rule.peers is None or Everyone() in rule.peers else rule.peers
