"""Asking the agent for identities, over its socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from mycel.plan.dns import NamesAnswer, NamesRequest

_TIMEOUT_S = 5.0
_LIMIT = 16 << 20


class Agent:
    """`POST /v1/names`. One connection per request: requests are rare."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def ask(self, request: NamesRequest) -> NamesAnswer:
        """Raises OSError (TimeoutError among them), EOFError or ValueError."""
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_LIMIT)
            try:
                body = msgspec.json.encode(request)
                head = f"POST /v1/names HTTP/1.0\r\nHost: agent\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
                status, _, rest = (await reader.read(-1)).partition(b"\r\n")
                if b" 200 " not in status + b" ":
                    raise ValueError(f"the agent says {status.decode('latin-1')}")
                return msgspec.json.decode(rest.partition(b"\r\n\r\n")[2], type=NamesAnswer)
            finally:
                writer.close()
