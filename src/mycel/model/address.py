"""Addresses as the maps keep them: 16 bytes in network order, IPv4 as v4-mapped (RFC 4291, 2.5.5.2)."""

from __future__ import annotations

import ipaddress
from typing import NewType

Address = NewType("Address", bytes)

_V4_PREFIX = bytes(10) + b"\xff\xff"
NO_ADDRESS = Address(bytes(16))
ANY_IPV4 = Address(_V4_PREFIX + bytes(4))
ANY_IPV6 = NO_ADDRESS


def parse_address(text: str) -> Address:
    """`10.0.0.1` or `fd00::1` as 16 bytes. Raises ValueError."""
    parsed = ipaddress.ip_address(text)
    return Address(_V4_PREFIX + parsed.packed if parsed.version == 4 else parsed.packed)


def format_address(address: bytes) -> str:
    """The usual text of 16 bytes."""
    if is_ipv4(address):
        a, b, c, d = address[12:]
        return f"{a}.{b}.{c}.{d}"
    return str(ipaddress.IPv6Address(address))


def is_ipv4(address: bytes) -> bool:
    """Whether the bytes are a v4-mapped address."""
    return address[:12] == _V4_PREFIX


def parse_prefix(text: str) -> tuple[Address, int]:
    """`10.0.0.0/24` as its first address and the length of 128 bits (an IPv4 /24 is 120).

    Raises ValueError.
    """
    network = ipaddress.ip_network(text, strict=False)
    if network.version == 4:
        return Address(_V4_PREFIX + network.network_address.packed), network.prefixlen + 96
    return Address(network.network_address.packed), network.prefixlen
