"""Values of headers that are in Secrets, in the real Envoy: they change under a listener, and are shown nowhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mycel.envoy.resources import LISTENER, SECRET
from tests.envoy.bed import Bed
from tests.envoy.http_traffic import Backend, ask_one, held, snapshot
from tests.oracle.http import Request, Rule

pytestmark = pytest.mark.root

TOKEN = {"namespace": "shop", "name": "token"}
RULES: list[Rule] = [
    {"path": "/asked", "headerMatches": [{"name": "X-Token", "secret": TOKEN}]},
    {"path": "/put", "headerMatches": [{"name": "X-Token", "secret": TOKEN, "mismatch": "REPLACE"}]},
]
OLD, NEW = "an-old-secret", "a-new-secret"


def request(path: str, token: str) -> Request:
    return Request("GET", "a.test", path, (("x-token", token),))


async def listens(place: Path) -> bool:
    try:
        await ask_one(place, [])
    except ConnectionRefusedError:
        return False
    return True


async def test_a_secret_changes_under_its_listener(tmp_path: Path):
    """Without it nothing matches; a new value counts at once, and the listener is not another for it."""
    place = tmp_path / "guarded"
    async with Bed(tmp_path).running() as bed, Backend().at(tmp_path / "server") as server:
        first = snapshot(tmp_path, {"guarded": RULES}, secrets=held({"shop/token": OLD}))
        bed.offer(first | {SECRET: {}})
        await bed.settled({LISTENER: first[LISTENER]})
        asked = [request("/asked", OLD), request("/asked", NEW), request("/put", "mine")]
        async with asyncio.timeout(60):
            while not await listens(place):
                await asyncio.sleep(0.01)
        assert await ask_one(place, asked) == [403, 403, 403]
        bed.offer(first)
        await bed.settled(first)
        async with asyncio.timeout(60):
            while await ask_one(place, asked) != [200, 403, 200]:
                pass
        second = snapshot(tmp_path, {"guarded": RULES}, secrets=held({"shop/token": NEW}))
        assert second[LISTENER] == first[LISTENER]
        bed.offer(second)
        await bed.settled(second)
        async with asyncio.timeout(60):
            while await ask_one(place, asked) != [403, 200, 200]:
                pass
        tokens = [value for headers in server.received for name, value in headers if name == "x-token"]
        assert tokens[:2] == [OLD, OLD] and tokens[-2:] == [NEW, NEW] and "mine" not in tokens
        dump = await bed.curl("--unix-socket", str(tmp_path / "admin.sock"), "http://a/config_dump")
        await bed.logged(1)
        log = (tmp_path / "envoy.log").read_text()
        assert "shop/token:value" in dump
        for text in (dump, log, str(bed.logs)):
            assert OLD not in text and NEW not in text
