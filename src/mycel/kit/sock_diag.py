"""TCP sockets of this network namespace (IPv4), by sock_diag(7): which listen, which are marked, and ending those.

Standard library only. Listing listeners asks for no capability; marks and ending ask for CAP_NET_ADMIN.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 4, 20, 21
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _DUMP, _ACK = 0x1, 0x300, 0x4  # NLM_F_…
_LISTEN = 1 << 10  # of states
_CONNECTED = 1 << 1 | 1 << 2 | 1 << 8  # ESTABLISHED, SYN_SENT, CLOSE_WAIT
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ASK = struct.Struct("=BBBxI48s")  # inet_diag_req_v2: family, protocol, extensions, states, id
_TOLD = struct.Struct("=4x2s2s4s12x4s12x4x8x16xI")  # inet_diag_msg of IPv4: ports and addresses of both ends, inode
_ID = slice(4, 52)  # inet_diag_sockid, of an inet_diag_msg
_ATTRIBUTE = struct.Struct("=HH")  # nlattr
_MARK = 15  # INET_DIAG_MARK
# INET_DIAG_REQ_BYTECODE with one INET_DIAG_BC_MARK_COND: those for which it does not hold jump past the end.
_BYTECODE, _MARK_COND = 1, struct.Struct("=BBHII")
_MARK_OP = 10


class Listening(NamedTuple):
    """A socket that listens. `inode` is what fstat(2) says of its descriptor."""

    port: int
    inode: int


class Marked(NamedTuple):
    """A connected socket with a mark."""

    mark: int
    source: bytes  # 4 bytes
    peer: bytes
    peer_port: int
    handle: bytes  # the kernel's: what `end` needs


def listening(address: str) -> set[Listening]:
    """Those at an IPv4 address. Raises OSError."""
    wanted = socket.inet_aton(address)
    ask = _ASK.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _LISTEN, b"")
    with _open() as netlink:
        told = (_TOLD.unpack_from(each) for each in _dump(netlink, ask))
        return {Listening(int.from_bytes(port, "big"), inode) for port, _, source, _, inode in told if source == wanted}


def marked(mark: int, mask: int) -> list[Marked]:
    """Connected sockets whose mark has these bits. Raises OSError."""
    ask = _ASK.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _CONNECTED, b"")
    condition = _MARK_COND.pack(_MARK_OP, _MARK_COND.size, _MARK_COND.size + 4, mark, mask)
    ask += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(condition), _BYTECODE) + condition
    found: list[Marked] = []
    with _open() as netlink:
        for each in _dump(netlink, ask):
            _, port, source, peer, _ = _TOLD.unpack_from(each)
            found.append(Marked(_mark(each), source, peer, int.from_bytes(port, "big"), each[_ID]))
    return found


def end(connections: Iterable[Marked]) -> int:
    """End connections as if they were reset; returns how many were still there. Raises OSError."""
    ended = 0
    with _open() as netlink:
        for each in connections:
            ask = _ASK.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _CONNECTED, each.handle)
            netlink.send(_HEADER.pack(_HEADER.size + len(ask), _SOCK_DESTROY, _REQUEST | _ACK, 1, 0) + ask)
            error = -struct.unpack_from("=i", netlink.recv(1 << 12), _HEADER.size)[0]
            if error not in (0, 2):  # ENOENT: it has ended by itself
                raise OSError(error, "a socket cannot be ended")
            ended += not error
    return ended


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)


def _dump(netlink: socket.socket, ask: bytes) -> Iterator[bytes]:
    """The inet_diag_msg, with its attributes, of each socket."""
    netlink.send(_HEADER.pack(_HEADER.size + len(ask), _SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, 1, 0) + ask)
    while True:
        data = netlink.recv(1 << 16)
        place = 0
        while place < len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, place)
            body = data[place + _HEADER.size : place + length]
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise OSError(-struct.unpack_from("=i", body)[0], "sockets cannot be listed")
            yield body
            place += (length + 3) & ~3


def _mark(told: bytes) -> int:
    place = _TOLD.size
    while place + _ATTRIBUTE.size <= len(told):
        length, kind = _ATTRIBUTE.unpack_from(told, place)
        if kind == _MARK:
            return int(struct.unpack_from("=I", told, place + _ATTRIBUTE.size)[0])
        place += (max(length, _ATTRIBUTE.size) + 3) & ~3
    return 0
