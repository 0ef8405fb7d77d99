"""Short spellings of addresses and map rows for the datapath's tests."""

from __future__ import annotations

import ipaddress
from typing import Any

from mycel import abi


def addr(text: str) -> bytes:
    """`struct addr` of an address."""
    parsed = ipaddress.ip_address(text)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def text(raw: bytes) -> str:
    """An address as people write it."""
    parsed = ipaddress.IPv6Address(raw)
    return str(parsed.ipv4_mapped or parsed)


def mac(colons: str) -> bytes:
    """`struct mac` of aa:bb:…"""
    return bytes.fromhex(colons.replace(":", ""))


def key_of(source: str, destination: str, ports: tuple[int, int], protocol: int) -> abi.Tuple:
    """The tuple of a packet, as mycel_nat has it."""
    return abi.Tuple(addr(source), addr(destination), *ports, protocol)


def ct_key(source: str, destination: str, ports: tuple[int, int], protocol: int) -> abi.Tuple:
    """The direction-free key of a connection: the lower end first, compared as the kernel's machine words are."""
    tuple_ = key_of(source, destination, ports, protocol)

    def end(address: bytes, port: int) -> tuple[int, int, int]:
        low, high = int.from_bytes(address[8:], "little"), int.from_bytes(address[:8], "little")
        return low, high, int.from_bytes(port.to_bytes(2, "big"), "little")

    if end(tuple_.source, tuple_.source_port) > end(tuple_.destination, tuple_.destination_port):
        return key_of(destination, source, (ports[1], ports[0]), protocol)
    return tuple_


def prefix(network: str) -> abi.IpcacheLpmKey:
    """Key of mycel_ipcache_lpm."""
    parsed = ipaddress.ip_network(network)
    bits = parsed.prefixlen + (96 if parsed.version == 4 else 0)
    return abi.IpcacheLpmKey(bits, addr(str(parsed.network_address)))


def endpoint(**fields: Any) -> abi.EndpointValue:
    """An endpoint's row; what is not named is zero."""
    nothing: dict[str, Any] = {
        name: (bytes(16) if name in ("ipv4", "ipv6") else bytes(6) if name in ("mac", "node_mac") else 0)
        for name in abi.EndpointValue._fields
    }
    return abi.EndpointValue(**(nothing | fields))


def host_endpoint() -> abi.EndpointValue:
    """The row of an address of the node itself."""
    return endpoint(
        identity=abi.ReservedIdentity.HOST,
        flags=abi.EndpointFlags.HOST | abi.EndpointFlags.READY,
    )
