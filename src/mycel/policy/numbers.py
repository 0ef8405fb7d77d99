"""Numbers made of what they stand for, so that they are the same after a restart and on every node."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from hashlib import blake2b
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


def digest(*parts: object) -> int:
    """64 bits of the parts' text."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


class HashedNumbers(Generic[K]):
    """Keys → numbers in [first, first + count), at the place their digest says or the next free one."""

    def __init__(self, first: int, count: int) -> None:
        self._first = first
        self._count = count
        self._numbers: dict[K, int] = {}
        self._keys: dict[int, K] = {}

    def number(self, key: K) -> int:
        """The key's number, given at first sight. Raises OverflowError when none is left."""
        found = self._numbers.get(key)
        if found is None:
            if len(self._numbers) >= self._count:
                raise OverflowError(f"all {self._count} numbers are in use")
            place = digest(key) % self._count
            while self._first + place in self._keys:
                place = (place + 1) % self._count
            found = self._first + place
            self._numbers[key] = found
            self._keys[found] = key
        return found

    def adopt(self, key: K, number: int) -> None:
        """Give a key the number it has had, if that is one of ours and free."""
        if self._first <= number < self._first + self._count and number not in self._keys and key not in self._numbers:
            self._numbers[key] = number
            self._keys[number] = key

    def key(self, number: int) -> K | None:
        """What a number stands for."""
        return self._keys.get(number)

    def keep(self, keys: Iterable[K]) -> None:
        """Release the numbers of all other keys."""
        kept = set(keys)
        self.release([key for key in self._numbers if key not in kept])

    def release(self, keys: Iterable[K]) -> None:
        """Their numbers may be given to others."""
        for key in keys:
            del self._keys[self._numbers.pop(key)]
