"""Writing objects of the API: a queue of keys, a few workers, and another try for what the API server refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from mycel.k8s.errors import ApiError
from mycel.kit.workqueue import WorkQueue

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
_WORKERS = 4


class WriteQueue(Generic[K]):
    """Keys of objects that may have to be written: `touch`, `touch_after`.

    `write` makes the object of the current state and says whether anything was written; when it raises ApiError it is
    called again later (NotFound too: by then the informer knows). `what` is for the log. A worker rests for `rest_s`
    after each write, so that many changes leave the API server room for other things.
    """

    def __init__(self, write: Callable[[K], Awaitable[bool]], *, what: str, rest_s: float = 0.0) -> None:
        self._write = write
        self._what = what
        self._rest_s = rest_s
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
            written = False
            try:
                written = await self._write(key)
                self._queue.forget(key)
            except ApiError as exc:
                log.info("%s %s is not written yet: %s", self._what, key, exc)
                self._queue.retry(key)
            finally:
                self._queue.done(key)
            if written and self._rest_s:
                await asyncio.sleep(self._rest_s)
