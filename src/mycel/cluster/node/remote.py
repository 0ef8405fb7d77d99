"""The streams of one exec or attach, whatever carries them: SPDY/3.1, or WebSocket with v4/v5.channel.k8s.io.

Both transports give the same thing: `stdin` as a queue (None marks its end), `send` for output, `sizes` for the
terminal, `finish` for the final metav1.Status, which goes out after every byte of output.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from mycel.cluster.node import spdy, websocket
from mycel.cluster.node.names import Object

_SETUP_TIMEOUT_S = 30
_QUEUE = 64


class Stream(StrEnum):
    """Streams by kubectl's names."""

    ERROR = "error"
    STDIN = "stdin"
    STDOUT = "stdout"
    STDERR = "stderr"
    RESIZE = "resize"


class Size(NamedTuple):
    """A terminal's size in characters."""

    width: int
    height: int


class _TerminalSize(msgspec.Struct):
    Width: int = 0
    Height: int = 0


class Channel(Protocol):
    """What an exec or attach speaks to."""

    stdin: asyncio.Queue[bytes | None]
    sizes: asyncio.Queue[Size]
    closed: asyncio.Event

    async def send(self, stream: Stream, data: bytes) -> None:
        """Output; waits while the peer is slow. Raises ConnectionError."""
        ...

    async def finish(self, status: Object) -> None:
        """The outcome; nothing can be sent after it."""
        ...


def success() -> Object:
    """The status of exit code 0."""
    return {"metadata": {}, "status": "Success"}


def exited(code: int) -> Object:
    """The status of any other exit code."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: error executing command, exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failed(message: str) -> Object:
    """The status of a command that could not be run."""
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}


class SpdyChannel:
    """Streams over SPDY: the client opens one per direction and names it in a header."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, expected: set[Stream]) -> None:
        self.stdin: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE)
        self.sizes: asyncio.Queue[Size] = asyncio.Queue()
        self.closed = asyncio.Event()
        self._reader, self._writer = reader, writer
        self._decoder, self._encoder = spdy.Decoder(), spdy.Encoder()
        self._expected = expected
        self._ids: dict[Stream, int] = {}
        self._kinds: dict[int, Stream] = {}
        self._complete = asyncio.Event()

    async def wait_streams(self) -> None:
        """Until the client has opened every stream it asked for. Raises TimeoutError."""
        async with asyncio.timeout(_SETUP_TIMEOUT_S):
            await self._complete.wait()

    async def run(self) -> None:
        """Read frames until the connection ends."""
        try:
            while data := await self._reader.read(65536):
                for frame in self._decoder.feed(data):
                    await self._take(frame)
        except (ConnectionError, spdy.ProtocolError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()
            with contextlib.suppress(asyncio.QueueFull):
                self.stdin.put_nowait(None)

    async def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.SynStream(stream, headers, fin):
                await self._open(stream, headers, fin)
            case spdy.Data(stream, data, fin):
                if data:
                    self._writer.write(
                        self._encoder.window_update(stream, len(data)) + self._encoder.window_update(0, len(data))
                    )
                kind = self._kinds.get(stream)
                if kind is Stream.STDIN:
                    if data:
                        await self.stdin.put(data)
                    if fin:
                        await self.stdin.put(None)
                elif kind is Stream.RESIZE and data:
                    _resize(data, self.sizes)
            case spdy.Ping(number):
                if number % 2:  # even ones would be our own
                    self._writer.write(self._encoder.ping(number))
            case spdy.Reset(stream, _):
                if self._kinds.get(stream) is Stream.STDIN:
                    await self.stdin.put(None)
            case _:
                pass

    async def _open(self, stream: int, headers: dict[str, str], fin: bool) -> None:
        try:
            kind = Stream(headers.get("streamtype", ""))
        except ValueError:
            self._writer.write(self._encoder.reset(stream, 3))  # REFUSED_STREAM
            return
        self._writer.write(self._encoder.syn_reply(stream))
        self._ids[kind], self._kinds[stream] = stream, kind
        if fin and kind is Stream.STDIN:
            await self.stdin.put(None)
        if self._expected <= set(self._ids):
            self._complete.set()

    async def send(self, stream: Stream, data: bytes) -> None:
        number = self._ids.get(stream)
        if number is None:
            return
        for at in range(0, len(data), spdy.DATA_CHUNK):
            self._writer.write(self._encoder.data(number, data[at : at + spdy.DATA_CHUNK]))
        await self._writer.drain()

    async def finish(self, status: Object) -> None:
        error = self._ids.get(Stream.ERROR)
        for kind in (Stream.STDOUT, Stream.STDERR):
            if kind in self._ids:
                self._writer.write(self._encoder.data(self._ids[kind], b"", fin=True))
        if error is not None:
            self._writer.write(self._encoder.data(error, msgspec.json.encode(status), fin=True))
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()
            # The client closes when it has read everything; closing first could cut off what is under way.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self.closed.wait()


_CHANNELS = {Stream.STDIN: 0, Stream.STDOUT: 1, Stream.STDERR: 2, Stream.ERROR: 3, Stream.RESIZE: 4}
_CLOSE_CHANNEL = 255  # v5: the next byte names a channel that is at its end


class WebSocketChannel:
    """Streams over WebSocket: the first byte of a binary message names the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.stdin: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE)
        self.sizes: asyncio.Queue[Size] = asyncio.Queue()
        self.closed = asyncio.Event()
        self._reader, self._writer = reader, writer

    async def run(self) -> None:
        """Read messages until the connection ends."""
        decoder = websocket.Decoder()
        try:
            while data := await self._reader.read(65536):
                for message in decoder.feed(data):
                    if not await self._take(message):
                        return
        except (ConnectionError, websocket.ProtocolError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()
            with contextlib.suppress(asyncio.QueueFull):
                self.stdin.put_nowait(None)

    async def _take(self, message: websocket.Message) -> bool:
        if message.op is websocket.Op.CLOSE:
            self._writer.write(websocket.encode(websocket.Op.CLOSE, message.data[:2]))
            return False
        if message.op is websocket.Op.PING:
            self._writer.write(websocket.encode(websocket.Op.PONG, message.data))
        elif message.op is websocket.Op.BINARY and message.data:
            number, data = message.data[0], message.data[1:]
            if number == _CHANNELS[Stream.STDIN]:
                if data:
                    await self.stdin.put(data)
            elif number == _CHANNELS[Stream.RESIZE]:
                _resize(data, self.sizes)
            elif number == _CLOSE_CHANNEL and data[:1] == b"\0":
                await self.stdin.put(None)
        return True

    async def send(self, stream: Stream, data: bytes) -> None:
        for at in range(0, len(data), spdy.DATA_CHUNK):
            part = bytes([_CHANNELS[stream]]) + data[at : at + spdy.DATA_CHUNK]
            self._writer.write(websocket.encode(websocket.Op.BINARY, part))
        await self._writer.drain()

    async def finish(self, status: Object) -> None:
        part = bytes([_CHANNELS[Stream.ERROR]]) + msgspec.json.encode(status)
        self._writer.write(websocket.encode(websocket.Op.BINARY, part) + websocket.close(1000))
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self._writer.drain()
            async with asyncio.timeout(2):
                await self.closed.wait()


def _resize(data: bytes, sizes: asyncio.Queue[Size]) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        found = msgspec.json.decode(data, type=_TerminalSize)
        sizes.put_nowait(Size(found.Width, found.Height))


@contextlib.asynccontextmanager
async def reading(channel: SpdyChannel | WebSocketChannel) -> AsyncGenerator[None]:
    """The channel's reader as a task for the time of a block."""
    task = asyncio.create_task(channel.run(), name="remote streams")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
