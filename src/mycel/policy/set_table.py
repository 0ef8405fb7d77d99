"""The sets in use, by number, with the numbers their rows name: of rules, and of proxies' ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from mycel.model.workload import IdentityId
from mycel.policy.index import PartyIndex
from mycel.policy.numbers import HashedNumbers
from mycel.policy.proxy_ports import ProxyPorts
from mycel.policy.rules import Party, Peer, RuleRef
from mycel.policy.sets import PolicySet, SetKey, SetRules


class SetTable:
    """Sets named after their content."""

    def __init__(self, *, limit: int) -> None:
        """`limit`: rows of a set."""
        self._limit = limit
        self._numbers: HashedNumbers[SetKey] = HashedNumbers(1, 2**32 - 1)
        self._rules: HashedNumbers[tuple[RuleRef, ...]] = HashedNumbers(1, 2**32 - 1)
        self._sets: dict[int, PolicySet] = {}
        self.ports = ProxyPorts()

    def __getitem__(self, number: int) -> PolicySet:
        return self._sets[number]

    def __contains__(self, number: object) -> bool:
        return number in self._sets

    def number(
        self,
        key: SetKey,
        rules: Callable[[], SetRules],
        *,
        members: Mapping[Peer, Iterable[IdentityId]],
        parties: PartyIndex,
    ) -> int:
        """The number of a set, which is made of everybody there is when there is none."""
        number = self._numbers.number(key)
        if number not in self._sets:
            made = self._sets[number] = PolicySet(
                key,
                rules(),
                proxies=partial(self.ports.number, key.direction),
                numbers=self._rules.number,
                limit=self._limit,
            )
            made.fill(members, parties)
        return number

    def put(self, change: Mapping[IdentityId, tuple[Party, frozenset[Peer]] | None]) -> None:
        """Bring every set up to date; see `PolicySet.put`."""
        for each in self._sets.values():
            each.put(change)

    def keep(self, numbers: Iterable[int]) -> dict[int, PolicySet]:
        """These sets (0: none); all others are forgotten."""
        kept = {number: self._sets[number] for number in sorted(set(numbers)) if number}
        gone = [each for number, each in self._sets.items() if number not in kept]
        self._sets = kept
        self._numbers.release(each.key for each in gone)
        if any(each.proxy_ports for each in gone):
            self.ports.keep(self.ports_in_use)
        return kept

    @property
    def ports_in_use(self) -> set[int]:
        """Ports of proxies that rows name."""
        return {port for each in self._sets.values() for port in each.proxy_ports}

    def rule(self, number: int) -> tuple[RuleRef, ...]:
        """The rules a row's number stands for."""
        return self._rules.key(number) or ()
