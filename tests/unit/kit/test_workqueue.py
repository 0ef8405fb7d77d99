"""The work queue: once each, one worker at a time, later when it failed."""

from __future__ import annotations

import asyncio

from mycel.kit.workqueue import WorkQueue


async def test_a_key_waits_once_and_comes_again_if_it_changed_meanwhile() -> None:
    """Three additions are one turn; an addition during the turn is one more."""
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    assert (await queue.get(), len(queue)) == ("a", 1)
    queue.add("a")
    assert len(queue) == 1
    queue.done("a")
    assert [await queue.get(), await queue.get()] == ["b", "a"]
    queue.done("a")
    queue.done("b")
    assert queue.idle


async def test_workers_wait_and_are_woken_one_by_one() -> None:
    """A cancelled worker's wake-up goes to the next."""
    queue: WorkQueue[str] = WorkQueue()
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    await asyncio.sleep(0)
    assert await second == "a"


async def test_failures_pause_longer_and_success_forgets() -> None:
    """Doubling up to the longest; from the start after `forget`."""
    queue: WorkQueue[str] = WorkQueue(first_retry_s=1, longest_retry_s=5)
    assert [queue.retry("a") for _ in range(5)] == [1, 2, 4, 5, 5]
    queue.forget("a")
    assert queue.retry("a") == 1
    queue.close()


async def test_the_earlier_timer_counts() -> None:
    """A later one does not push it back; an earlier one brings it forward."""
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 100)
    queue.add_after("a", 0)
    queue.add_after("a", 50)
    assert await asyncio.wait_for(queue.get(), 60) == "a"
