"""Serving on the socket Envoy dials: discovery, and the log of requests. Root's alone, by mode and by who dials."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import weakref
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from grpclib.server import Server

log = logging.getLogger(__name__)
_LENT_S = 1.0


class ProxyServer(Server):
    """grpclib's server, which refuses all but root, and takes connections along when it is closed."""

    def __init__(self, handlers: Collection[Any]) -> None:
        super().__init__(handlers)
        self._transports: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()

    def close(self) -> None:
        """See grpclib."""
        super().close()
        for transport in self._transports:
            transport.close()

    def _protocol_factory(self) -> Any:
        protocol: Any = super()._protocol_factory()
        made: Callable[[asyncio.BaseTransport], None] = protocol.connection_made

        def connection_made(transport: asyncio.BaseTransport) -> None:
            self._transports.add(transport)
            made(transport)
            user = peer_user(transport.get_extra_info("socket"))
            if user != os.geteuid():
                log.error("a process of user %d dialled the proxy's socket and is refused", user)
                transport.close()

        protocol.connection_made = connection_made
        return protocol


def peer_user(connection: socket.socket) -> int:
    """The user at a unix socket's other end (SO_PEERCRED, unix(7))."""
    _pid, uid, _gid = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid


async def borrow(door: Path) -> tuple[socket.socket, socket.socket]:
    """The listening socket, and the connection on which it was lent (`lending`). Raises OSError when nobody lends."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        async with asyncio.timeout(_LENT_S):
            await asyncio.get_running_loop().sock_connect(connection, str(door))
            while True:
                try:
                    _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.01)
        if not descriptors:
            raise ConnectionResetError(f"{door}: nothing was lent")
    except BaseException:
        connection.close()
        raise
    return socket.socket(fileno=descriptors[0]), connection
