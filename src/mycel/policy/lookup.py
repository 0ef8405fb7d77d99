"""The kernel's decision in Python: two longest-prefix lookups and the choice between them.

This is bpf/lib/policy.h line by line; whatever is asked offline is asked of the same rows in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping

from mycel.abi import PolicyKey, PolicyValue, ReservedIdentity
from mycel.policy.rows import FULL_BITS, L3_BITS, PORT_BITS, PROTOCOL_BITS

PolicyRows = Mapping[PolicyKey, PolicyValue]


class Lookup:
    """A set's rows, ready to be asked."""

    def __init__(self, rows: PolicyRows) -> None:
        self._rows = rows
        self._lengths = tuple(sorted({key.prefixlen for key in rows}, reverse=True))

    def find(self, identity: int, protocol: int, port: int) -> PolicyValue | None:
        """The row that decides, None when there is none (denied). ICMP has its type in `port`."""
        named = self.longest(identity, protocol, port)
        anybody = self.longest(ReservedIdentity.UNKNOWN, protocol, port)
        if named is None or anybody is None:
            return named or anybody
        if named.deny != anybody.deny:
            return named if named.deny else anybody
        return anybody if anybody.precedence > named.precedence else named

    def longest(self, identity: int, protocol: int, port: int) -> PolicyValue | None:
        """The row of the longest prefix among one identity's."""
        for length in self._lengths:
            found = self._rows.get(key_of(length, identity, protocol, port))
            if found is not None:
                return found
        return None


def key_of(length: int, identity: int, protocol: int, port: int) -> PolicyKey:
    """The key of a row of this length that is about a connection."""
    if length >= PORT_BITS:
        mask = 0xFFFF << (FULL_BITS - length)
        return PolicyKey(length, identity, protocol, port & mask)
    if length >= PROTOCOL_BITS:
        return PolicyKey(length, identity, protocol, 0)
    assert length == L3_BITS, "rows leave out the identity's bits all or not at all"
    return PolicyKey(length, identity, 0, 0)
