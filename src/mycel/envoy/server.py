"""The socket that Envoy dials: discovery, and the log of requests. Root's alone, by its mode and by who dials."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from grpclib.server import Server

from mycel.kit.sockets import bind_unix

log = logging.getLogger(__name__)


class ProxyServer(Server):
    """grpclib's server, which refuses all but root."""

    def _protocol_factory(self) -> Any:
        protocol: Any = super()._protocol_factory()
        made: Callable[[asyncio.BaseTransport], None] = protocol.connection_made

        def connection_made(transport: asyncio.BaseTransport) -> None:
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


async def serve_proxy(path: Path, handlers: Collection[Any]) -> ProxyServer:
    """Serve on a unix socket of mode 0600 in a folder of mode 0700."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = ProxyServer(handlers)
    await server.start(sock=bind_unix(socket.SOCK_STREAM, path))
    return server
