"""UDP and TCP sockets in front of a dispatcher."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence

from mycel.cluster.images.coredns.chain import Dispatcher, finish
from mycel.kit.dns import MAX_SIZE, DnsFormatError, Flag, Message, RCode, parse, serialize

log = logging.getLogger(__name__)

_BATCH = 64  # datagrams read before other tasks get their turn
_TASKS = 4000  # forwarded queries under way at once
_TCP_IDLE_S = 10.0
_TCP_CONNECTIONS = 500


class DnsServer:
    """Serves one port on the given addresses."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._connections = 0

    async def start(self, addresses: Sequence[str], port: int) -> None:
        """Bind and serve. Raises OSError."""
        loop = asyncio.get_running_loop()
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._sockets.append(sock)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            sock.bind((address, port))
            loop.add_reader(sock, self._read, sock)
            self._servers.append(await asyncio.start_server(self._converse, address, port))

    async def close(self) -> None:
        """Stop serving; what is being forwarded is dropped."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock)
            sock.close()
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _read(self, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                wire, peer = sock.recvfrom(MAX_SIZE)
            except BlockingIOError:
                return
            except OSError as exc:
                log.debug("reading: %s", exc)  # an ICMP error of an earlier answer
                return
            self._take(sock, wire, peer)

    def _take(self, sock: socket.socket, wire: bytes, peer: tuple[str, int]) -> None:
        query = _query(wire)
        if isinstance(query, bytes):
            _send(sock, query, peer)
        if not isinstance(query, Message):
            return
        response = self._dispatcher.respond(query)
        if isinstance(response, Message):
            _send(sock, serialize(finish(query, response), query.udp_limit()), peer)
        elif len(self._tasks) >= _TASKS:
            response.close()
            _send(sock, serialize(query.reply(RCode.SERVFAIL)), peer)
        else:

            async def later() -> None:
                found = finish(query, await response)
                _send(sock, serialize(found, query.udp_limit()), peer)

            task = asyncio.create_task(later())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP connection: queries one after the other until the client has no more (RFC 7766)."""
        self._connections += 1
        try:
            while self._connections <= _TCP_CONNECTIONS:
                async with asyncio.timeout(_TCP_IDLE_S):
                    size = int.from_bytes(await reader.readexactly(2))
                    wire = await reader.readexactly(size)
                query = _query(wire)
                if query is None:
                    return
                if isinstance(query, Message):
                    response = self._dispatcher.respond(query)
                    found = response if isinstance(response, Message) else await response
                    answer = serialize(finish(query, found))
                else:
                    answer = query
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()
        except (TimeoutError, EOFError, ConnectionError):
            return
        finally:
            self._connections -= 1
            writer.close()


def _query(wire: bytes) -> Message | bytes | None:
    """The query; a finished FORMERR answer if it is malformed; None if it must not be answered at all."""
    try:
        query = parse(wire)
    except DnsFormatError:
        if len(wire) < 12 or wire[2] & 0x80:
            return None
        opcode = wire[2] >> 3 & 0xF
        return serialize(Message(int.from_bytes(wire[:2]), Flag.QR, opcode, RCode.FORMERR))
    return None if query.is_response else query


def _send(sock: socket.socket, wire: bytes, peer: tuple[str, int]) -> None:
    try:
        sock.sendto(wire, peer)
    except OSError as exc:
        log.debug("answering %s: %s", peer, exc)
