"""Identities of prefixes: those policies name, and the addresses of API servers outside of the nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from mycel.model.workload import IdentityId
from mycel.policy.held import ALL_IPV4, world_labels
from mycel.policy.members import Members
from mycel.policy.names import LocalNumbers
from mycel.policy.rules import Network, Party


class Networks:
    """A prefix that nobody names any more stays somebody until `forget_retired`: an address may still lead to it."""

    def __init__(self, members: Members, numbers: LocalNumbers) -> None:
        self._members = members
        self._numbers = numbers
        self._uses: Counter[Network] = Counter()
        self._apiservers: frozenset[Network] = frozenset()
        self._retired: set[Network] = set()
        self._identities: Mapping[Network, IdentityId] | None = None  # made of `_uses` when somebody asks

    def adopt(self, networks: Mapping[Network, IdentityId]) -> None:
        """Go on with the identities an earlier process gave."""
        for network, number in networks.items():
            if self._numbers.adopt(network, number):
                self._retired.add(network)  # until somebody names it

    @property
    def identities(self) -> Mapping[Network, IdentityId]:
        """Prefixes somebody names → the identity of the addresses that no longer prefix has.

        The same object as before when they are the same.
        """
        if self._identities is None:
            found = {network: IdentityId(self._numbers.number(network)) for network in self._uses}
            if any(network.contains(ALL_IPV4) for network in found) and ALL_IPV4 not in found:
                found[ALL_IPV4] = IdentityId(2)  # else ::/0 would be IPv4's too
            self._identities = found
        return self._identities

    def labels(self, network: Network) -> tuple[str, ...]:
        """Labels of the addresses that no longer prefix has."""
        also = ("reserved:kube-apiserver=",) if network in self._apiservers else ()
        return (*world_labels(network), *also)

    def set_apiservers(self, new: frozenset[Network]) -> frozenset[Network]:
        """API servers are at these addresses outside of the nodes. Returns the networks whose labels are others now."""
        old, self._apiservers = self._apiservers, new
        self.replace(old - new, new - old)
        for network in old ^ new:
            if network in self._uses:  # policies name it, too
                self._put(network)
        return old ^ new

    def replace(self, old: Iterable[Network], new: Iterable[Network]) -> None:
        """Other prefixes are named than before."""
        for network in new:
            self._uses[network] += 1
            if self._uses[network] == 1:
                self._identities = None
                self._retired.discard(network)
                self._put(network)
        for network in old:
            self._uses[network] -= 1
            if not self._uses[network]:
                self._identities = None
                del self._uses[network]
                self._retired.add(network)

    def _put(self, network: Network) -> None:
        number = IdentityId(self._numbers.number(network))
        self._members.put(Party.of(number, self.labels(network), network=network))

    def forget_retired(self) -> bool:
        """Let go of those nobody names. True when there were any."""
        found, self._retired = self._retired, set()
        for network in found:
            self._members.drop(IdentityId(self._numbers.number(network)))
        self._numbers.release(found)
        return bool(found)
