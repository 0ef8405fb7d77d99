"""DNS over TCP: one connection of a client is one to the server, question after question (RFC 7766)."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time

from mycel.dnsproxy import sockets
from mycel.dnsproxy.gate import ANSWER_WITHIN_S, Gate
from mycel.dnsproxy.records import Listener, Records
from mycel.dnsproxy.sockets import Place
from mycel.dnsproxy.wire import FAILED, Answer, Query, is_answer, read_answer, refusal
from mycel.flow.l7 import L7Verdict
from mycel.kit.dns import DnsFormatError, RCode

log = logging.getLogger(__name__)
CONNECTIONS, PER_CLIENT = 512, 64
_IDLE_S = 10.0


class TcpListener:
    """One listener's TCP side."""

    def __init__(self, made: socket.socket, port: int, gate: Gate, records: Records) -> None:
        self._socket = made
        self._port = port
        self._here = Listener(port, "TCP")
        self._gate = gate
        self._records = records
        self._connections: dict[asyncio.Task[None], str] = {}
        self._task = asyncio.get_running_loop().create_task(self._accept(), name=f"TCP listener {port}")

    def close(self) -> None:
        """End it, connections too."""
        self._task.cancel()
        for each in self._connections:
            each.cancel()
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                made, peer = await loop.sock_accept(self._socket)
            except OSError as exc:
                log.warning("listener %d: %s", self._port, exc)
                await asyncio.sleep(0.1)
                continue
            client = Place(peer[0], peer[1])
            of_client = sum(each == client.address for each in self._connections.values())
            if len(self._connections) >= CONNECTIONS or of_client >= PER_CLIENT:
                made.close()
                continue
            task = loop.create_task(self._serve(made, client), name="DNS over TCP")
            self._connections[task] = client.address
            task.add_done_callback(self._connections.pop)

    async def _serve(self, made: socket.socket, client: Place) -> None:
        server = Place(*made.getsockname()[:2])
        reader, writer = await asyncio.open_connection(sock=made)
        leg = _Leg(client.address, server, self._port)
        try:
            while True:
                async with asyncio.timeout(_IDLE_S):
                    wire = await _read(reader)
                answer = await self._answer(wire, client, server, leg)
                if answer is None:
                    return
                writer.write(struct.pack("!H", len(answer)) + answer)
                async with asyncio.timeout(_IDLE_S):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            writer.close()
            leg.close()

    async def _answer(self, wire: bytes, client: Place, server: Place, leg: _Leg) -> bytes | None:
        """What to answer; None: hang up."""
        began_s = time.monotonic()
        judged = self._gate.judge(self._port, wire)
        query = judged.query
        if query is None:
            return None if judged.refuse is None else refusal(wire, judged.refuse)

        def tell(verdict: L7Verdict, answer: Answer | None = None) -> None:
            if self._records.wanted:
                self._records.tell(self._here, query, client, server, verdict, answer, sent_s=began_s)

        if judged.refuse is not None:
            tell(L7Verdict.DROPPED)
            return refusal(wire, judged.refuse)
        try:
            got = await self._ask(wire, query, client, server, leg, until_s=began_s + ANSWER_WITHIN_S)
        except asyncio.CancelledError:
            tell(L7Verdict.ERROR, FAILED)
            raise
        if got is None:
            tell(L7Verdict.ERROR, FAILED)
            return refusal(wire, RCode.SERVFAIL)
        found, answer = got
        tell(L7Verdict.FORWARDED, answer)
        return found

    async def _ask(
        self, wire: bytes, query: Query, client: Place, server: Place, leg: _Leg, *, until_s: float
    ) -> tuple[bytes, Answer] | None:
        """The server's answer, when it may be released; None: there is none in time."""
        try:
            async with asyncio.timeout(until_s - time.monotonic()):
                found = await leg.ask(wire, query)
            fresh = self._gate.fresh(found)
            answer = fresh or read_answer(found, query)
        except (OSError, EOFError, TimeoutError, DnsFormatError) as exc:
            log.debug("query to %s by TCP: %s", server, exc)
            leg.close()
            return None
        admitted = fresh is not None or self._gate.admit(found, query, answer, client.address)
        if not admitted and not await self._gate.settled(answer, until_s - time.monotonic()):
            return None
        return found, answer


class _Leg:
    """The connection to the server, made when it is needed."""

    def __init__(self, client: str, server: Place, port: int) -> None:
        self._client, self._server, self._port = client, server, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, wire: bytes, query: Query) -> bytes:
        """The answer to a query. Raises OSError or EOFError."""
        if self._streams is not None:
            try:
                return await self._ask(wire, query, *self._streams)
            except (OSError, EOFError):
                self.close()  # servers hang up when they like (RFC 7766, 6.2.4)
        return await self._ask(wire, query, *await self._connect())

    async def _ask(
        self, wire: bytes, query: Query, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        writer.write(struct.pack("!H", len(wire)) + wire)
        await writer.drain()
        while True:
            found = await _read(reader)
            if found[:2] == wire[:2] and is_answer(found, query):
                return found

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        made = sockets.upstream(self._client, socket.SOCK_STREAM, listener=self._port)
        try:
            await asyncio.get_running_loop().sock_connect(made, self._server)
        except BaseException:
            made.close()
            raise
        self._streams = await asyncio.open_connection(sock=made)
        return self._streams

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read(reader: asyncio.StreamReader) -> bytes:
    """One message. Raises EOFError at the end."""
    (size,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(size)
