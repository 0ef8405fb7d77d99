"""Envoy and its supervisor without an agent: what was configured stays, over Envoy's end too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from mycel.agent.proxy.proxy import Proxy
from mycel.envoy import supervise
from mycel.envoy.last import load, save
from mycel.envoy.lending import CALLS, LAST, Lender
from mycel.envoy.resources import CLUSTER, LISTENER, Snapshot, merged
from mycel.kit.latest import Latest
from mycel.kit.supervise import Supervisor
from tests.envoy.bed import ENVOY, bootstrap
from tests.envoy.http_traffic import Backend, ask_one, snapshot
from tests.oracle.http import Request

pytestmark = pytest.mark.root

ALLOWED, DENIED = Request("GET", "server", "/"), Request("GET", "server", "/foo")
STAND_IN = [sys.executable, "-m", "mycel.envoy.stand_in"]
PATIENCE_S = 120


class Node:
    """A supervised Envoy in a folder; agents are made and ended by the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lender = Lender(folder, STAND_IN, patience_s=0.5)
        command = supervise.arguments(bootstrap(folder), node="n1", concurrency=1, drain_s=1, log_level="warning")
        self._supervisor = Supervisor("envoy", lambda: subprocess.Popen([str(ENVOY), *command[1:]]))
        self._threads = [threading.Thread(target=each.run) for each in (self.lender, self._supervisor)]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Node]:
        """A server, Envoy, and who keeps Envoy running."""
        async with Backend().at(self.folder / "server"):
            for thread in self._threads:
                thread.start()
            try:
                yield self
            finally:
                self._supervisor.stop()
                self.lender.stop()
                for thread in self._threads:
                    await asyncio.to_thread(thread.join)
                self.lender.close()

    async def kill_envoy(self) -> None:
        """kill -9, and wait until another one is there."""
        before = self._supervisor.pid
        assert before
        os.kill(before, signal.SIGKILL)
        await until(lambda: self._supervisor.pid != before)

    async def statistics(self) -> Mapping[str, int]:
        """Those of Envoy's listeners."""
        path = str(self.folder / "admin.sock")
        command = (
            "curl",
            "-s",
            "--unix-socket",
            path,
            "http://envoy/stats?format=json&filter=^listener_manager.(listener|total)",
        )
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        numbers = (each for each in json.loads(out)["stats"] if "value" in each)
        return {each["name"].removeprefix("listener_manager."): each["value"] for each in numbers}

    async def codes(self, name: str = "rules") -> tuple[int, int]:
        """What a listener says to what its rules allow, and to what they do not."""
        return (await ask_one(self.folder / name, [ALLOWED]))[0], (await ask_one(self.folder / name, [DENIED]))[0]

    async def serves(self, name: str = "rules") -> None:
        """Wait until a listener judges requests."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                assert await self.codes(name) == (200, 403)
                return
            except (OSError, asyncio.IncompleteReadError):
                assert time.monotonic() < end
                await asyncio.sleep(0.05)


class Maker(NamedTuple):
    """Makes what it is told to."""

    snapshot: Latest[Snapshot]

    def answered(self, answers: object) -> None:
        """Does not matter."""


@contextlib.asynccontextmanager
async def agent(folder: Path, held: Latest[Snapshot]) -> AsyncGenerator[Proxy]:
    """One agent's driver of Envoy."""
    proxy = Proxy(folder, groups={})
    running = asyncio.create_task(proxy.run([Maker(held)]))
    try:
        yield proxy
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


RULE = {"method": "GET", "path": "/"}


async def test_a_new_envoy_has_the_last_configuration_while_no_agent_is_there(tmp_path: Path) -> None:
    """Allowed passes, denied is 403, as with the agent; when one comes back no listener is touched."""
    wanted = snapshot(tmp_path, {"rules": [RULE]})
    async with Node(tmp_path).running() as node:
        async with agent(tmp_path, Latest(wanted)):
            await node.serves()
            await until((tmp_path / LAST).exists)
        assert await node.codes() == (200, 403), "an agent that goes takes nothing along"
        await node.kill_envoy()
        await node.serves()
        added = await node.statistics()
        held = Latest(wanted)
        async with agent(tmp_path, held) as proxy:
            await until(lambda: proxy.connected)
            held.set(merged(wanted, snapshot(tmp_path, {"more": [RULE]})))
            await node.serves("more")
            now = await node.statistics()
        assert now == {**added, "listener_added": 2, "listener_create_success": 2, "total_listeners_active": 2}
        assert added["listener_modified"] == added["listener_removed"] == added["total_listeners_draining"] == 0


async def test_an_envoy_that_runs_is_told_nothing_by_the_stand_in(tmp_path: Path) -> None:
    """The file may be older than what it has: nothing it has goes, nothing that is gone comes back."""
    wanted = snapshot(tmp_path, {"rules": [RULE]})
    async with Node(tmp_path).running() as node:
        held = Latest(wanted)
        async with agent(tmp_path, held):
            await node.serves()
            await until((tmp_path / LAST).exists)
            older = (tmp_path / LAST).read_bytes()
            held.set(snapshot(tmp_path, {"new": [RULE]}))
            await node.serves("new")
            await until(lambda: (tmp_path / LAST).read_bytes() != older)
        (tmp_path / LAST).write_bytes(older)
        while (before := await node.statistics())["total_listeners_draining"]:
            await asyncio.sleep(0.1)
        await until(lambda: node.lender.standing_in)
        await asyncio.sleep(1)
        assert await node.statistics() == before
        assert await node.codes("new") == (200, 403)


async def test_a_file_that_cannot_be_read_leaves_envoy_without(tmp_path: Path) -> None:
    """Closed, and the agent that comes is served as ever."""
    wanted = snapshot(tmp_path, {"rules": [RULE]})
    (tmp_path / LAST).write_bytes(b"\xc1 no such thing")
    async with Node(tmp_path).running() as node:
        await asyncio.sleep(2)
        assert not (tmp_path / "rules").exists()
        async with agent(tmp_path, Latest(wanted)):
            await node.serves()


async def test_what_is_left_is_for_root_alone(tmp_path: Path) -> None:
    """Certificates' keys are among it."""
    wanted = snapshot(tmp_path, {"rules": [RULE]})
    async with Node(tmp_path).running():
        async with agent(tmp_path, Latest(wanted)):
            await until((tmp_path / LAST).exists)
        modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
        assert {modes[name] for name in (LAST, CALLS, "lend.sock")} == {0o600}


def test_the_file_holds_what_was_saved(tmp_path: Path) -> None:
    """Content and versions."""
    wanted = snapshot(tmp_path, {"rules": [RULE]})
    assert load(tmp_path / LAST) is None
    save(tmp_path / LAST, wanted)
    assert load(tmp_path / LAST) == wanted
    assert {CLUSTER, LISTENER} <= wanted.keys()
