"""What the log says of a decision, by routes and by the RBAC filter alike, in the real Envoy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mycel.abi import Direction
from mycel.envoy import listeners
from mycel.envoy.request_log import Outcome
from mycel.policy.proxy_ports import HttpSections
from tests.envoy.bed import Bed
from tests.envoy.http_traffic import Backend, read_answer, section, snapshot
from tests.oracle.http import Rule

pytestmark = pytest.mark.root

PLAIN: list[Rule] = [
    {"method": "GET", "path": "/public/.*"},
    {"host": ".*\\.example", "method": "PUT|OPTIONS|CONNECT"},
    {"headers": ["X-Role"]},
]
SETS = {
    "routes": PLAIN,
    "filter": [*PLAIN, {"path": "/changed", "headerMatches": [{"name": "x-a", "mismatch": "ADD"}]}],
}
HOST = "host: a.example:80\r\n"
ANSWERS = [
    (f"GET /public/a?b=/c HTTP/1.1\r\n{HOST}\r\n", 200, b"0/0"),
    (f"PUT /any;thing HTTP/1.1\r\n{HOST}\r\n", 200, b"0/1"),
    (f"POST / HTTP/1.1\r\n{HOST}x-role: user\r\n\r\n", 200, b"0/2"),
    (f"POST / HTTP/1.1\r\n{HOST}x-role: user\r\nx-role: admin\r\n\r\n", 200, b"0/2"),
    (f"GET /private HTTP/1.1\r\n{HOST}\r\n", 403, None),
    ("CONNECT b.test:80 HTTP/1.1\r\nhost: b.test:80\r\n\r\n", 403, None),
    # Envoy's own refusals: no rule was asked
    (f"GET /public/%2fa HTTP/1.1\r\n{HOST}\r\n", 400, b""),
    (f"OPTIONS * HTTP/1.1\r\n{HOST}\r\n", 404, b""),
]


async def ask(path: Path, texts: list[str]) -> list[int]:
    """The status of each answer, a connection for each."""

    async def one(text: str) -> int:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(text.encode())
        async with asyncio.timeout(30):
            status, _ = await read_answer(reader, head=False)
        writer.close()
        return status

    return [await one(text) for text in texts]


@pytest.mark.parametrize("name", SETS)
async def test_the_log_names_the_rule_or_says_denied(tmp_path: Path, name: str):
    """And what was denied came to no server."""
    manager = listeners.connection_manager(HttpSections(Direction.INGRESS, (section(SETS[name]),)), ())
    assert ("rbac" in str(manager["http_filters"])) == (name == "filter")
    async with Bed(tmp_path).running() as bed, Backend().at(tmp_path / "server") as server:
        offered = snapshot(tmp_path, {"asked": SETS[name]})
        bed.offer(offered)
        await bed.settled(offered)
        answers = await ask(tmp_path / "asked", [text for text, _, _ in ANSWERS])
        lines = await bed.logged(len(ANSWERS))
    assert answers == [status for _, status, _ in ANSWERS]
    found = [None if line.outcome is Outcome.DENIED else line.rule for line in lines]
    assert found == [rule for _, _, rule in ANSWERS]
    assert b"".join(server.streams).count(b"x-request-id:") == answers.count(200)
