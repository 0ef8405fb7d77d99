"""Writing objects' status from every node: a queue, workers, and which node judges what is the same on all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from mycel.agent.watches import Watches
from mycel.k8s.errors import ApiError, NotFound
from mycel.kit.workqueue import WorkQueue

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
PATIENCE_S = 0.7
"""So long the other nodes wait for the judge."""
_WORKERS = 4


class StatusQueue(Generic[K]):
    """Keys whose status may have to be written. `write` raises ApiError to be called again."""

    def __init__(self, write: Callable[[K], Awaitable[None]]) -> None:
        self._write = write
        self._queue: WorkQueue[K] = WorkQueue()
        self.touch = self._queue.add
        self.touch_after = self._queue.add_after

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._write(key)
                self._queue.forget(key)
            except NotFound:
                self._queue.forget(key)
            except ApiError as exc:
                log.info("status of %s is not written yet: %s", key, exc)
                self._queue.retry(key)
            finally:
                self._queue.done(key)


def is_first(watches: Watches, node: str) -> bool:
    """Whether this is the first, by name, of the nodes whose agents have published themselves."""
    names = [key.name for key in watches.published_nodes.store]
    return not names or min(names) == node
