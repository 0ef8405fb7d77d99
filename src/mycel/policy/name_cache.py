"""What names answered with: name → addresses with the time they are good until. Pure; whoever calls has the clock.

An address whose time is over is put off, not dropped: it goes by a `sweep` that knows it has no live connection, and
not before the sweep after the one that found it over, so that a client has time to use what it was told. So is one that
is beyond what a name may have.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Set
from typing import NamedTuple

from mycel.model.address import Address

ADDRESSES_PER_NAME = 1000
PUT_OFF = 10_000
NAMES = 50_000


class Answered(NamedTuple):
    """One address of a name. Times are seconds of the caller's clock."""

    until_s: float
    source: Address  # who asked last


class Entry(NamedTuple):
    """For people: one address of one name."""

    name: str
    address: Address
    until_s: float
    source: Address


class NameCache:
    """See the module. Every limit is a bound on memory: what goes beyond it is the oldest."""

    def __init__(
        self,
        *,
        min_ttl_s: int = 0,
        max_ttl_s: int = 7 * 86400,
        per_name: int = ADDRESSES_PER_NAME,
        put_off: int = PUT_OFF,
        names: int = NAMES,
    ) -> None:
        self._min_ttl_s, self._max_ttl_s = min_ttl_s, max_ttl_s
        self._per_name, self._most_put_off, self._most_names = per_name, put_off, names
        self._names: dict[str, dict[Address, Answered]] = {}
        self._addresses: dict[Address, set[str]] = {}
        # in the order they were; whether a sweep has found them so, and the next may drop them
        self._put_off: dict[tuple[str, Address], bool] = {}

    def learn(
        self, name: str, answers: Iterable[tuple[Address, int]], *, source: Address, now_s: float
    ) -> set[Address]:
        """Take an answer in: addresses with their TTL in seconds. Returns the addresses whose names changed."""
        changed: set[Address] = set()
        if name not in self._names and len(self._names) >= self._most_names:
            changed |= self._drop_name(next(iter(self._names)))
        held = self._names.setdefault(name, {})
        for address, ttl_s in answers:
            until_s = now_s + min(max(ttl_s, self._min_ttl_s), self._max_ttl_s)
            old = held.get(address)
            if old is None:
                self._addresses.setdefault(address, set()).add(name)
                changed.add(address)
            self._put_off.pop((name, address), None)
            held[address] = Answered(max(until_s, old.until_s if old else until_s), source)
        if len(held) > self._per_name:
            changed |= self._put_off_beyond(name, held, now_s)
        if not held and self._names.get(name) is held:
            del self._names[name]
        return changed

    def _put_off_beyond(self, name: str, held: dict[Address, Answered], now_s: float) -> set[Address]:
        """The longest-lived stay, of one answer the first. Returns what had to be dropped for it."""
        good = [address for address in reversed(held) if (name, address) not in self._put_off]
        good.sort(key=lambda each: held[each].until_s)
        for address in good[: max(0, len(good) - self._per_name)]:
            held[address] = held[address]._replace(until_s=now_s)
            self._put_off[name, address] = False
        return self._drop_oldest()

    def _drop_oldest(self) -> set[Address]:
        """Of what is put off, beyond what may be."""
        oldest = list(itertools.islice(self._put_off, max(0, len(self._put_off) - self._most_put_off)))
        for name, address in oldest:
            self._drop(name, address)
        return {address for _, address in oldest}

    def due(self, now_s: float) -> set[Address]:
        """Addresses a sweep would drop unless they have live connections."""
        return {
            address
            for (name, address), found in self._put_off.items()
            if found and self._names[name][address].until_s <= now_s
        }

    def sweep(self, now_s: float, live: Collection[Address] | None) -> set[Address]:
        """Drop what is over. `live`: addresses with connections, None: nobody knows, so all of them may have.

        Returns the addresses whose names changed.
        """
        changed: set[Address] = set()
        if live is not None:
            for name, address in [each for each, found in self._put_off.items() if found and each[1] not in live]:
                self._drop(name, address)
                changed.add(address)
        self._put_off = dict.fromkeys(self._put_off, True)
        for name, held in self._names.items():
            over = ((name, address) for address, one in held.items() if one.until_s <= now_s)
            self._put_off.update(dict.fromkeys(over, True))
        return changed | self._drop_oldest()

    def names(self, address: Address) -> Set[str]:
        """The names an address answers for."""
        return self._addresses.get(address, frozenset())

    @property
    def addresses(self) -> Collection[Address]:
        """Every address there is."""
        return self._addresses.keys()

    def entry(self, name: str, address: Address) -> Entry | None:
        """One address of one name; None: it has not, or not any more."""
        one = self._names.get(name, {}).get(address)
        return None if one is None else Entry(name, address, one.until_s, one.source)

    def entries(self) -> Iterator[Entry]:
        """Everything, in the order it was learnt."""
        for name, held in self._names.items():
            for address, one in held.items():
                yield Entry(name, address, one.until_s, one.source)

    def put(self, entry: Entry) -> None:
        """Take over what an earlier process had learnt."""
        self._names.setdefault(entry.name, {})[entry.address] = Answered(entry.until_s, entry.source)
        self._addresses.setdefault(entry.address, set()).add(entry.name)

    def __len__(self) -> int:
        return len(self._names)

    def _drop_name(self, name: str) -> set[Address]:
        gone = set(self._names[name])
        for address in gone:
            self._drop(name, address)
        return gone

    def _drop(self, name: str, address: Address) -> None:
        held = self._names[name]
        del held[address]
        if not held:
            del self._names[name]
        self._put_off.pop((name, address), None)
        names = self._addresses[address]
        names.discard(name)
        if not names:
            del self._addresses[address]
