"""Which TCP sockets listen in this network namespace, by sock_diag(7). Standard library only, and no capability."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_LISTEN = 1 << 10  # of states
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ASK = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states
_TOLD = struct.Struct("=4x2s2x4s12x16x4x8x16xI")  # inet_diag_msg of IPv4: port, address, inode


class Listening(NamedTuple):
    """A socket that listens. `inode` is what fstat(2) says of its descriptor."""

    port: int
    inode: int


def listening(address: str) -> set[Listening]:
    """Those at an IPv4 address. Raises OSError."""
    wanted = socket.inet_aton(address)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        ask = _ASK.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _LISTEN)
        netlink.send(_HEADER.pack(_HEADER.size + len(ask), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + ask)
        found: set[Listening] = set()
        while True:
            data = netlink.recv(1 << 16)
            place = 0
            while place < len(data):
                length, kind, _, _, _ = _HEADER.unpack_from(data, place)
                body = place + _HEADER.size
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, body)[0], "sockets cannot be listed")
                port, at, inode = _TOLD.unpack_from(data, body)
                if at == wanted:
                    found.add(Listening(int.from_bytes(port, "big"), inode))
                place += (length + 3) & ~3
