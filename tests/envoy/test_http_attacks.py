"""Requests with two meanings: what reaches a server is allowed however that reads it. The real Envoy, bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.envoy import http_attacks
from tests.envoy.bed import Bed
from tests.envoy.http_readers import READERS, read, understood
from tests.envoy.http_traffic import Backend, snapshot, two
from tests.oracle.http import Request, Rule, allowed

pytestmark = pytest.mark.root

Fine = Callable[[Request], bool]

SETS: dict[str, list[Rule]] = {
    "paths": [{"method": "GET|POST", "path": "/public/.*", "host": "app.example.com"}],
    "endings": [{"path": ".*\\.css"}],
    "headers": [{"headers": ["X-Role: user"], "method": "GET|POST"}],
    "hosts": [{"host": ".*\\.example\\.com"}],
    "all": [
        {
            "method": "GET",
            "path": "/public/[a-z]+",
            "host": "app.*",
            "headerMatches": [{"name": "x-role", "value": "user"}],
        }
    ],
}
AT_ONCE = 100
SILENCE_S = 0.3  # a request that is not complete has no answer


CHANGES: dict[str, list[Rule]] = {
    "REPLACE": [{"method": "GET|POST", "headerMatches": [{"name": "X-Role", "value": "user", "mismatch": "REPLACE"}]}],
    "DELETE": [{"method": "GET|POST", "headerMatches": [{"name": "X-Role", "value": "user", "mismatch": "DELETE"}]}],
}


def as_written(rules: Sequence[Rule]) -> Fine:
    """What the model lets through."""
    return lambda request: allowed(rules, request)


async def attack(folder: Path, rules: Sequence[Rule], fine: Fine, **how: Any) -> tuple[list[tuple[Request, Any]], int]:
    """What servers understood that is not fine, with its bytes; and how many requests came."""
    async with Bed(folder).running() as bed, Backend().at(folder / "server") as server:
        offered = snapshot(folder, {"attacked": rules}, **how)
        bed.offer(offered)
        await bed.settled(offered)
        assert not [each for each in bed.outcomes.values() if each.error]
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(data: bytes) -> None:
            async with gate:
                reader, writer = await asyncio.open_unix_connection(folder / "attacked")
                writer.write(data)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(SILENCE_S):
                        while data := await reader.read(65536):
                            if data.startswith(b"HTTP/1.1 4") or b"close" in data:
                                break
                writer.close()

        async def frame(headers: list[tuple[bytes, bytes]]) -> None:
            async with gate:
                await two(folder / "attacked", [headers])

        texts = () if how.get("protocol") else http_attacks.raw()
        await asyncio.gather(*map(one, texts), *map(frame, http_attacks.frames()))
    found: list[tuple[Request, Any]] = []
    for how_read in READERS:
        for stream in server.streams:
            found += [(each, bytes(stream[:300])) for each in read(bytes(stream), how_read) if not fine(each)]
        for headers in server.requests:
            text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
            pseudo = {name: value for name, value in text if name.startswith(":")}
            fields = [("host", pseudo[":authority"]), *(each for each in text if not each[0].startswith(":"))]
            request = understood(pseudo[":method"], pseudo[":path"], tuple(fields), how_read)
            found += [] if fine(request) else [(request, text)]
    return found, len(server.requests) + sum(len(list(read(bytes(each), READERS[0]))) for each in server.streams)


@pytest.mark.parametrize("protocol", [None, "http_protocol_options"])
@pytest.mark.parametrize("name", SETS)
async def test_nothing_that_is_denied_reaches_a_server(tmp_path: Path, name: str, protocol: str | None):
    """In the client's protocol as for policies, and HTTP/2 with HTTP/1 behind."""
    found, came = await attack(tmp_path, SETS[name], as_written(SETS[name]), protocol=protocol)
    print(f"attacks on {name}, {protocol or 'same protocol'}: {came} came through, {len(found)} leaks")
    assert not found, f"{len(found)} leaks, as {found[:5]}"
    assert came > 5


@pytest.mark.parametrize(("action", "protocol"), [("REPLACE", None), ("DELETE", "http_protocol_options")])
async def test_a_header_that_is_changed_has_no_second_reading(tmp_path: Path, action: str, protocol: str | None):
    """Whatever came, and however a server reads it: it is the value, or (deleted) there is none."""

    def changed(request: Request) -> bool:
        values = {value for name, value in request.headers if name.lower().replace("_", "-") == "x-role"}
        return values == {"user"} or (action == "DELETE" and not values)

    found, came = await attack(tmp_path, CHANGES[action], changed, protocol=protocol)
    print(f"attacks on {action}, {protocol or 'same protocol'}: {came} came through, {len(found)} leaks")
    assert not found, f"{len(found)} leaks, as {found[:5]}"
    assert came > 100


async def test_this_test_would_see_leaks(tmp_path: Path):
    """Without normalisation servers understand what rules deny."""
    paths = SETS["paths"]
    found, _ = await attack(
        tmp_path, paths, as_written(paths), normalize_path=False, path_with_escaped_slashes_action="KEEP_UNCHANGED"
    )
    assert {each.target for each, _ in found} >= {"/admin"}
