"""Numbers for services and backends that stay the same while their key is in use, also over a restart.

The datapath remembers numbers (session affinity, slots), so a number must not move to another key while
packets may still carry it: released ones are used again last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")


class Numbering(Generic[K]):
    """Keys → numbers from 1. Start it with what an earlier process left in the kernel."""

    def __init__(self, known: Mapping[K, int] | None = None, *, most: int = 2**32 - 1) -> None:
        self._numbers: dict[K, int] = {}
        taken: set[int] = set()
        for key, number in (known or {}).items():
            if 0 < number <= most and number not in taken:
                self._numbers[key] = number
                taken.add(number)
        self._taken = taken
        self._last = max(taken, default=0)
        self._most = most

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, key: K) -> int:
        """The key's number, given at first sight."""
        number = self._numbers.get(key)
        if number is None:
            number = self._next()
            self._numbers[key] = number
            self._taken.add(number)
        return number

    def keep(self, keys: Iterable[K]) -> None:
        """Release the numbers of all other keys."""
        kept = set(keys)
        for key in [key for key in self._numbers if key not in kept]:
            self._taken.discard(self._numbers.pop(key))

    def _next(self) -> int:
        if len(self._taken) >= self._most:
            raise OverflowError(f"all {self._most} numbers are in use")
        while True:
            self._last = self._last % self._most + 1
            if self._last not in self._taken:
                return self._last
