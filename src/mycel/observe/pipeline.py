"""From the kernel's batches to the store: enrich, count, keep.

The agent calls `feed` for each batch and `lost` for what the kernel could not hand over. Losses are
gathered and told once per window, so that a flood of them does not become a flood of messages.

Of requests only what a proxy's log says in numbers is taken in as it comes (`feed_sheet`). They are read when somebody
looks at flows, or a second later unless too many come for that: names are asked for while they mean the same.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from mycel.flow.enrich import Enricher
from mycel.flow.l7 import L7Record, Sheet, weight
from mycel.flow.records import Directory
from mycel.flow.rows import Events, Rows
from mycel.observe.metrics import FlowMetrics
from mycel.observe.store import DEFAULT_CAPACITY, FlowStore

log = logging.getLogger(__name__)
_LOSS_WINDOW_S = 1.0
_CLOCK_WINDOW_S = 10.0
_SETTLE_S = 1.0
_SETTLED = 512  # rows of sheets that are made at a time: 5 to 15 ms
_MOST_UNREAD = 32 << 20  # bytes
_MANY_RECORDS = 65_536
_MANY_BYTES = 32 << 20  # of messages of layer 7, since those no flow refers to were last forgotten


class FlowPipeline:
    """One node's flows. `store` is what an Observer serves, `metrics` what Prometheus scrapes."""

    def __init__(
        self,
        directory: Directory,
        *,
        node_name: str,
        cluster_name: str = "default",
        capacity: int = DEFAULT_CAPACITY,
        refuse: Callable[[str], None] = log.warning,
    ) -> None:
        """`refuse` is told of each message that can be no flow, why."""
        self.store = FlowStore(
            node_name=node_name, cluster_name=cluster_name, capacity=capacity, make_rows=self._read_sheets
        )
        self._refuse = refuse
        self._settler: asyncio.TimerHandle | None = None
        self._came = 0  # rows of sheets since the settler ran
        self.metrics = FlowMetrics(self.store)
        self._enricher = Enricher(directory, self.store.records)
        self._pending: dict[int | None, tuple[int, int]] = {}
        self._loss_told_at = -_LOSS_WINDOW_S
        self._teller: asyncio.TimerHandle | None = None
        self._offset_at = -_CLOCK_WINDOW_S
        self._offset_ns = 0
        self._l7_bytes = 0
        self._many_records = _MANY_RECORDS

    def feed(self, events: Events) -> None:
        """Take a batch of `abi.FlowEvent` records (any order) in."""
        if len(events):
            self._keep(self._enricher.enrich(events, wall_offset_ns=self._wall_offset_ns()))

    def feed_l7(self, messages: Sequence[L7Record]) -> None:
        """Take in what proxies saw."""
        (rows,) = self._enrich_l7([messages])
        if len(rows):
            self._keep(rows)

    def feed_sheet(self, sheet: Sheet) -> None:
        """Take in a piece of a proxy's log, which is read later if ever. To be called in the event loop."""
        self.metrics.count_sheet(sheet)
        self.store.reserve(sheet, now_ns=time.time_ns())
        self._came += sheet.forwarded + sheet.dropped
        while self.store.unread_bytes > _MOST_UNREAD:
            self.store.settle(_SETTLED)
        self._forget_unused()
        if self._settler is None:
            self._settler = asyncio.get_running_loop().call_later(_SETTLE_S, self._settle)

    def _settle(self) -> None:
        """Read a part of what nobody has read. While more comes than that, all of it would be read too late."""
        came, self._came = self._came, 0
        left = self.store.settle(_SETTLED if came <= _SETTLED else 0)
        self._forget_unused()
        self._settler = asyncio.get_running_loop().call_later(_SETTLE_S, self._settle) if left else None

    def _read_sheets(self, sheets: Sequence[Sheet]) -> Sequence[Rows]:
        found: list[Sequence[L7Record]] = []
        for sheet in sheets:
            try:
                found.append(sheet.records())
            except ValueError as exc:
                self._refuse(str(exc))
                found.append(())
        rows = self._enrich_l7(found)
        for each in rows:
            self.store.namespaces.note(each)
        return rows

    def _enrich_l7(self, sheets: Sequence[Sequence[L7Record]]) -> list[Rows]:
        self._l7_bytes += sum(weight(each) for sheet in sheets for each in sheet)
        return self._enricher.enrich_l7(sheets, self._refuse, wall_offset_ns=self._wall_offset_ns())

    def _keep(self, rows: Rows) -> None:
        self.metrics.count(rows)
        self.store.namespaces.note(rows)
        self.store.append(rows)
        self._forget_unused()

    def _forget_unused(self) -> None:
        """Drop records that no row refers to, when there may be many. Rows that are being made must be in the store."""
        if self._l7_bytes > _MANY_BYTES or self._count_records() > self._many_records:
            self._l7_bytes = 0
            self.store.forget_unused_records()
            self._enricher.forget()
            self._many_records = max(_MANY_RECORDS, 2 * self._count_records())

    def _count_records(self) -> int:
        records = self.store.records
        return max(map(len, (records.endpoints, records.names, records.l7)))

    def lost(self, count: int, *, cpu: int | None = None) -> None:
        """Note `count` events that the kernel had no room for. To be called in the event loop."""
        if count <= 0:
            return
        total, first_ns = self._pending.get(cpu, (0, time.time_ns()))
        self._pending[cpu] = (total + count, first_ns)
        if self._teller is None:
            wait_s = self._loss_told_at + _LOSS_WINDOW_S - time.monotonic()
            self._teller = asyncio.get_running_loop().call_later(max(0.0, wait_s), self._tell_losses)

    def _tell_losses(self) -> None:
        """Pass gathered losses on."""
        self._teller = None
        self._loss_told_at = time.monotonic()
        last_ns = time.time_ns()
        for cpu, (count, first_ns) in self._pending.items():
            self.store.append_loss(count, cpu=cpu, first_ns=first_ns, last_ns=last_ns)
        self._pending.clear()

    def _wall_offset_ns(self) -> int:
        """Wall clock minus CLOCK_MONOTONIC, measured again every few seconds: wall clocks are adjusted."""
        now = time.monotonic()
        if now - self._offset_at >= _CLOCK_WINDOW_S:
            self._offset_at = now
            self._offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return self._offset_ns
