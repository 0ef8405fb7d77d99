"""Readiness as a set of names: what is still missing is what `/readyz` prints."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager


class Readiness:
    """Ready when nothing blocks. Names are free text for people."""

    def __init__(self) -> None:
        self._blockers: dict[str, int] = {}
        self._ready = asyncio.Event()
        self._ready.set()

    def block(self, name: str) -> None:
        """One more reason not to be ready; the same name may block several times."""
        self._blockers[name] = self._blockers.get(name, 0) + 1
        self._ready.clear()

    def unblock(self, name: str) -> None:
        """Take one block of that name away; unknown names are a mistake and raise KeyError."""
        left = self._blockers[name] - 1
        if left:
            self._blockers[name] = left
            return
        del self._blockers[name]
        if not self._blockers:
            self._ready.set()

    @contextmanager
    def blocked_by(self, name: str) -> Generator[None, None, None]:
        """Not ready while the block runs. When it fails, the name stays: what failed never became ready."""
        self.block(name)
        yield
        self.unblock(name)

    @property
    def ready(self) -> bool:
        """Whether nothing blocks."""
        return not self._blockers

    def waiting_for(self) -> tuple[str, ...]:
        """What still blocks, in order of names."""
        return tuple(sorted(self._blockers))

    async def wait_ready(self) -> None:
        """Return when nothing blocks."""
        await self._ready.wait()
