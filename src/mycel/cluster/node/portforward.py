"""Port forwarding: pairs of SPDY streams (data, error) become TCP connections inside the pod's network namespace.

The same session runs on a raw SPDY/3.1 connection and inside WebSocket messages (`SPDY/3.1+portforward.k8s.io`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from mycel.cluster.node import sandbox, spdy, websocket

_CHUNK = 32 << 10
_DIAL_TIMEOUT_S = 10


@dataclass(slots=True)
class _Connection:
    """One local connection of the client: its request id, its two streams, and what came before the dial succeeded."""

    request: str
    port: int = 0
    data: int = 0
    error: int = 0
    inbox: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(64))
    task: asyncio.Task[None] | None = None


class Forwarder:
    """One port-forward session. `read()` gives raw SPDY bytes (empty at the end), `write(data)` takes them."""

    def __init__(
        self, netns: Path | None, read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self._netns = netns
        self._read, self._write = read, write
        self._decoder, self._encoder = spdy.Decoder(), spdy.Encoder()
        self._by_request: dict[str, _Connection] = {}
        self._by_stream: dict[int, _Connection] = {}

    async def run(self) -> None:
        """Until the client goes; every connection ends with it."""
        try:
            while data := await self._read():
                for frame in self._decoder.feed(data):
                    await self._take(frame)
        except (ConnectionError, spdy.ProtocolError, websocket.ProtocolError):
            return
        finally:
            for connection in self._by_request.values():
                if connection.task is not None:
                    connection.task.cancel()

    async def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.SynStream(stream, headers, fin):
                await self._open(stream, headers, fin)
            case spdy.Data(stream, data, fin):
                connection = self._by_stream.get(stream)
                if data:
                    await self._write(
                        self._encoder.window_update(stream, len(data)) + self._encoder.window_update(0, len(data))
                    )
                if connection is not None and stream == connection.data:
                    if data:
                        await connection.inbox.put(data)
                    if fin:
                        await connection.inbox.put(None)
            case spdy.Ping(number):
                if number % 2:
                    await self._write(self._encoder.ping(number))
            case spdy.Reset(stream, _):
                connection = self._by_stream.get(stream)
                if connection is not None and connection.task is not None and stream == connection.data:
                    connection.task.cancel()
            case _:
                pass

    async def _open(self, stream: int, headers: dict[str, str], fin: bool) -> None:
        request, kind, port = headers.get("requestid", "0"), headers.get("streamtype"), headers.get("port", "")
        if kind not in ("data", "error") or not port.isdigit() or not 0 < int(port) < 65536:
            await self._write(self._encoder.reset(stream, 3))
            return
        await self._write(self._encoder.syn_reply(stream))
        connection = self._by_request.setdefault(request, _Connection(request))
        connection.port = int(port)
        self._by_stream[stream] = connection
        if kind == "data":
            connection.data = stream
            if fin:
                await connection.inbox.put(None)
        else:
            connection.error = stream
        if connection.data and connection.error:
            connection.task = asyncio.create_task(self._serve(connection), name=f"forward {port}")

    async def _serve(self, connection: _Connection) -> None:
        complaint = ""
        try:
            complaint = await self._join(connection)
        finally:
            with contextlib.suppress(ConnectionError):
                await self._write(
                    self._encoder.data(connection.data, b"", fin=True)
                    + self._encoder.data(connection.error, complaint.encode(), fin=True)
                )
            self._by_request.pop(connection.request, None)
            self._by_stream.pop(connection.data, None)
            self._by_stream.pop(connection.error, None)

    async def _join(self, connection: _Connection) -> str:
        loop = asyncio.get_running_loop()
        try:
            sock = await loop.run_in_executor(None, sandbox.socket_in, self._netns)
            async with asyncio.timeout(_DIAL_TIMEOUT_S):
                await loop.sock_connect(sock, ("127.0.0.1", connection.port))
            reader, writer = await asyncio.open_connection(sock=sock)
        except (OSError, TimeoutError) as exc:
            return (
                f"error forwarding port {connection.port}: failed to connect to localhost:{connection.port} "
                f"inside the pod's network namespace: {exc or 'timed out'}"
            )
        upstream = asyncio.create_task(self._upload(connection, writer))
        try:
            while data := await reader.read(_CHUNK):
                await self._write(self._encoder.data(connection.data, data))
        except ConnectionError:
            return ""
        finally:
            upstream.cancel()
            writer.close()
        return ""

    async def _upload(self, connection: _Connection, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while (data := await connection.inbox.get()) is not None:
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()


async def messages(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    """The binary messages of a WebSocket connection; pings are answered."""
    decoder = websocket.Decoder()
    while data := await reader.read(65536):
        for message in decoder.feed(data):
            if message.op is websocket.Op.CLOSE:
                writer.write(websocket.encode(websocket.Op.CLOSE, message.data[:2]))
                return
            if message.op is websocket.Op.PING:
                writer.write(websocket.encode(websocket.Op.PONG, message.data))
            elif message.op is websocket.Op.BINARY and message.data:
                yield message.data
