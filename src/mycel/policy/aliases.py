"""Identities for addresses of one pod or node that prefixes of policies tell apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from mycel.model.address import Address
from mycel.model.workload import IdentityId
from mycel.policy.members import Members
from mycel.policy.numbers import HashedNumbers
from mycel.policy.rules import Block, Cidr, Party, host_network

FIRST_ALIAS_IDENTITY = 3 << 24
"""Scope byte 3: never on the wire, never in ipcache."""
_COUNT = 1 << 24


class Aliases:
    """Aliases that no address has any more are let go by `forget_retired`."""

    def __init__(self, members: Members, cidr_modes: frozenset[str]) -> None:
        """`cidr_modes`: what else CIDR rules are about: `nodes`, `pods`."""
        self._members = members
        self._node_kinds = (Block, Cidr) if "nodes" in cidr_modes else ()
        self._pod_kinds = (Block, Cidr) if "pods" in cidr_modes else (Block,)
        self._numbers: HashedNumbers[tuple[IdentityId, tuple[Block | Cidr, ...]]] = HashedNumbers(
            FIRST_ALIAS_IDENTITY, _COUNT
        )
        self._there: set[IdentityId] = set()
        self._retired: set[IdentityId] = set()
        self._seen = 0  # of what version `all` spoke

    @property
    def stale(self) -> bool:
        """Whether `all` may say something else of the same addresses."""
        return self._seen != self._members.version

    def of(self, party: Party, address: Address) -> IdentityId:
        """The identity policy knows an address of a pod or node by: another one where prefixes tell addresses apart."""
        kinds = self._pod_kinds if party.is_pod else self._node_kinds
        blocks = self._members.peers.blocks(host_network(address), kinds)
        if not blocks:
            return party.identity
        number = IdentityId(self._numbers.number((party.identity, tuple(sorted(blocks, key=repr)))))
        self._there.add(number)
        self._members.put(dataclasses.replace(party, identity=number, blocks=blocks))
        return number

    def all(self, addresses: Iterable[tuple[int, Address]]) -> dict[Address, IdentityId]:
        """Addresses (with their identities) that policy knows by another identity than their own."""
        found: dict[Address, IdentityId] = {}
        if self._there or self._members.peers.has((*self._pod_kinds, *self._node_kinds)):
            for identity, address in addresses:
                party = self._members.parties.get(IdentityId(identity))
                if party is not None and (number := self.of(party, address)) != identity:
                    found[address] = number
            self._retired = self._there - set(found.values())
        self._seen = self._members.version
        return found

    def forget_retired(self) -> bool:
        """Let go of those `all` no longer names. True when there were any."""
        gone, self._retired = self._retired, set()
        for number in gone:
            self._members.drop(number)
        self._there -= gone
        return bool(gone)
