"""Transparent sockets: listeners of redirected packets, replies from addresses of others, and legs as the client.

All of it needs CAP_NET_ADMIN. Marks and ports are those of docs/l7.md.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from mycel.abi import ProxyMark
from mycel.model.proxy import UPSTREAM_PORTS, upstream_mark

_IP_TRANSPARENT, _IP_RECVORIGDSTADDR, _IP_LOCAL_PORT_RANGE = 19, 20, 51
_IPV6_TRANSPARENT, _IPV6_RECVORIGDSTADDR = 75, 74
ANCILLARY = 64
_SO_RCVBUFFORCE = 33
_BUFFER = 4 << 20


class Place(NamedTuple):
    """An address and a port, as sockets take them."""

    address: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        """IPv4 or IPv6."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


def place_of(ancillary: list[tuple[int, int, bytes]]) -> Place | None:
    """Where a redirected datagram was going."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_RECVORIGDSTADDR):
            return Place(socket.inet_ntop(socket.AF_INET, data[4:8]), int.from_bytes(data[2:4], "big"))
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR):
            return Place(socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4], "big"))
    return None


def _transparent(family: int, kind: int, mark: int) -> socket.socket:
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except BaseException:
        made.close()
        raise
    return made


def listen(place: Place, kind: int) -> socket.socket:
    """A listener for UDP or TCP."""
    made = _transparent(place.family, kind, ProxyMark.DOWNSTREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == socket.SOCK_DGRAM:
            if place.family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR, 1)
            else:
                made.setsockopt(socket.IPPROTO_IP, _IP_RECVORIGDSTADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        made.bind(place)
        if kind == socket.SOCK_STREAM:
            made.listen(256)
    except BaseException:
        made.close()
        raise
    return made


def reply_from(server: Place) -> socket.socket:
    """A socket whose datagrams come from the server a client asked."""
    made = _transparent(server.family, socket.SOCK_DGRAM, ProxyMark.DOWNSTREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        made.bind(server)
    except BaseException:
        made.close()
        raise
    return made


def upstream(client: str, kind: int, *, listener: int) -> socket.socket:
    """A leg that goes on as the client; not connected yet."""
    family = Place(client, 0).family
    made = _transparent(family, kind, upstream_mark(ProxyMark.UPSTREAM_EGRESS, listener))
    first, last = UPSTREAM_PORTS
    try:
        made.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, last << 16 | first)
        if kind == socket.SOCK_DGRAM:
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        made.bind((client, 0))
    except BaseException:
        made.close()
        raise
    return made
