"""One GetFlows request against the store: which flows, in which order, and when it ends.

The rules are Hubble's: `since` decides over `number` where to begin; without either, follow starts with
what comes next; `number` counts flows that pass the filters and does not end a stream that follows. The
result is a sequence of byte strings, each a run of complete gRPC frames; how they reach a client is the
server's affair.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import numpy as np

from mycel.api import flow_pb2, observer_pb2
from mycel.flow.filter import FlowFilters
from mycel.flow.kinds import Batch, encode
from mycel.flow.rows import Mask, is_blank
from mycel.observe.store import FlowStore

CHUNK = 1024
"""Rows judged and encoded at a time, so what one slow reader holds is bounded (about 0.4 MB)."""

_MISSED_WINDOW_S = 1.0
_ALL = 2**64 - 1


class FlowQuery(NamedTuple):
    """A GetFlowsRequest, parsed. Times are wall clock; None: no bound."""

    number: int
    first: bool
    follow: bool
    since_ns: int | None
    until_ns: int | None
    filters: FlowFilters

    @classmethod
    def parse(cls, request: observer_pb2.GetFlowsRequest) -> "FlowQuery":
        """Raises flow.errors.FilterError.

        The field mask is a hint that is not taken: the stock client of 1.19 leaves out fields that it prints.
        """
        return cls(
            number=0 if request.number == _ALL else request.number,
            first=request.first,
            follow=request.follow,
            since_ns=request.since.ToNanoseconds() if request.HasField("since") else None,
            until_ns=request.until.ToNanoseconds() if request.HasField("until") else None,
            filters=FlowFilters(request.whitelist, request.blacklist),
        )


class FlowReader:
    """A cursor over the store for one query."""

    def __init__(self, store: FlowStore, query: FlowQuery) -> None:
        self._store = store
        self._query = query
        self._missed = 0
        self._missed_told_at = -_MISSED_WINDOW_S
        self._cursor = self._begin()
        self._losses = store.losses_noted if self._cursor == store.head else store.losses_before(self._cursor)
        self._left = query.number if query.number and not query.follow else None

    async def frames(self) -> AsyncIterator[bytes]:
        """Runs of frames until the query is answered; never ends for a query that follows without `until`."""
        store, query = self._store, self._query
        stop = store.head
        if query.number and not query.first and query.since_ns is None:
            await self._rewind()
        while True:
            end = store.head if query.follow else stop
            while self._cursor < end and self._left != 0:
                for frames in self._next(min(self._cursor + CHUNK, end)):
                    yield frames
                if self._over():
                    return
                end = store.head if query.follow else stop
            if not query.follow:
                return
            if (loss := self._lost_frames()) is not None:
                yield loss
            newer = await store.wait_newer(self._cursor, self._losses, timeout_s=self._wait_s())
            if not newer and query.until_ns is not None and time.time_ns() > query.until_ns:
                return

    def _begin(self) -> int:
        """The sequence number to start at."""
        store, query = self._store, self._query
        if query.since_ns is not None:
            earlier = np.flatnonzero(store.column("wall_ns") < query.since_ns)
            return store.tail + (int(earlier[-1]) + 1 if len(earlier) else 0)
        if query.first or (not query.number and not query.follow):
            return store.tail
        return store.head

    async def _rewind(self) -> None:
        """Go back from the newest flow until `number` of them pass."""
        store, wanted, end = self._store, self._query.number, self._cursor
        while end > store.tail and wanted:
            begin = max(store.tail, end - CHUNK)
            _, passed, sequences, _ = self._judge(begin, end)
            chosen = sequences[passed][-wanted:]
            wanted -= len(chosen)
            self._cursor = end = int(chosen[0]) if len(chosen) and not wanted else begin
            await asyncio.sleep(0)  # nobody waits for a long search
        self._losses = store.losses_before(self._cursor)

    def _judge(self, begin: int, end: int) -> tuple[Batch, Mask, "np.ndarray[tuple[int], np.dtype[np.int64]]", int]:
        piece = self._store.read(begin, end)
        there = np.flatnonzero(~is_blank(piece.rows))
        batch = self._store.kinds.sort(piece.rows[there])
        sequences = piece.start + there
        passed = self._query.filters.mask(batch, sequences, uuids=self._store.uuids)
        wall = batch.rows["wall_ns"]
        if self._query.since_ns is not None:
            passed &= wall >= self._query.since_ns
        if self._query.until_ns is not None:
            passed &= wall <= self._query.until_ns
        return batch, passed, sequences, piece.missed

    def _next(self, end: int) -> list[bytes]:
        """Frames of the flows up to `end`, and of what was lost among them."""
        batch, passed, sequences, missed = self._judge(self._cursor, end)
        self._missed += missed
        if self._left is not None:
            chosen = np.flatnonzero(passed)[: self._left]
            self._left -= len(chosen)
        else:
            chosen = np.flatnonzero(passed)
        self._cursor = end
        found: list[bytes] = []
        if (loss := self._lost_frames()) is not None:
            found.append(loss)
        if len(chosen):
            part = Batch(batch.rows[chosen], batch.kinds, batch.kind_of[chosen])
            found.append(encode(part, sequences[chosen], uuids=self._store.uuids))
        return found

    def _over(self) -> bool:
        """Whether nothing that comes later can belong to the answer."""
        if self._left == 0:
            return True
        until_ns = self._query.until_ns
        if until_ns is None or self._cursor <= self._store.tail:
            return False
        last = self._store.read(self._cursor - 1, self._cursor).rows
        return len(last) > 0 and int(last["wall_ns"][0]) > until_ns

    def _wait_s(self) -> float | None:
        """How long to wait for news: a count of missed flows is still to be told, or the query has an end."""
        waits_s = [_MISSED_WINDOW_S] if self._missed else []
        if self._query.until_ns is not None:
            waits_s.append(max(0.0, (self._query.until_ns - time.time_ns()) / 1e9))
        return min(waits_s, default=None)

    def _lost_frames(self) -> bytes | None:
        """What the kernel lost since the last look and, once per window, what this reader missed."""
        frames: list[bytes] = []
        for loss in self._store.losses_from(self._losses):
            event = flow_pb2.LostEvent(source=flow_pb2.PERF_EVENT_RING_BUFFER, num_events_lost=loss.events)
            if loss.cpu is not None:
                event.cpu.value = loss.cpu
            event.first.FromNanoseconds(loss.first_ns)
            event.last.FromNanoseconds(loss.last_ns)
            frames.append(self._frame(event))
        self._losses = self._store.losses_noted
        now = time.monotonic()
        if self._missed and now - self._missed_told_at >= _MISSED_WINDOW_S:
            self._missed_told_at = now
            event = flow_pb2.LostEvent(source=flow_pb2.HUBBLE_RING_BUFFER, num_events_lost=self._missed)
            self._missed = 0
            frames.append(self._frame(event))
        return b"".join(frames) or None

    def _frame(self, event: flow_pb2.LostEvent) -> bytes:
        response = observer_pb2.GetFlowsResponse(lost_events=event, node_name=self._store.node_name)
        response.time.GetCurrentTime()
        body = response.SerializeToString()
        return b"\x00" + len(body).to_bytes(4, "big") + body
