"""Addresses for this node's pods, from its podCIDR. Pure bookkeeping, no clock.

The first address of a network is the router's, the last the ingress proxy's. Addresses are given out round and round,
so one that was released comes back as late as the network allows: connections and caches of its last owner are gone
by then.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from mycel.model.address import Address, parse_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class PoolExhausted(Exception):
    """Every address of the node's pod network is in use."""


def router_address(network: str) -> Address:
    """The first address of a pod network: every pod's next hop."""
    return parse_address(str(ipaddress.ip_network(network)[1]))


def ingress_address(network: str) -> Address:
    """The last address of a pod network: whom backends see when the node's proxy serves a client of the outside."""
    parsed = ipaddress.ip_network(network)
    return parse_address(str(parsed[-2 if parsed.version == 4 else -1]))  # IPv4's very last is the broadcast address


class Pool:
    """The addresses of one network. `taken` are in use already (restored endpoints)."""

    def __init__(self, network: str, taken: Iterable[Address] = ()) -> None:
        self.network: Network = ipaddress.ip_network(network)
        self._first = int(self.network.network_address) + 2
        # Up to the ingress proxy's; an IPv6 network is too large to walk to its end.
        last = int(self.network.broadcast_address) - (2 if self.network.version == 4 else 1)
        self._count = min(last, self._first + 65_535) - self._first + 1
        if self._count < 1:
            raise ValueError(f"pod network {network} has no room for pods")
        self._used: set[Address] = set()
        self._next = 0
        self.reserve(taken)

    def __contains__(self, address: Address) -> bool:
        offset = self._offset(address)
        return 0 <= offset < self._count and address[:12] == self._at(0)[:12]

    @property
    def used(self) -> int:
        """How many addresses are in use."""
        return len(self._used)

    @property
    def size(self) -> int:
        """How many addresses there are for pods."""
        return self._count

    def allocate(self) -> Address:
        """The next free address. Raises PoolExhausted."""
        for step in range(self._count):
            offset = (self._next + step) % self._count
            address = self._at(offset)
            if address not in self._used:
                self._used.add(address)
                self._next = offset + 1
                return address
        raise PoolExhausted(f"all {self._count} addresses of pod network {self.network} are in use")

    def reserve(self, addresses: Iterable[Address]) -> None:
        """Take addresses of this network out; allocation goes on behind the last of them."""
        for address in addresses:
            if address in self:
                self._used.add(address)
                self._next = max(self._next, self._offset(address) + 1)

    def release(self, address: Address) -> None:
        """Give an address back; unknown ones are ignored."""
        self._used.discard(address)

    def _at(self, offset: int) -> Address:
        return parse_address(str(self.network.network_address + (self._first + offset - int(self.network[0]))))

    def _offset(self, address: Address) -> int:
        raw = address[12:] if self.network.version == 4 else address
        return int.from_bytes(raw, "big") - self._first
