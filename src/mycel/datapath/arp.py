"""Gratuitous ARP (RFC 826, 5227): saying on a network that an address is here, so that caches follow it at once."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from mycel.datapath.netlink import Link

_ETH_P_ARP = 0x0806
_BROADCAST = b"\xff" * 6


def announcement(mac: bytes, address: bytes) -> bytes:
    """The frame that says an IPv4 address (4 bytes) is at a MAC: a question for it, in its own name."""
    head = _BROADCAST + mac + struct.pack("!H", _ETH_P_ARP)
    return head + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address + bytes(6) + address


def announce(links: Iterable[Link], addresses: Iterable[bytes]) -> None:
    """Say it of every address (`struct addr`, IPv4) on every device. Blocks briefly. Raises OSError."""
    frames = [address[12:] for address in addresses]
    for link in links:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((link.name, 0))
            for address in frames:
                sender.send(announcement(link.mac, address))
