"""A queue of keys for level-triggered workers: each key at most once in it, and with at most one worker at a
time.

Adding a key that is already waiting changes nothing; adding one that is being worked on makes it come again
afterwards. Failed keys come back after a growing pause, so one broken object never holds up the others.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys waiting for a worker; used from one event loop."""

    def __init__(self, *, first_retry_s: float = 0.05, longest_retry_s: float = 30.0) -> None:
        self._first_retry_s = first_retry_s
        self._longest_retry_s = longest_retry_s
        self._waiting: collections.OrderedDict[K, None] = collections.OrderedDict()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._getters: collections.deque[asyncio.Future[None]] = collections.deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nothing waits and nobody works; timers may still be running."""
        return not self._waiting and not self._working

    def add(self, key: K) -> None:
        """Have `key` worked on soon."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = None
            self._wake_one()

    def add_after(self, key: K, delay_s: float) -> None:
        """Have `key` worked on in `delay_s` seconds, or earlier when an earlier timer runs already."""
        loop = asyncio.get_running_loop()
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= loop.time() + delay_s:
                return
            pending.cancel()
        self._timers[key] = loop.call_later(max(delay_s, 0.0), self._ring, key)

    def retry(self, key: K) -> float:
        """Have a failed key worked on again after its backoff; returns the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay_s = min(self._first_retry_s * 2 ** min(failures, 20), self._longest_retry_s)
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """The key went well: its next failure starts from the shortest pause."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key, now this worker's until `done`."""
        while not self._waiting:
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake_one()
                raise
        key, _ = self._waiting.popitem(last=False)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker is through with `key`."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Stop every timer."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _ring(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
