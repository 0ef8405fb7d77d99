"""Numbers made of what they stand for, so that they are the same after a restart and on every node."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
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
        self._digests: dict[int, int] = {}
        self._expected: dict[int, int] = {}  # digest → the number its key had before
        self._reserved: frozenset[int] = frozenset()  # those numbers

    def number(self, key: K) -> int:
        """The key's number, given at first sight. Raises OverflowError when none is left."""
        found = self._numbers.get(key)
        if found is None:
            own = digest(key)
            found = self._expected.get(own)
            if found is None or found in self._keys:
                found = self._free(own)
            self._numbers[key], self._keys[found], self._digests[found] = found, key, own
        return found

    def _free(self, own: int) -> int:
        if len(self._keys.keys() | self._reserved) >= self._count:
            raise OverflowError(f"all {self._count} numbers are in use")
        place = own % self._count
        while (number := self._first + place) in self._keys or number in self._reserved:
            place = (place + 1) % self._count
        return number

    def expect(self, digests: Mapping[int, int]) -> None:
        """Keep numbers, with the digests of keys that had them before a restart, for those keys alone."""
        ours = range(self._first, self._first + self._count)
        self._expected = {own: number for number, own in digests.items() if number in ours and number not in self._keys}
        self._reserved = frozenset(self._expected.values())

    @property
    def digests(self) -> dict[int, int]:
        """What a later `expect` needs."""
        return self._digests.copy()

    def adopt(self, key: K, number: int) -> bool:
        """Give a key the number it has had, if that is one of ours and free; False when it is not."""
        ours = self._first <= number < self._first + self._count
        if not ours or number in self._keys or key in self._numbers:
            return False
        self._numbers[key], self._keys[number], self._digests[number] = number, key, digest(key)
        return True

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
            number = self._numbers.pop(key)
            del self._keys[number], self._digests[number]
