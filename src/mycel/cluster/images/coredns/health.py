"""`/health` and `/ready` over plain HTTP, for the kubelet's probes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_REQUEST_S = 5.0


class HttpStatus:
    """One port with one path that answers 200 while nothing blocks, else 503 with what does."""

    def __init__(self, path: str, blocked_by: Callable[[], str]) -> None:
        self._path = path.encode()
        self._blocked_by = blocked_by
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Bind and serve. Raises OSError."""
        self._server = await asyncio.start_server(self._answer, host or None, port)

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                request = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._response(request))
            await writer.drain()
        except (TimeoutError, EOFError, ConnectionError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    def _response(self, request: bytes) -> bytes:
        words = request.partition(b"\r\n")[0].split(b" ")
        status, body = "404 Not Found", "404 page not found\n"
        if len(words) == 3 and words[0] in (b"GET", b"HEAD") and words[1].partition(b"?")[0] == self._path:
            blocked = self._blocked_by()
            status, body = ("503 Service Unavailable", blocked) if blocked else ("200 OK", "OK")
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return (head + ("" if words[0] == b"HEAD" else body)).encode()
