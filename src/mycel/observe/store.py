"""The flows of a node: a ring of rows that always holds the newest, and what was lost on the way.

Rows may be reserved for a sheet: a proxy's log as it came, of which rows are made when somebody reads them. Under load
most sheets are overwritten before anybody does.

Rows are addressed by sequence number, counted from the start of the process. Readers keep a number and ask
for what follows it; a reader that is overtaken is told how much it missed. Everything happens in one event
loop, so there are no locks.
"""

import asyncio
import secrets
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mycel.flow.enrich import Records
from mycel.flow.kinds import Kinds
from mycel.flow.l7 import Sheet
from mycel.flow.rows import ROW, Rows, Words, words
from mycel.flow.uuids import UuidSpace
from mycel.observe.namespaces import RecentNamespaces

DEFAULT_CAPACITY = 65_535
"""Flows kept; Hubble keeps 4,095. 160 bytes each, touched only as they fill."""

_LOSSES_KEPT = 64
_RATE_WINDOW_S = 60.0


class Loss(NamedTuple):
    """Events that never became flows, within one window."""

    sequence: int  # the first flow after it
    events: int
    cpu: int | None
    first_ns: int  # wall clock
    last_ns: int


class Slice(NamedTuple):
    """Rows from `start` on; `missed` of those asked for were overwritten before they could be read."""

    start: int
    rows: Rows
    missed: int


class StoreStatistics(NamedTuple):
    """Counts since the start."""

    held: int
    capacity: int
    seen: int
    rate: float  # flows per second over the last minute
    uptime_ns: int
    lost: int


class _Reserved(NamedTuple):
    """The rows [start, stop) are to be made of a sheet."""

    start: int
    stop: int
    sheet: Sheet


MakeRows = Callable[[Sequence[Sheet]], Sequence[Rows]]
"""Rows of each sheet, at most as many as it counted."""


def _no_sheets(sheets: Sequence[Sheet]) -> Sequence[Rows]:
    raise TypeError(f"this store was not told how to read {len(sheets)} sheets")


def _rows(copied: Words) -> Rows:
    rows: Rows = copied.view(ROW).ravel()
    return rows


class FlowStore:
    """Ring of rows with the records they refer to."""

    def __init__(
        self,
        *,
        node_name: str,
        cluster_name: str = "default",
        capacity: int = DEFAULT_CAPACITY,
        make_rows: MakeRows = _no_sheets,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"the flow store needs room for at least one flow, not {capacity}")
        self.node_name = f"{cluster_name}/{node_name}"
        self.capacity = capacity
        self.records = Records()
        self.namespaces = RecentNamespaces(self.records, cluster_name=cluster_name)
        self.kinds = Kinds(self.records, node_name=self.node_name)
        self.uuids = UuidSpace(secrets.token_bytes(8))
        self.lost = 0
        self._losses: deque[Loss] = deque(maxlen=_LOSSES_KEPT)
        self._losses_noted = 0
        # As words: structured arrays are copied field by field, and lose their padding when joined.
        self._ring: Words = np.zeros((capacity, ROW.itemsize // 8), np.uint64)
        self._seen = 0
        self._make_rows = make_rows
        self._reserved: list[_Reserved] = []
        self.unread_bytes = 0
        self._started = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque([(self._started, 0)])
        self._changed = asyncio.Event()

    @property
    def head(self) -> int:
        """The sequence number of the next flow."""
        return self._seen

    @property
    def tail(self) -> int:
        """The sequence number of the oldest flow that is still held."""
        return max(0, self._seen - self.capacity)

    def append(self, rows: Rows) -> None:
        """Take rows in, overwriting the oldest, and wake readers."""
        if len(rows):
            self._seen += len(rows)
            self._put(self._seen - len(rows), rows)
            self._advanced()

    def reserve(self, sheet: Sheet, *, now_ns: int) -> None:
        """Keep room for a sheet's rows; until they are made, `now_ns` is their time (wall clock)."""
        blank = np.zeros(sheet.forwarded + sheet.dropped, ROW)
        blank["wall_ns"] = now_ns
        if len(blank):
            self._reserved.append(_Reserved(self._seen, self._seen + len(blank), sheet))
            self.unread_bytes += sheet.size
            self.append(blank)

    def settle(self, most: int) -> int:
        """Make the oldest rows that are still to be made, until `most` are; how many sheets are left."""
        if self._reserved:
            self._make(self.tail, self._reserved[0].start + most)
        return len(self._reserved)

    def _make(self, begin: int, end: int) -> None:
        """Make the rows of all sheets that have any in [begin, end)."""
        first = bisect_right(self._reserved, begin, key=lambda each: each.stop)
        last = bisect_left(self._reserved, end, lo=first, key=lambda each: each.start)
        chosen = self._reserved[first:last]
        if not chosen:
            return
        del self._reserved[first:last]
        self.unread_bytes -= sum(each.sheet.size for each in chosen)
        for place, made in zip(chosen, self._make_rows([each.sheet for each in chosen]), strict=True):
            self._put(place.start, made[: place.stop - place.start])

    def _put(self, start: int, rows: Rows) -> None:
        """Write rows at their places, as far as the ring still holds these."""
        kept = words(rows[max(0, self.tail - start) :])
        at = (start + len(rows) - len(kept)) % self.capacity
        first = kept[: self.capacity - at]
        self._ring[at : at + len(first)] = first
        self._ring[: len(kept) - len(first)] = kept[len(first) :]

    def _advanced(self) -> None:
        """Forget sheets that were overwritten, and wake readers."""
        gone = bisect_right(self._reserved, self.tail, key=lambda each: each.stop)
        self.unread_bytes -= sum(each.sheet.size for each in self._reserved[:gone])
        del self._reserved[:gone]
        self._mark()
        self._wake()

    def append_loss(self, count: int, *, cpu: int | None, first_ns: int, last_ns: int) -> None:
        """Note events that were lost before they came here."""
        self.lost += count
        self._losses_noted += 1
        self._losses.append(Loss(self._seen, count, cpu, first_ns, last_ns))
        self._wake()

    @property
    def losses_noted(self) -> int:
        """How many losses were ever noted: a cursor for `losses_from`."""
        return self._losses_noted

    def losses_from(self, cursor: int) -> list[Loss]:
        """The losses noted since a cursor, as far as they are kept."""
        fresh = min(self._losses_noted - cursor, len(self._losses))
        return list(self._losses)[len(self._losses) - fresh :]

    def losses_before(self, sequence: int) -> int:
        """The cursor that leaves out what was lost up to the flow `sequence`."""
        later = sum(1 for loss in self._losses if loss.sequence > sequence)
        return self._losses_noted - later

    def read(self, start: int, stop: int) -> Slice:
        """A copy of the rows [start, stop), as far as they are held. Some may be `blank`."""
        begin, end = max(start, self.tail), min(stop, self._seen)
        if begin >= end:
            return Slice(max(start, self.tail), np.zeros(0, ROW), max(0, self.tail - start))
        self._make(begin, end)
        at, count = begin % self.capacity, end - begin
        copied = self._ring[np.arange(at, at + count) % self.capacity]
        return Slice(begin, _rows(copied), begin - start)

    def column(self, name: str) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
        """One column of everything held, oldest first; of rows that are still to be made it is nothing but the time."""
        held = _rows(self._ring)[name]
        if self._seen <= self.capacity:
            return held[: self._seen]
        at = self._seen % self.capacity
        return np.concatenate([held[at:], held[:at]])

    def forget_unused_records(self) -> None:
        """Drop names that no held row refers to."""
        self.records.keep(_rows(self._ring[: min(self._seen, self.capacity)]))
        self.kinds.forget()

    async def wait_newer(self, sequence: int, losses: int, *, timeout_s: float | None = None) -> bool:
        """Wait for a flow from `sequence` on or a loss from cursor `losses` on; False when time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._seen <= sequence and self._losses_noted <= losses:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def statistics(self) -> StoreStatistics:
        """Counts for ServerStatus and metrics."""
        now = time.monotonic()
        self._trim(now)
        since, count = self._marks[0]
        elapsed = max(now - since, 1e-3)
        return StoreStatistics(
            held=min(self._seen, self.capacity),
            capacity=self.capacity,
            seen=self._seen,
            rate=(self._seen - count) / elapsed,
            uptime_ns=int((now - self._started) * 1e9),
            lost=self.lost,
        )

    def _mark(self) -> None:
        now = time.monotonic()
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self._seen))
            self._trim(now)

    def _trim(self, now: float) -> None:
        while len(self._marks) > 1 and self._marks[1][0] <= now - _RATE_WINDOW_S:
            self._marks.popleft()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
