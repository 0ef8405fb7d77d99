"""Events of the node: every CPU's ring, drained in batches by one exclusive consumer.

The kernel wakes us when a ring that was empty gets its first record; we then wait a little, so that under
load one wake-up serves thousands of records, and sleep for free when nothing happens. Positions live in the
rings: whoever consumes next, after a restart or a crash, goes on where the last one stopped. What found no
room was counted by the programs (mycel_lost).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import struct
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mycel.datapath import libbpf, syscall
from mycel.datapath.errors import RingBusy
from mycel.datapath.maps import RawMap
from mycel.datapath.ring import EVENT_DTYPE, Ring

if TYPE_CHECKING:
    from numpy.typing import NDArray

GATHER_S = 0.05


class EventStatistics(NamedTuple):
    """Since this reader started, except `lost`, which counts since the rings were made."""

    batches: int
    events: int
    lost: int


class EventReader:
    """The one consumer of a node's events. Close it to let the next one in."""

    def __init__(self, events_fd: int, *, lost_fd: int, lock_path: Path) -> None:
        """Raises RingBusy when another process holds the lock file."""
        self._lock = _take_lock(lock_path)
        self._lost = RawMap(lost_fd, syscall.map_info(lost_fd))
        self._rings: list[Ring] = []
        self._epoll = select.epoll()
        self._batches = 0
        self._events = 0
        for cpu in range(min(syscall.map_info(events_fd).max_entries, libbpf.possible_cpus())):
            raw = syscall.map_lookup(events_fd, struct.pack("<I", cpu), 4)
            if raw is not None:
                fd = syscall.map_by_id(struct.unpack("<I", raw)[0])
                self._rings.append(Ring(fd, syscall.map_info(fd).max_entries))
                self._epoll.register(fd, select.EPOLLIN)

    def drain(self) -> NDArray[Any]:
        """All finished records of all CPUs, oldest first."""
        parts = [part for part in (ring.drain() for ring in self._rings) if len(part)]
        if not parts:
            return np.empty(0, EVENT_DTYPE)
        self._batches += 1
        events = parts[0] if len(parts) == 1 else merge(parts)
        self._events += len(events)
        return events

    async def batches(self, *, gather_s: float = GATHER_S) -> AsyncIterator[NDArray[Any]]:
        """Batches for ever, each at most `gather_s` old and never empty."""
        loop = asyncio.get_running_loop()
        while True:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(self._epoll.fileno(), _resolve, ready)
            try:
                await ready
            finally:
                loop.remove_reader(self._epoll.fileno())
            await asyncio.sleep(gather_s)
            events = self.drain()
            if len(events):
                yield events

    def lost(self) -> int:
        """Events that found no room in their CPU's ring, ever."""
        return sum(self.lost_by_cpu())

    def lost_by_cpu(self) -> list[int]:
        """The same for each CPU, by its number."""
        block = self._lost.get(b"\0\0\0\0") or b""
        return [struct.unpack_from("<Q", block, at)[0] for at in range(0, len(block), self._lost.stride)]

    def statistics(self) -> EventStatistics:
        """Counters for metrics."""
        return EventStatistics(self._batches, self._events, self.lost())

    def close(self) -> None:
        """Unmap the rings and let the next consumer in."""
        self._epoll.close()
        for ring in self._rings:
            ring.close()
            os.close(ring.fd)
        self._rings.clear()
        os.close(self._lock)


def open_reader(
    events_fd: int, *, lost_fd: int, lock_path: Path, wait_s: float = 0.0, pause_s: float = 0.2
) -> EventReader:
    """An EventReader, waiting up to `wait_s` for the consumer before us to leave. Blocks. Raises RingBusy."""
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            return EventReader(events_fd, lost_fd=lost_fd, lock_path=lock_path)
        except RingBusy:
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(pause_s)


def merge(batches: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Several batches as one, oldest first."""
    events = np.empty(sum(map(len, batches)), EVENT_DTYPE)  # np.concatenate would drop the records' padding
    at = 0
    for batch in batches:
        events[at : at + len(batch)] = batch
        at += len(batch)
    return events[np.argsort(events["time_ns"], kind="stable")]


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _take_lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise RingBusy(f"another process reads this node's events (it holds {path}): stop it first") from None
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    return fd
