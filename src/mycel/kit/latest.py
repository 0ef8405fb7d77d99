"""A value of which only the newest matters: whoever waits sees the latest, never a backlog."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds one value and its version. Version 0 means nothing was set yet."""

    def __init__(self, value: T | None = None) -> None:
        self._value = value
        self._version = 0 if value is None else 1
        self._changed = asyncio.Event()

    @property
    def version(self) -> int:
        """Grows by one with every value set."""
        return self._version

    @property
    def value(self) -> T:
        """The newest value. Raises LookupError before the first: `newer_than(0)` waits for it."""
        if self._value is None:
            raise LookupError("no value was set yet: wait for newer_than(0)")
        return self._value

    def set(self, value: T) -> bool:
        """Make `value` the newest and wake who waits; an equal value changes nothing and returns False."""
        if self._version and self._value == value:
            return False
        self._value = value
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    async def newer_than(self, version: int) -> int:
        """Wait until the version is above `version`; returns the version then."""
        while self._version <= version:
            await self._changed.wait()
        return self._version
