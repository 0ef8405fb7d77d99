"""Which policies select whom, and the set of rows that each direction of a subject has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from mycel.abi import Direction
from mycel.model.workload import IdentityId
from mycel.policy.held import Held, has_names
from mycel.policy.index import PartyIndex, PeerIndex
from mycel.policy.members import Members
from mycel.policy.rules import ContainerPort, Labelled, Party, Peer
from mycel.policy.set_table import SetTable
from mycel.policy.sets import SetKey, SetRules
from mycel.policy.visibility import Visible

Look = tuple[Visible, ...]
"""What a proxy looks at, sorted."""


class Enforcement(Enum):
    """Who is judged (enable-policy): pods that policies select, everybody, nobody."""

    DEFAULT = "default"
    ALWAYS = "always"
    NEVER = "never"


class SubjectSide(NamedTuple):
    """One direction of a subject. `number` is that of its set; 0: nothing is enforced."""

    number: int
    rules: SetRules | None

    @property
    def enforced(self) -> bool:
        """Whether the kernel looks rows up."""
        return self.number != 0

    @property
    def judged(self) -> bool:
        """Whether any policy is about it; else its rows only say what a proxy looks at."""
        return self.rules is not None and (self.rules.default_deny or bool(self.rules.rules))


class Subject(NamedTuple):
    """What one subject enforces."""

    ingress: SubjectSide
    egress: SubjectSide


_NOTHING = SubjectSide(0, None)


class Subjects:
    """What was compiled for somebody is remembered until policies that select it change."""

    def __init__(self, members: Members, sets: SetTable, enforcement: Enforcement) -> None:
        self._members = members
        self._sets = sets
        self._enforcement = enforcement
        self._selectors = PeerIndex()
        self._by_selector: defaultdict[Peer, list[Held]] = defaultdict(list)
        self._asked: dict[IdentityId, tuple[Party, dict[Look, Subject]]] = {}
        """Subjects whose policies have not changed since."""
        self._askers = PartyIndex()  # these

    def replace(self, old: Iterable[Held], new: Iterable[Held]) -> None:
        """A policy object says something else than before."""
        changed: set[Peer] = set()
        for held in old:
            if not held.policy.of_nodes:
                selector = Labelled(held.policy.subject)
                changed.add(selector)
                self._by_selector[selector].remove(held)
                if self._selectors.discard(selector):
                    del self._by_selector[selector]
        for held in new:
            if not held.policy.of_nodes:
                selector = Labelled(held.policy.subject)
                changed.add(selector)
                self._selectors.add(selector)
                self._by_selector[selector].append(held)
        for selector in changed:
            for identity in self._askers.matching(selector):
                self.forget(identity)

    def forget(self, identity: IdentityId) -> None:
        """It is somebody's no more, or other policies select it."""
        if self._asked.pop(identity, None) is not None:
            self._askers.remove(identity)

    def selecting(self, party: Party) -> list[Held]:
        """The policies that select a subject, in order."""
        return sorted(
            (held for selector in self._selectors.matching(party) for held in self._by_selector[selector]),
            key=lambda held: held.policy.ref,
        )

    def get(self, party: Party, visible: Look) -> Subject:
        """What a subject enforces; its sets exist from then on."""
        known = self._asked.get(party.identity)
        if known is None or known[0] != party:
            known = self._asked[party.identity] = party, {}
            self._askers.put(party)
        found = known[1].get(visible)
        if found is None or not self._exist(found):
            selected = self.selecting(party)
            ingress, egress = (
                self._side(selected, direction, party, tuple(each for each in visible if each.direction == direction))
                for direction in (Direction.INGRESS, Direction.EGRESS)
            )
            found = known[1][visible] = Subject(ingress, egress)
        return found

    def _exist(self, subject: Subject) -> bool:
        return all(not side.enforced or side.number in self._sets for side in subject)

    def _side(self, selected: list[Held], direction: Direction, party: Party, visible: Look) -> SubjectSide:
        sides = [(held, side) for held in selected if (side := held.policy.side(direction)) is not None]
        always = self._enforcement is Enforcement.ALWAYS
        if self._enforcement is Enforcement.NEVER:
            sides = []
        if not (sides or always or visible):
            return _NOTHING
        ports: tuple[ContainerPort, ...] = ()
        if direction == Direction.INGRESS and any(has_names(side) for _, side in sides):
            ports = party.named_ports
        key = SetKey(direction, tuple(sorted(held.digest for held, _ in sides)), ports, visible)
        number = self._sets.number(
            key,
            lambda: SetRules(
                rules=tuple(rule for _, side in sides for rule in side.rules),
                default_deny=always or any(side.default_deny for _, side in sides),
                switched_on_by=tuple(held.policy.ref for held, side in sides if side.default_deny),
            ),
            members=self._members.by_peer,
            parties=self._members.parties,
        )
        return SubjectSide(number, self._sets[number].rules)
