"""Identities of addresses that DNS answered with, by the selectors of toFQDNs that their names satisfy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from mycel.model.workload import IdentityId
from mycel.policy.held import ALL_IPV4, ALL_IPV6
from mycel.policy.members import Members
from mycel.policy.numbers import HashedNumbers
from mycel.policy.rules import Network, Party

FIRST_LOCAL_IDENTITY = 1 << 24
_LOCAL_COUNT = 1 << 24


class Named(NamedTuple):
    """What the identity of an address that DNS answered with is made of."""

    selectors: tuple[str, ...]  # of toFQDNs that its names satisfy; canonical, sorted, not empty
    network: Network  # the longest prefix of policies over it; all of its family where there is none


class LocalNumbers(HashedNumbers[Network | Named]):
    """Identities a node gives by itself (scope byte 1): to prefixes, and to addresses by their names."""

    def __init__(self) -> None:
        super().__init__(FIRST_LOCAL_IDENTITY, _LOCAL_COUNT)


class Names:
    """See the module."""

    def __init__(self, members: Members, numbers: LocalNumbers, labels: Callable[[Network], tuple[str, ...]]) -> None:
        """`labels`: what addresses of a network have, whatever their names."""
        self._members = members
        self._numbers = numbers
        self._labels = labels
        self._identities: dict[Named, IdentityId] = {}
        self._uses: Counter[str] = Counter()

    def adopt(self, named: Mapping[Named, IdentityId]) -> None:
        """Go on with the identities an earlier process gave."""
        for key, number in named.items():
            self._numbers.adopt(key, number)
            self.identity(key)

    def identity(self, key: Named) -> IdentityId:
        """The identity of addresses whose names satisfy these selectors; it is there from then on."""
        number = self._identities.get(key)
        if number is None:
            number = self._identities[key] = IdentityId(self._numbers.number(key))
            self._put(key, number)
        return number

    def _put(self, key: Named, number: IdentityId) -> None:
        labels = (*(f"fqdn:{each}=" for each in key.selectors), *self._labels(key.network))
        self._members.put(Party.of(number, labels, network=key.network))

    def relabel(self, networks: Collection[Network]) -> None:
        """Addresses of these networks have other labels than before."""
        for key, number in self._identities.items():
            if key.network in networks:
                self._put(key, number)

    @property
    def identities(self) -> Mapping[Named, IdentityId]:
        """Every one there is."""
        return self._identities

    @property
    def selectors(self) -> frozenset[str]:
        """The selectors of toFQDNs in force."""
        return frozenset(self._uses)

    def replace(self, old: Iterable[str], new: Iterable[str]) -> None:
        """Policies have other selectors than before. Single ones have their identities before anybody asks: rows are
        there for the first answer.
        """
        for selector in new:
            self._uses[selector] += 1
            self.identity(Named((selector,), ALL_IPV4))
            self.identity(Named((selector,), ALL_IPV6))
        for selector in old:
            self._uses[selector] -= 1
            if not self._uses[selector]:
                del self._uses[selector]

    def keep(self, used: Collection[IdentityId]) -> bool:
        """Let go of identities no address has, but for those of single selectors in force. True when any went."""
        gone = {
            key: number
            for key, number in self._identities.items()
            if number not in used and not (len(key.selectors) == 1 and key.selectors[0] in self._uses)
        }
        for key, number in gone.items():
            del self._identities[key]
            self._members.drop(number)
        self._numbers.release(gone)
        return bool(gone)
