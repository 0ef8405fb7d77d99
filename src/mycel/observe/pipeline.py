"""From the kernel's batches to the store: enrich, count, keep.

The agent calls `feed` for each batch and `lost` for what the kernel could not hand over. Losses are
gathered and told once per window, so that a flood of them does not become a flood of messages.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from mycel.flow.enrich import Enricher
from mycel.flow.l7 import L7Record, weight
from mycel.flow.records import Directory
from mycel.flow.rows import Events, Rows
from mycel.observe.metrics import FlowMetrics
from mycel.observe.store import DEFAULT_CAPACITY, FlowStore

_LOSS_WINDOW_S = 1.0
_CLOCK_WINDOW_S = 10.0
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
    ) -> None:
        self.store = FlowStore(node_name=node_name, cluster_name=cluster_name, capacity=capacity)
        self.metrics = FlowMetrics(self.store)
        self._enricher = Enricher(directory, self.store.records)
        self._pending: dict[int | None, tuple[int, int]] = {}
        self._loss_told_at = -_LOSS_WINDOW_S
        self._teller: asyncio.TimerHandle | None = None
        self._offset_at = -_CLOCK_WINDOW_S
        self._offset_ns = 0
        self._l7_bytes = 0

    def feed(self, events: Events) -> None:
        """Take a batch of `abi.FlowEvent` records (any order) in."""
        if len(events):
            self._keep(self._enricher.enrich(events, wall_offset_ns=self._wall_offset_ns()))

    def feed_l7(self, messages: Sequence[L7Record], refuse: Callable[[str], None]) -> None:
        """Take in what proxies saw. `refuse` is told of each message that can be no flow, why."""
        rows = self._enricher.enrich_l7(messages, refuse, wall_offset_ns=self._wall_offset_ns())
        self._l7_bytes += sum(map(weight, messages))
        if len(rows):
            self._keep(rows)

    def _keep(self, rows: Rows) -> None:
        self.metrics.count(rows)
        self.store.namespaces.note(rows)
        self.store.append(rows)
        records = self.store.records
        many = max(map(len, (records.endpoints, records.names, records.l7))) > _MANY_RECORDS
        if many or self._l7_bytes > _MANY_BYTES:
            self._l7_bytes = 0
            self.store.forget_unused_records()
            self._enricher.forget()

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
