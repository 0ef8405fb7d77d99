"""BPF maps as reconcile targets: abi keys to abi values, read whole and written by difference.

`KernelMap` and its kin talk to the kernel in batches, off the event loop; `FakeMap` holds rows in memory
for tests. A mirror of what was read and written since saves the dump in all rounds but the fresh ones.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, Protocol, Self, TypeVar

from mycel.datapath import libbpf, syscall
from mycel.datapath.errors import KernelRefused, MapIncompatible
from mycel.datapath.syscall import MapInfo, MapType
from mycel.kit.reconcile import Diff, TargetError

_CHUNK = 4096
AT_ONCE = 256
"""So many rows are written where we are: a thread would cost more than they do."""
_NO_BATCH = (errno.EINVAL, errno.EOPNOTSUPP, 524)  # 524: ENOTSUPP, which the kernel lets out


class Layout(Protocol):
    """What every class of mycel.abi.layouts offers."""

    SIZE: int

    def pack(self) -> bytes:
        """As it lies in memory."""
        ...

    @classmethod
    def unpack(cls, data: bytes, offset: int = 0, /) -> Self:
        """From memory."""
        ...

    @classmethod
    def unpack_many(cls, data: bytes, /) -> list[Self]:
        """From memory where they lie side by side."""
        ...


K = TypeVar("K", bound=Layout)
V = TypeVar("V", bound=Layout)


def check_layout(name: str, info: MapInfo, *, key_size: int, value_size: int) -> None:
    """Compare the kernel's account of a map with a layout. Raises MapIncompatible."""
    if (info.key_size, info.value_size) != (key_size, value_size):
        raise MapIncompatible(
            name,
            kernel=f"keys of {info.key_size} and values of {info.value_size} bytes",
            layout=f"{key_size} and {value_size}",
        )


class RawMap:
    """A map of the kernel as bytes: walk, read, write. The descriptor is the caller's."""

    def __init__(self, fd: int, info: MapInfo) -> None:
        self.fd = fd
        self.info = info
        per_cpu = MapType(info.type).per_cpu  # then a value is a block of 8-byte units for each possible CPU
        self.stride = -(-info.value_size // 8) * 8 if per_cpu else info.value_size
        self.value_bytes = self.stride * (libbpf.possible_cpus() if per_cpu else 1)

    def get(self, key: bytes) -> bytes | None:
        """One row's value, or None."""
        return syscall.map_lookup(self.fd, key, self.value_bytes)

    def chunks(self) -> Iterator[tuple[bytes, bytes, int]]:
        """All rows as (keys, values, count), side by side.

        Rows written or deleted meanwhile may or may not show; no row that stays is missed or doubled in the
        hash maps we read this way, as the kernel hands out whole buckets.
        """
        cursor: bytes | None = None
        count = min(_CHUNK, max(self.info.max_entries, 1))
        while True:
            try:
                batch = syscall.map_lookup_batch(
                    self.fd, cursor, count=count, key_size=self.info.key_size, value_size=self.value_bytes
                )
            except KernelRefused as refused:
                if refused.errno == errno.ENOSPC:  # one bucket alone is larger than the chunk
                    count *= 2
                    continue
                if refused.errno in (errno.EINTR, errno.EAGAIN):  # rows went away under the walk
                    continue
                if refused.errno in _NO_BATCH and cursor is None:
                    yield from self._one_by_one()
                    return
                raise
            yield batch.keys, batch.values, batch.rows
            if batch.cursor is None:
                return
            cursor = batch.cursor

    def _one_by_one(self) -> Iterator[tuple[bytes, bytes, int]]:
        key = syscall.map_next_key(self.fd, None, self.info.key_size)
        while key is not None:
            value = self.get(key)
            if value is not None:
                yield key, value, 1
            key = syscall.map_next_key(self.fd, key, self.info.key_size)

    def write(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Write rows, in batches where there are several. Raises KernelRefused."""
        if len(rows) == 1:
            syscall.map_update(self.fd, *rows[0])
            return
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            try:
                syscall.map_update_batch(
                    self.fd, b"".join(key for key, _ in part), b"".join(value for _, value in part), len(part)
                )
            except KernelRefused as refused:
                if refused.errno not in _NO_BATCH:
                    raise
                for key, value in part:
                    syscall.map_update(self.fd, key, value)

    def remove(self, keys: Sequence[bytes]) -> None:
        """Delete rows; one that is gone already is no error."""
        position = 0
        while position < len(keys):
            part = keys[position : position + _CHUNK]
            if len(part) == 1:
                syscall.map_delete(self.fd, part[0])
                return
            try:
                done = syscall.map_delete_batch(self.fd, b"".join(part), len(part))
            except KernelRefused as refused:
                if refused.errno not in _NO_BATCH:
                    raise
                for key in part:
                    syscall.map_delete(self.fd, key)
                done = len(part)
            position += done if done == len(part) else done + 1  # the one after `done` was missing: step over it


def copy_rows(source_fd: int, target_fd: int) -> None:
    """Copy every row of a map into another of the same layout. Raises KernelRefused when it has too few
    rows.
    """
    source = RawMap(source_fd, syscall.map_info(source_fd))
    target = RawMap(target_fd, syscall.map_info(target_fd))
    key_size, stride = source.info.key_size, source.value_bytes
    for keys, values, count in source.chunks():
        rows = [
            (keys[at * key_size : (at + 1) * key_size], values[at * stride : (at + 1) * stride]) for at in range(count)
        ]
        if source.info.type in (MapType.HASH_OF_MAPS, MapType.ARRAY_OF_MAPS):
            _copy_inner(rows, target)
        elif rows:
            target.write(rows)


def _copy_inner(rows: Sequence[tuple[bytes, bytes]], target: RawMap) -> None:
    """Inner maps are read as numbers and written as descriptors."""
    for key, value in rows:
        number = int.from_bytes(value, "little")
        if not number:
            continue
        fd = syscall.map_by_id(number)
        try:
            target.write([(key, struct.pack("<I", fd))])
        finally:
            os.close(fd)


class KernelMap(Generic[K, V]):
    """A hash, LRU or LPM map of the kernel, typed by its layouts. A reconcile Target."""

    def __init__(self, name: str, fd: int, *, key: type[K], value: type[V]) -> None:
        info = syscall.map_info(fd)
        check_layout(name, info, key_size=key.SIZE, value_size=value.SIZE)
        self.name = name
        self.raw = RawMap(fd, info)
        self._key = key
        self._value = value
        self._mirror: Mapping[K, V] | None = None  # replaced, never changed: a reader may be walking it
        self._lock = threading.Lock()  # a row and its mirror change together, from whichever thread

    # -- now, from the kernel

    def get(self, key: K) -> V | None:
        """One row, from the kernel."""
        raw = self.raw.get(key.pack())
        return None if raw is None else self._value.unpack(raw)

    def dump(self) -> dict[K, V]:
        """All rows, from the kernel. Blocks: about 0.3 s for a million rows."""
        rows: dict[K, V] = {}
        for keys, values, _ in self.raw.chunks():
            rows.update(zip(self._key.unpack_many(keys), self._value.unpack_many(values), strict=True))
        return rows

    def write(self, rows: Mapping[K, V]) -> None:
        """Write rows at once, for callers that cannot wait for the next pass."""
        if rows:
            with self._lock:
                self.raw.write([(key.pack(), value.pack()) for key, value in rows.items()])
                if self._mirror is not None:
                    self._mirror = {**self._mirror, **rows}

    def remove(self, keys: Sequence[K]) -> None:
        """Delete rows at once."""
        if keys:
            with self._lock:
                self.raw.remove([key.pack() for key in keys])
                if self._mirror is not None:
                    gone = set(keys)
                    self._mirror = {key: value for key, value in self._mirror.items() if key not in gone}

    # -- as a Target

    async def read(self, *, fresh: bool) -> Mapping[K, V]:
        """Realized rows; a new dump when `fresh` or nothing was read yet."""
        mirror = self._mirror
        if fresh or mirror is None:
            try:
                mirror = await asyncio.to_thread(self._reflect)
            except KernelRefused as refused:
                raise TargetError(f"map {self.name}: {refused}") from refused
        return mirror

    def _reflect(self) -> Mapping[K, V]:
        with self._lock:
            held, rows = self._mirror, self.dump()
            self._mirror = mirror = rows if held is None or held != rows else held  # the same object: nothing changed
            return mirror

    async def apply(self, change: Diff[K, V]) -> None:
        """Write a difference, upserts first. Raises TargetError; then the mirror is forgotten."""
        try:
            if len(change.upserts) + len(change.deletes) <= AT_ONCE:
                self._apply(change)
            else:
                await asyncio.to_thread(self._apply, change)
        except KernelRefused as refused:
            self._mirror = None
            raise TargetError(self._problem(refused)) from refused

    def _apply(self, change: Diff[K, V]) -> None:
        self.write(change.upserts)
        self.remove(change.deletes)

    def _problem(self, refused: KernelRefused) -> str:
        if refused.errno in (errno.E2BIG, errno.ENOSPC):
            entries = self.raw.info.max_entries
            return f"map {self.name} is full ({entries} entries): raise its size in the settings"
        return f"map {self.name}: {refused}"


class FakeMap(Generic[K, V]):
    """A map in memory with the same face, for tests: `capacity` makes it refuse rows as the kernel would."""

    def __init__(self, name: str, *, capacity: int = 1 << 30) -> None:
        self.name = name
        self.rows: dict[K, V] = {}
        self.capacity = capacity

    def get(self, key: K) -> V | None:
        """One row."""
        return self.rows.get(key)

    def dump(self) -> dict[K, V]:
        """All rows."""
        return dict(self.rows)

    def write(self, rows: Mapping[K, V]) -> None:
        """Write rows."""
        for key, value in rows.items():
            if key not in self.rows and len(self.rows) >= self.capacity:
                raise KernelRefused("write a map row", errno.E2BIG)
            self.rows[key] = value

    def remove(self, keys: Sequence[K]) -> None:
        """Delete rows."""
        for key in keys:
            self.rows.pop(key, None)

    async def read(self, *, fresh: bool) -> Mapping[K, V]:
        """Realized rows; there is no mirror here."""
        return dict(self.rows)

    async def apply(self, change: Diff[K, V]) -> None:
        """Write a difference, upserts first. Raises TargetError when full."""
        try:
            self.write(change.upserts)
        except KernelRefused as refused:
            raise TargetError(f"map {self.name} is full ({self.capacity} entries)") from refused
        self.remove(change.deletes)


class CounterMap(Generic[K, V]):
    """A per-CPU map of 64-bit counters, read only; `dump` adds the CPUs up."""

    def __init__(self, name: str, fd: int, *, key: type[K], value: type[V]) -> None:
        info = syscall.map_info(fd)
        check_layout(name, info, key_size=key.SIZE, value_size=value.SIZE)
        if value.SIZE % 8:
            raise MapIncompatible(name, kernel=f"values of {value.SIZE} bytes", layout="64-bit counters")
        self.name = name
        self.raw = RawMap(fd, info)
        self._key = key
        self._value = value

    def dump(self) -> dict[K, V]:
        """Rows that are not all zero, summed over CPUs."""
        rows: dict[K, V] = {}
        for keys, values, _ in self.raw.chunks():
            for index, key in enumerate(self._key.unpack_many(keys)):
                block = values[index * self.raw.value_bytes : (index + 1) * self.raw.value_bytes]
                if any(block):
                    rows[key] = self._value.unpack(sum_counters(block, self.raw.stride))
        return rows


def sum_counters(block: bytes, stride: int) -> bytes:
    """Add per-CPU blocks of 64-bit counters up, modulo 2^64."""
    width = stride // 8
    numbers = struct.unpack(f"<{len(block) // 8}Q", block)
    return struct.pack(f"<{width}Q", *(sum(numbers[at::width]) & (1 << 64) - 1 for at in range(width)))
