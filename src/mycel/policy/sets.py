"""One direction of one subject's policy, compiled: the rows of every identity.

A set is named after its content (the rules, and the subject's named ports where they matter), so subjects of
equal policy share it and a changed policy is another set. Under one name an identity's rows never change:
identities only come and go, and their rows with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mycel.abi import Direction, PolicyKey, PolicyMatch, PolicyValue, ReservedIdentity
from mycel.model.workload import IdentityId
from mycel.policy.index import PartyIndex
from mycel.policy.rows import L3_BITS, PROTOCOL_BITS, Prefix, Row, compile_rows
from mycel.policy.rules import L7, ContainerPort, Everyone, Party, Peer, Rule, RuleRef
from mycel.policy.visibility import Visible

Proxies = Callable[[frozenset[L7 | None]], int]
"""Proxy sections that apply together → the proxy's port."""

RuleNumbers = Callable[[tuple[RuleRef, ...]], int]
"""Rules → their number in the rule table."""

_DENY, _PROXY, _ALLOW, _OPEN = 255, 2, 1, 0


class SetKey(NamedTuple):
    """What a set is made of."""

    direction: Direction
    policies: tuple[int, ...]  # digests of the policies, sorted
    named_ports: tuple[ContainerPort, ...]  # the subject's, for ingress to named ports
    visible: tuple[Visible, ...] = ()  # what a proxy looks at


class RowSet(dict[PolicyKey, PolicyValue]):
    """A set's rows. They are never changed in place, so that a look at the object tells that nothing changed."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other or dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other


@dataclass(frozen=True, slots=True)
class SetRules:
    """The rules of one direction of a subject: resolved, in order, and what switches its default deny on."""

    rules: tuple[Rule, ...]
    default_deny: bool
    switched_on_by: tuple[RuleRef, ...]


class PolicySet:
    """The rows of one direction, kept up to date as identities come and go."""

    def __init__(self, key: SetKey, rules: SetRules, *, proxies: Proxies, numbers: RuleNumbers, limit: int) -> None:
        self.key = key
        self.rules = rules
        self._proxies = proxies
        self._numbers = numbers
        self._limit = limit
        self._open = not rules.default_deny
        ingress = key.direction == Direction.INGRESS
        self._by_peer: dict[Peer, list[int]] = {}
        self._anybody: list[Rule] = []
        self._everybody_named: list[int] = []  # egress to anybody's named port: that depends on who it is
        for index, rule in enumerate(rules.rules):
            if rule.peers is not None and not any(isinstance(peer, Everyone) for peer in rule.peers):
                for peer in rule.peers:
                    self._by_peer.setdefault(peer, []).append(index)
                continue
            self._anybody.append(rule)
            if not ingress and rule.ports is not None and any(match.name for match in rule.ports):
                self._everybody_named.append(index)
        self._anybody_l7 = any(rule.l7 for rule in self._anybody)
        self._templates: dict[tuple[Any, ...], Mapping[Prefix, PolicyValue]] = {}
        self._members: dict[IdentityId, Mapping[Prefix, PolicyValue]] = {}
        self._size = 0
        self.proxy_ports: set[int] = set()
        """Listeners its rows name, or have named."""
        self.anybody = self._template((), (), named=False)
        self.rows = RowSet({_key(ReservedIdentity.UNKNOWN, prefix): value for prefix, value in self.anybody.items()})
        self.overflows = len(self.rows) > limit

    def fill(self, members: Mapping[Peer, Iterable[IdentityId]], parties: PartyIndex) -> None:
        """Take everybody in, when the set is new; `members` tells who each peer is about."""
        found: defaultdict[IdentityId, set[int]] = defaultdict(set)
        for peer, rules in self._by_peer.items():
            for identity in members.get(peer, ()):
                found[identity].update(rules)
        if self._everybody_named:
            for identity in parties.with_ports:
                found[identity].update(self._everybody_named)
        added: dict[PolicyKey, PolicyValue] = {}
        for identity, rules in found.items():
            template = self._members[identity] = self._rows_of(rules, parties[identity])
            self._size += len(template)
            added.update((_key(identity, prefix), value) for prefix, value in template.items())
        self._change(added, [])

    def put(self, parties: Mapping[IdentityId, tuple[Party, frozenset[Peer]] | None]) -> bool:
        """Take parties in, with the peers they are among; None takes one away. True when rows changed."""
        added: dict[PolicyKey, PolicyValue] = {}
        removed: list[PolicyKey] = []
        for identity, found in parties.items():
            new = self._of(*found) if found else {}
            old = self._members.get(identity, {})
            if new == old:
                continue
            removed += [_key(identity, prefix) for prefix in old if prefix not in new]
            added |= {_key(identity, prefix): value for prefix, value in new.items()}
            self._size += len(new) - len(old)
            if new:
                self._members[identity] = new
            else:
                del self._members[identity]
        if not added and not removed:
            return False
        return self._change(added, removed)

    def _change(self, added: Mapping[PolicyKey, PolicyValue], removed: list[PolicyKey]) -> bool:
        full = self._size + len(self.anybody) > self._limit
        if full:
            # Closed rather than partly open: which rows would be missing is chance.
            changed = bool(self.rows)
            self.overflows, self.rows = True, RowSet()
            return changed
        if self.overflows:
            self.overflows = False
            rows = RowSet(
                {
                    _key(identity, prefix): value
                    for identity, of in self._members.items()
                    for prefix, value in of.items()
                }
            )
            rows.update({_key(ReservedIdentity.UNKNOWN, prefix): value for prefix, value in self.anybody.items()})
            self.rows = rows
            return True
        rows = RowSet(self.rows)
        for key in removed:
            rows.pop(key, None)
        rows.update(added)
        self.rows = rows
        return True

    def _of(self, party: Party, peers: frozenset[Peer]) -> Mapping[Prefix, PolicyValue]:
        """The rows of one identity, without the identity."""
        found: set[int] = set(self._everybody_named) if party.named_ports else set()
        for peer in peers if len(peers) < len(self._by_peer) else self._by_peer:
            if peer in peers:
                found.update(self._by_peer.get(peer, ()))
        return self._rows_of(found, party) if found else {}

    def _rows_of(self, rules: set[int], party: Party) -> Mapping[Prefix, PolicyValue]:
        ports = party.named_ports if self.key.direction == Direction.EGRESS else ()
        return self._template(tuple(sorted(rules)), ports, named=True)

    def _template(
        self, indexes: tuple[int, ...], ports: tuple[ContainerPort, ...], *, named: bool
    ) -> Mapping[Prefix, PolicyValue]:
        """Rows of rules about the same peer; identities that the same rules are about share them."""
        memo = (named, indexes, ports)
        found = self._templates.get(memo)
        if found is not None:
            return found
        rules = tuple(self.rules.rules[index] for index in indexes) if named else tuple(self._anybody)
        # With a proxy in play, its rules have to be whole in the row the kernel finds: who may do anything by
        # one rule must not be judged by another rule's requests alone.
        together = named and (self._anybody_l7 or any(rule.l7 for rule in rules))
        rows = compile_rows(
            (*self._anybody, *rules) if together else rules,
            named_ports=ports if self.key.direction == Direction.EGRESS else self.key.named_ports,
            open_by_default=self._open and (together or not named),
            visible=self.key.visible,
        )
        made = {prefix: self._value(prefix, row, named=named) for prefix, row in rows.items()}
        self._templates[memo] = made
        return made

    def _value(self, prefix: Prefix, row: Row, *, named: bool) -> PolicyValue:
        rank = _DENY if row.deny else _PROXY if row.l7 and not row.looks else _ALLOW if row.explicit else _OPEN
        port = self._proxies(row.l7) if row.l7 else 0
        if port:
            self.proxy_ports.add(port)
        return PolicyValue(
            proxy_port=port,
            deny=int(row.deny),
            precedence=rank,
            rule=self._numbers(row.rules) if row.rules else 0,
            match=_match(prefix, named=named),
            looks=int(row.looks),
        )


def _key(identity: int, prefix: Prefix) -> PolicyKey:
    return PolicyKey(prefix.length, identity, prefix.protocol, prefix.port)


def _match(prefix: Prefix, *, named: bool) -> PolicyMatch:
    if prefix.length == L3_BITS:
        return PolicyMatch.L3_ONLY if named else PolicyMatch.ALL
    if prefix.length == PROTOCOL_BITS:
        return PolicyMatch.L3_PROTO if named else PolicyMatch.PROTO_ONLY
    return PolicyMatch.L3_L4 if named else PolicyMatch.L4_ONLY
