"""The queue of objects to be written."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from mycel.agent.writing import WriteQueue
from mycel.k8s.errors import Unavailable
from tests import virtual_time


def test_what_is_refused_comes_again_and_writers_rest() -> None:
    """Many changes are written a few at a time, those of one object as one; nothing to write costs no rest."""
    written: list[tuple[int, float]] = []
    refused = {3}

    async def write(key: int) -> bool:
        if key in refused:
            refused.discard(key)
            raise Unavailable(503, "", "later")
        if key < 100:
            written.append((key, asyncio.get_running_loop().time()))
        return key < 100

    async def scenario() -> None:
        queue: WriteQueue[int] = WriteQueue(write, what="thing", rest_s=1.0)
        task = asyncio.create_task(queue.run())
        start = asyncio.get_running_loop().time()
        for key in (*range(100, 200), *range(12), *range(4, 12)):
            queue.touch(key)
        await asyncio.sleep(0.5)
        assert [key for key, _ in written] == [0, 1, 2, 4]
        await asyncio.sleep(5)
        assert sorted(key for key, _ in written) == list(range(12))
        assert 2 <= max(at for _, at in written) - start <= 3
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    virtual_time.run(scenario())
