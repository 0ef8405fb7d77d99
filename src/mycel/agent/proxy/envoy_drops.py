"""Records that Envoy itself dropped, because the agent took them more slowly than they came: by Envoy's own counter."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mycel.agent.proxy.records import Cause, Records

_LOOK_S = 5.0
_TIMEOUT_S = 2.0
_LIMIT = 65_536
_COUNTER = "access_logs.open_telemetry_access_log.logs_dropped"


async def follow_drops(admin: Path, records: Records, *, look_s: float = _LOOK_S) -> None:
    """Count what is dropped from now on, until cancelled. An Envoy that is away drops nothing."""
    before = await read_dropped(admin)
    while True:
        await asyncio.sleep(look_s)
        now = await read_dropped(admin)
        if now is None:
            continue
        if before is not None and now < before:
            before = 0  # another Envoy
        if before is not None and now > before:
            records.lose(Cause.ENVOY, now - before)
        before = now


async def read_dropped(admin: Path) -> int | None:
    """The counter, from Envoy's admin socket; None when it does not answer."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(admin))
            try:
                writer.write(
                    f"GET /stats?filter=^{_COUNTER}$ HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n\r\n".encode()
                )
                return parse_dropped((await _whole(reader)).decode(errors="replace"))
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """All of an answer that ends with the connection, up to a limit."""
    try:
        return await reader.readexactly(_LIMIT)
    except asyncio.IncompleteReadError as exc:
        return exc.partial


def parse_dropped(answer: str) -> int | None:
    """Of `NAME: NUMBER` in an answer; a counter that was never counted up is not there, and is 0."""
    head, _, body = answer.partition("\r\n\r\n")
    if " 200 " not in head.partition("\r\n")[0]:
        return None
    found = [line.partition(": ")[2] for line in body.splitlines() if line.startswith(f"{_COUNTER}: ")]
    return int(found[0]) if found and found[0].isdecimal() else 0
