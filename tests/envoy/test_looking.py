"""A listener that only looks, in the real Envoy: everything passes as it came, and requests are logged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from mycel.envoy import listeners
from mycel.envoy.logs import access_logs
from mycel.envoy.looking import looking, tells_http
from mycel.envoy.messages import from_json, to_resource
from mycel.envoy.request_log import Decider
from mycel.envoy.resources import CLUSTER, LISTENER, Snapshot
from tests.envoy.bed import Bed
from tests.envoy.http_traffic import Backend, ask_one, ask_two, at, one_bytes
from tests.oracle.http import Request

pytestmark = pytest.mark.root

ODD = (
    "/a/../b", "//x//y", "/%2e%2e/%2fa", "/a;b=c/../d", "/a%00b", "/?q=/../x", "/a\\b", "/%zz"
)  # fmt: skip


def snapshot(folder: Path) -> Snapshot:
    """A listener at `folder/seen`, for the server at `folder/server`."""
    cluster = {**listeners.cluster()}
    cluster.update(type="STATIC", lb_policy="ROUND_ROBIN", load_assignment=at(folder / "server"))
    del cluster["upstream_bind_config"]
    listener: Any = {
        "name": "seen",
        "address": {"pipe": {"path": str(folder / "seen")}},
        "listener_filters": [tells_http()],
        **looking("policy/ingress/10001", cluster["name"], access_logs((), Decider.ROUTES)),
    }
    return {
        CLUSTER: {cluster["name"]: to_resource(from_json(CLUSTER, cluster))},
        LISTENER: {"seen": to_resource(from_json(LISTENER, listener))},
    }


@contextlib.asynccontextmanager
async def envoy(folder: Path) -> AsyncGenerator[Bed]:
    async with Bed(folder).running() as bed:
        offered = snapshot(folder)
        bed.offer(offered)
        await bed.settled(offered)
        assert not [each for each in bed.outcomes.values() if each.error]
        yield bed


async def test_requests_go_on_as_they_came(tmp_path: Path):
    """Odd paths, headers with underscores and many of them, odd hosts; and they are logged."""
    many = tuple((f"x_{number}", "a" * 200) for number in range(300))
    asked = [
        Request("GET", "a.test", target, (("X-Envoy-Retry-On", "5xx"), ("X-Envoy-Original-Path", "/elsewhere")))
        for target in ODD
    ]
    asked += [Request("PROPFIND", "A.test.:80", "/pot", many)]
    async with envoy(tmp_path) as bed, Backend().at(tmp_path / "server") as server:
        assert await ask_one(tmp_path / "seen", asked) == [200] * len(asked)
        assert await ask_two(tmp_path / "seen", asked[:3]) == [200] * 3
        sent = b"".join(bytes(stream) for stream in server.streams).decode("latin-1")
        heads = [head.split("\r\n") for head in sent.split("\r\n\r\n") if head]
        assert [head[0] for head in heads] == [one_bytes(each).decode("latin-1").split("\r\n")[0] for each in asked]
        assert [head[1] for head in heads] == [f"host: {each.authority}" for each in asked]
        assert all(f"{name}: {value}" in heads[-1] for name, value in many)
        (logged,) = await bed.logged(1)
        assert (logged.listener, logged.path) == (b"policy/ingress/10001", ODD[0].encode())


async def test_what_is_no_http_goes_on_unseen(tmp_path: Path):
    """Whoever speaks first."""

    async def parrot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 welcome\r\n")
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    async with envoy(tmp_path), await asyncio.start_unix_server(parrot, tmp_path / "server"):
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "seen")
            assert await reader.readline() == b"220 welcome\r\n"
            writer.write(b"EHLO a\r\n")
            assert await reader.readline() == b"EHLO a\r\n"
            writer.close()
            reader, writer = await asyncio.open_unix_connection(tmp_path / "seen")
            writer.write(b"\x16\x03\x01\n")
            assert await reader.readline() == b"220 welcome\r\n"
            assert await reader.readline() == b"\x16\x03\x01\n"
            writer.close()
