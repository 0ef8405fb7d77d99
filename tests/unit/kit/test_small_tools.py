"""Latest, backoff, durations, readiness and guarded tasks."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from mycel.kit.backoff import backoff_s
from mycel.kit.durations import duration_s
from mycel.kit.latest import Latest
from mycel.kit.readiness import Readiness
from mycel.kit.tasks import guard, spawn
from tests import virtual_time


def test_backoff_doubles_up_to_its_longest() -> None:
    """0 before the first failure, then doubling, then flat; absurd counts are no trouble."""
    assert [backoff_s(n) for n in (0, 1, 2, 3, 10, 10_000)] == [0.0, 0.1, 0.2, 0.4, 30.0, 30.0]


def test_backoff_jitter_only_shortens() -> None:
    """Jitter takes at most its share off."""
    pauses = [backoff_s(5, first_s=1, longest_s=10, jitter=0.2, chance=random.Random(n)) for n in range(50)]
    assert all(8.0 <= pause <= 10.0 for pause in pauses) and len(set(pauses)) > 40


def test_durations_are_gos() -> None:
    """All of the text is one, or it is none."""
    assert [duration_s(each) for each in ("5s", "1m30s", "500ms", "0.5h")] == [5, 90, 0.5, 1800]
    assert [duration_s(each) for each in ("", "5", "s", "5 s", "5s!", "-5s", "1d")] == [None] * 7


def test_latest_wakes_every_waiter_once_per_value() -> None:
    """Waiters see versions above theirs; equal values change nothing."""

    async def scenario() -> None:
        latest: Latest[str] = Latest()
        with pytest.raises(LookupError):
            _ = latest.value
        waiters = [asyncio.create_task(latest.newer_than(0)) for _ in range(3)]
        await asyncio.sleep(1)
        assert not any(each.done() for each in waiters)
        assert latest.set("a") and not latest.set("a")
        assert await asyncio.gather(*waiters) == [1, 1, 1]
        latest.set("b")
        assert (await latest.newer_than(1), latest.value) == (2, "b")

    virtual_time.run(scenario())


def test_readiness_names_what_is_missing() -> None:
    """Ready once every block is gone; a block that failed stays."""
    ready = Readiness()
    assert ready.ready
    with ready.blocked_by("pods"):
        ready.block("nodes")
        assert ready.waiting_for() == ("nodes", "pods")
    assert ready.waiting_for() == ("nodes",)
    ready.unblock("nodes")
    assert ready.ready
    with pytest.raises(OSError), ready.blocked_by("programs"):
        raise OSError
    assert ready.waiting_for() == ("programs",)
    with pytest.raises(KeyError):
        ready.unblock("unknown")


def test_readiness_is_awaited() -> None:
    """`wait_ready` returns when the last block goes, not before."""

    async def scenario() -> float:
        ready = Readiness()
        ready.block("a")
        ready.block("a")
        loop = asyncio.get_running_loop()
        loop.call_later(1, ready.unblock, "a")
        loop.call_later(2, ready.unblock, "a")
        await ready.wait_ready()
        return virtual_time.now_s()

    assert virtual_time.run(scenario()) == 2.0


async def _fails() -> None:
    raise ValueError("why")


async def _ends() -> None:
    return


async def test_a_failing_task_is_logged_with_its_name_and_reaches_the_top(caplog: pytest.LogCaptureFixture) -> None:
    """Errors of background tasks are never silent."""
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            spawn(group, _fails(), "reader")
    assert str(caught.value.exceptions[0]) == "why"
    assert [record.message for record in caplog.records] == ["task failed: reader"]


async def test_a_task_that_ends_by_itself_is_a_warning_unless_it_may(caplog: pytest.LogCaptureFixture) -> None:
    """`finishes` says which."""
    with caplog.at_level(logging.WARNING):
        await guard(_ends(), "loader", finishes=True)
        await guard(_ends(), "watcher")
    assert [record.message for record in caplog.records] == ["task ended by itself: watcher"]
