"""WebSockets behind HTTP rules: bytes pass once a server has accepted, and not before. The real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from mycel.envoy.request_log import Outcome
from tests.envoy.bed import Bed
from tests.envoy.http_traffic import ask_one, snapshot
from tests.oracle.http import Request, Rule

pytestmark = pytest.mark.root

RULES: dict[str, list[Rule]] = {
    "routes": [{"method": "GET", "path": "/chat"}],
    "filter": [{"method": "GET", "path": "/chat", "headerMatches": [{"name": "x-a", "value": "1", "mismatch": "ADD"}]}],
}
ASKED = b"GET %b HTTP/1.1\r\nhost: a.test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
SMUGGLED = b"GET /private HTTP/1.1\r\nhost: a.test\r\n\r\n"
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
REFUSED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Server:
    """It answers what came so far when it is told to, then gives everything back."""

    def __init__(self, answer: bytes) -> None:
        self.came = b""
        self.may_answer = asyncio.Event()
        self.ended = asyncio.Event()
        self._answer = answer

    @contextlib.asynccontextmanager
    async def at(self, path: Path) -> AsyncGenerator[Server]:
        async with await asyncio.start_unix_server(self._serve, path):
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            self.came += await reader.readuntil(b"\r\n\r\n")
            await self.may_answer.wait()
            writer.write(self._answer)
            while data := await reader.read(1000):
                self.came += data
                writer.write(data)
        self.ended.set()
        writer.close()


@contextlib.asynccontextmanager
async def asked(folder: Path, rules: list[Rule]) -> AsyncGenerator[Bed]:
    async with Bed(folder).running() as bed:
        offered = snapshot(folder, {"asked": rules})
        bed.offer(offered)
        await bed.settled(offered)
        async with asyncio.timeout(60):
            yield bed


@pytest.mark.parametrize("form", RULES)
async def test_what_a_server_accepts_passes_both_ways(tmp_path: Path, form: str):
    """And is logged then, with its rule."""
    server = Server(ACCEPTED)
    async with asked(tmp_path, RULES[form]) as bed, server.at(tmp_path / "server"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "asked")
        writer.write(ASKED % b"/chat")
        server.may_answer.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"\x81\x02hi")
        assert await reader.readexactly(4) == b"\x81\x02hi"
        (line,) = await bed.logged(1)
        writer.close()
        assert await ask_one(tmp_path / "asked", [Request("GET", "a.test", "/private", ())]) == [403]
        assert [each.path for each in await bed.logged(2)] == [b"/chat", b"/private"]  # once, when it was accepted
    assert (line.code, line.rule, line.outcome) == (b"101", b"0/0", Outcome.ANSWERED)
    assert (b"x-a: 1\r\n" in server.came) == (form == "filter")


@pytest.mark.parametrize("form", RULES)
async def test_what_no_rule_allows_is_denied(tmp_path: Path, form: str):
    async with asked(tmp_path, RULES[form]), Server(ACCEPTED).at(tmp_path / "server") as server:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "asked")
        writer.write(ASKED % b"/private")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
        writer.close()
        assert not server.came


@pytest.mark.parametrize("form", RULES)
async def test_nothing_follows_a_request_that_is_not_accepted(tmp_path: Path, form: str):
    """A server that knows no upgrades would take it for the next request, which no rule has seen."""
    async with asked(tmp_path, RULES[form]), Server(REFUSED).at(tmp_path / "server") as server:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "asked")
        writer.write(ASKED % b"/chat" + SMUGGLED)
        while not server.came:
            await asyncio.sleep(0.01)
        writer.write(SMUGGLED)
        await asyncio.sleep(0.2)  # time for it to get there, if it could
        server.may_answer.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(SMUGGLED)
        await server.ended.wait()
        writer.close()
        assert b"/private" not in server.came
