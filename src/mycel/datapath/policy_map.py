"""mycel_policy: one inner map of rows per policy set.

A set that is new, or whose meaning changes, is made whole and put in place: a packet sees the old rows or the new
ones, never a mixture. The kernel returns from that when no program can be at the old rows any more (RCU, about 8 ms),
so all of a pass go in one batch, off the event loop; where there were no old rows nobody has to wait for it. Sets that
go are taken away some time later, together. Where only identities come or go, their rows are written into the map in
use: no address leads to an identity before its rows are there, nor after they begin to go.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import struct
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mycel.abi import LIMIT_POLICY_ROWS, PolicyKey, PolicyValue, ReservedIdentity
from mycel.datapath import syscall
from mycel.datapath.errors import KernelRefused
from mycel.datapath.maps import RawMap, check_layout
from mycel.datapath.syscall import MapType
from mycel.kit.reconcile import Diff, TargetError, diff

log = logging.getLogger(__name__)
PolicyRows = Mapping[PolicyKey, PolicyValue]
_BPF_F_NO_PREALLOC = 1
_WAITING = 4
"""So many batches may wait for RCU at once; the next waits for one of them."""
_LOOK_S = 50e-6
_SWEEP_S = 1.0


class PolicyMap:
    """Policy set number → rows. A reconcile Target whose values are whole inner maps."""

    def __init__(self, name: str, fd: int) -> None:
        info = syscall.map_info(fd)
        check_layout(name, info, key_size=4, value_size=4)
        self.name = name
        self.raw = RawMap(fd, info)
        self._mirror: dict[int, PolicyRows] | None = None
        self._going: set[int] = set()  # no endpoint names them any more
        self._sweeping = asyncio.Lock()
        self._sweep: asyncio.Task[None] | None = None
        self._waiting = ThreadPoolExecutor(_WAITING, thread_name_prefix="policy-rcu")

    def dump(self) -> dict[int, PolicyRows]:
        """All rows of all sets, from the kernel."""
        found: dict[int, PolicyRows] = {}
        for keys, values, _ in self.raw.chunks():
            sets = (number for (number,) in struct.iter_unpack("<I", keys))
            ids = (number for (number,) in struct.iter_unpack("<I", values))
            for policy_set, map_id in zip(sets, ids, strict=True):
                found[policy_set] = _rows_of(map_id)
        return found

    def write(self, sets: Mapping[int, PolicyRows]) -> None:
        """Bring sets to their rows: those that can be in place, all others as new maps put in place at once."""
        mirror = self._mirror or {}
        whole = {
            policy_set: rows
            for policy_set, rows in sets.items()
            if (change := row_change(mirror.get(policy_set), rows)) is None or not self._edit(policy_set, change)
        }
        if whole:
            made = _new_maps(whole)
            placing = self._waiting.submit(self._place, made)
            if not mirror.keys() & whole.keys() and self._mirror is not None:
                numbers = {policy_set: syscall.map_info(fd).id for policy_set, fd in made.items()}
                while not placing.done() and not self._in_place(numbers):
                    time.sleep(_LOOK_S)
                if not placing.done():
                    return
            placing.result()

    def _place(self, made: Mapping[int, int]) -> None:
        """Put maps in place, until no program can be at what they replace."""
        try:
            self.raw.write([(struct.pack("<I", each), struct.pack("<I", fd)) for each, fd in made.items()])
        finally:
            for fd in made.values():
                os.close(fd)

    def _in_place(self, numbers: Mapping[int, int]) -> bool:
        """Whether programs find these maps."""
        return all(
            self.raw.get(struct.pack("<I", policy_set)) == struct.pack("<I", map_id)
            for policy_set, map_id in numbers.items()
        )

    def _edit(self, policy_set: int, change: Diff[PolicyKey, PolicyValue]) -> bool:
        """Change rows of the map in use; False when it is not there."""
        map_id = self.raw.get(struct.pack("<I", policy_set))
        if map_id is None:
            return False
        fd = syscall.map_by_id(struct.unpack("<I", map_id)[0])
        try:
            rows = RawMap(fd, syscall.map_info(fd))
            if change.upserts:
                rows.write([(key.pack(), value.pack()) for key, value in change.upserts.items()])
            if change.deletes:
                rows.remove([key.pack() for key in change.deletes])
        finally:
            os.close(fd)
        return True

    def remove(self, sets: Sequence[int]) -> None:
        """Take sets away."""
        self.raw.remove([struct.pack("<I", each) for each in sets])

    async def read(self, *, fresh: bool) -> Mapping[int, PolicyRows]:
        """Realized rows; a new dump when `fresh` or nothing was read yet."""
        if fresh or self._mirror is None:
            await self.swept()
            try:
                held, dumped = self._mirror or {}, await asyncio.to_thread(self.dump)
                # Equal sets stay the objects they were: to see that nothing changed is then cheap.
                self._mirror = {each: held[each] if held.get(each) == rows else rows for each, rows in dumped.items()}
            except KernelRefused as refused:
                raise TargetError(f"map {self.name}: {refused}") from refused
        return self._mirror

    async def apply(self, change: Diff[int, PolicyRows]) -> None:
        """Put changed sets in place, then have old ones taken away. Raises TargetError."""
        if self._going & change.upserts.keys():
            async with self._sweeping:
                self._going -= change.upserts.keys()
        try:
            if change.upserts:
                await asyncio.to_thread(self.write, change.upserts)
        except KernelRefused as refused:
            self._mirror = None
            raise TargetError(f"map {self.name}: {refused}") from refused
        if self._mirror is not None:
            gone = set(change.deletes)
            kept = {each: rows for each, rows in self._mirror.items() if each not in gone}
            self._mirror = {**kept, **change.upserts}
        if change.deletes:
            self._going.update(change.deletes)
            if self._sweep is None or self._sweep.done():
                self._sweep = asyncio.create_task(self._sweep_soon(), name="policy set removal")

    async def _sweep_soon(self) -> None:
        """Many sets that go cost one wait for RCU, and a program that has just read a set's number finds the set."""
        await asyncio.sleep(_SWEEP_S)
        try:
            await self.swept()
        except TargetError as problem:
            log.warning("sets nobody uses are still there: %s", problem)  # the next look at the kernel finds them

    async def swept(self) -> None:
        """Take away what is to go. Raises TargetError."""
        async with self._sweeping:
            going = sorted(self._going)
            try:
                if going:
                    await asyncio.to_thread(self.remove, going)
            except KernelRefused as refused:
                self._mirror = None
                raise TargetError(f"map {self.name}: {refused}") from refused
            finally:
                self._going -= set(going)


def row_change(held: PolicyRows | None, wanted: PolicyRows) -> Diff[PolicyKey, PolicyValue] | None:
    """The rows to write and remove where that may be done in place: whole identities come or go.

    None where it may not: rows of an identity that stays, or of everybody's, would change, and packets would see a
    mixture.
    """
    if held is None:
        return None
    change = diff(wanted, held)
    staying = {key.identity for key in held} & {key.identity for key in wanted}
    touched = {key.identity for key in (*change.upserts, *change.deletes)}
    return None if touched & (staying | {ReservedIdentity.UNKNOWN}) else change


def _new_maps(sets: Mapping[int, PolicyRows]) -> dict[int, int]:
    """A descriptor of an inner map for each set."""
    made: dict[int, int] = {}
    try:
        for policy_set, rows in sets.items():
            made[policy_set] = new_policy_rows(rows)
    except BaseException:
        for fd in made.values():
            os.close(fd)
        raise
    return made


def new_policy_rows(rows: PolicyRows) -> int:
    """An inner map with these rows; returns its descriptor."""
    fd = syscall.map_create(
        MapType.LPM_TRIE,
        key_size=PolicyKey.SIZE,
        value_size=PolicyValue.SIZE,
        max_entries=LIMIT_POLICY_ROWS,
        flags=_BPF_F_NO_PREALLOC,
        name="policy_rows",
    )
    try:
        if rows:
            made = RawMap(fd, syscall.map_info(fd))
            made.write([(key.pack(), value.pack()) for key, value in rows.items()])
            _read_back(made, rows)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read_back(made: RawMap, rows: PolicyRows) -> None:
    """What is said to be enforced has been seen in the kernel."""
    held: dict[PolicyKey, PolicyValue] = {}
    for keys, values, _ in made.chunks():
        held.update(zip(PolicyKey.unpack_many(keys), PolicyValue.unpack_many(values), strict=True))
    if held != rows:
        raise KernelRefused(f"policy rows: {len(held)} of {len(rows)} were found again", errno.EIO)


def _rows_of(map_id: int) -> PolicyRows:
    try:
        fd = syscall.map_by_id(map_id)
    except KernelRefused:  # swapped out since we read its number: the next pass sees the new one
        return {}
    try:
        rows: dict[PolicyKey, PolicyValue] = {}
        for keys, values, _ in RawMap(fd, syscall.map_info(fd)).chunks():
            rows.update(zip(PolicyKey.unpack_many(keys), PolicyValue.unpack_many(values), strict=True))
        return rows
    finally:
        os.close(fd)
