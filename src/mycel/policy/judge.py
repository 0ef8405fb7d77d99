"""A connection's verdict in one direction, read from the compiled rows."""

from __future__ import annotations

from mycel.abi import Direction, PolicyValue
from mycel.model.workload import IdentityId
from mycel.policy.engine import Engine
from mycel.policy.lookup import Lookup
from mycel.policy.rules import Decision, Outcome, Reason
from mycel.policy.subjects import Subject, SubjectSide

API_HOST = IdentityId(127)
"""The host where an API server runs on it: offline one engine answers for all nodes. Elsewhere it is the host."""

_FREE = Decision(Outcome.ALLOWED, Reason.NO_POLICY)


class Judge:
    """Answers of an engine's sets as they are now; make a new one after a change."""

    def __init__(self, engine: Engine, *, allow_host: bool = True) -> None:
        self._engine = engine
        self._allow_host = allow_host
        self._lookups: dict[int, Lookup] = {}
        self._decisions: dict[tuple[int, int, int, int], Decision] = {}

    def decide(self, subject: Subject, direction: Direction, peer: int, *, protocol: int, port: int) -> Decision:
        """The verdict of `subject` on a connection with identity `peer`; ICMP has its type in `port`."""
        ingress = direction == Direction.INGRESS
        side = subject.ingress if ingress else subject.egress
        if not side.enforced:
            return _FREE
        memo = (side.number, peer, protocol, port)
        found = self._decisions.get(memo)
        if found is None:
            found = self._decisions[memo] = self._decide(side, peer, protocol, port)
        if ingress and self._allow_host and found.reason is not Reason.DENY_RULE and self._is_host(peer):
            return Decision(Outcome.ALLOWED, Reason.ALLOWED)  # a node may enter its own pods
        return found

    def _is_host(self, peer: int) -> bool:
        party = self._engine.party(IdentityId(peer))
        return party is not None and party.is_host

    def row(self, side: SubjectSide, peer: int, protocol: int, port: int) -> PolicyValue | None:
        """The row the kernel would find."""
        lookup = self._lookups.get(side.number)
        if lookup is None:
            lookup = self._lookups[side.number] = Lookup(self._engine.one_set(side.number).rows)
        return lookup.find(peer, protocol, port)

    def _decide(self, side: SubjectSide, peer: int, protocol: int, port: int) -> Decision:
        row = self.row(side, peer, protocol, port)
        if row is None:
            by = side.rules.switched_on_by if side.rules else ()
            return Decision(Outcome.DENIED, Reason.DEFAULT_DENY, by)
        rules = self._engine.rule(row.rule)
        if row.deny:
            return Decision(Outcome.DENIED, Reason.DENY_RULE, rules)
        if row.proxy_port and not row.looks:
            return Decision(Outcome.L7, Reason.ALLOWED, rules)
        return Decision(Outcome.ALLOWED, Reason.ALLOWED, rules)
