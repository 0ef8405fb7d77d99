"""Logs of proxies in the store: room is kept for their rows, which are made when somebody looks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mycel import abi
from mycel.api import flow_pb2 as pb
from mycel.flow.l7 import End, Half, Http, L7Record, L7Verdict
from mycel.model.address import format_address
from mycel.observe import pipeline as pipeline_module
from mycel.observe.pipeline import FlowPipeline
from tests.unit.flow.samples import CLIENT, ECHO, WALL_NS, Names, event, events
from tests.unit.observe.test_reader import Following, answer, query
from tests.unit.observe.test_reader import ports as ports_of


class Log:
    """A sheet of requests, by the port of each client; counts how often it is read."""

    def __init__(self, *ports: int, size: int = 100, of: int | None = None) -> None:
        self.forwarded = len(ports) if of is None else of
        self.dropped = 0
        self.size = size
        self.read = 0
        self._ports = ports

    def records(self) -> list[L7Record]:
        """One per port."""
        self.read += 1
        if not self._ports:
            raise ValueError("nothing to be read")
        ends = [End(format_address(CLIENT), port) for port in self._ports]
        http = Http("GET", "http://echo/", "HTTP/1.1")
        return [
            L7Record(
                WALL_NS, Half.REQUEST, L7Verdict.FORWARDED, end, End(format_address(ECHO), 8080), "TCP", 1, http=http
            )
            for end in ends
        ]


def piped(capacity: int = 15, refuse: Any = pytest.fail) -> FlowPipeline:
    """A small one."""
    return FlowPipeline(Names(), node_name="n1", capacity=capacity, refuse=refuse)


async def ports(pipeline: FlowPipeline, **asked: Any) -> list[int]:
    """The clients' ports of what a query finds."""
    return ports_of(await answer(pipeline.store, query(**asked)))


async def test_rows_are_made_where_they_were_when_somebody_reads() -> None:
    """Once, among the rows around them, with names and all."""
    pipeline, log = piped(), Log(2, 3)
    pipeline.feed(events(event(source_port=1)))
    pipeline.feed_sheet(log)
    pipeline.feed(events(event(source_port=4)))
    assert log.read == 0
    assert await ports(pipeline) == [1, 2, 3, 4]
    assert await ports(pipeline, number=3) == [2, 3, 4]
    assert log.read == 1
    (flow,) = [each.flow for each in await answer(pipeline.store, query(number=2, first=True))][1:]
    assert (flow.Type, flow.source.pod_name, flow.l7.http.url) == (pb.L7, "client-5d", "http://echo/")
    assert pipeline.store.unread_bytes == 0


async def test_what_was_overwritten_is_never_read() -> None:
    """But counted: in the statistics, and in metrics by their verdict."""
    pipeline, logs = piped(), [Log(number, number) for number in range(20)]
    for log in logs:
        pipeline.feed_sheet(log)
    assert await ports(pipeline) == [12, *(number for number in range(13, 20) for _ in range(2))]
    assert [log.read for log in logs] == [0] * 12 + [1] * 8
    assert pipeline.store.statistics().seen == 40
    assert 'type="L7",verdict="FORWARDED"} 40' in pipeline.metrics.render()


async def test_a_reader_that_follows_gets_them_as_they_come() -> None:
    """The first as well as the next."""
    pipeline = piped()
    following = Following(pipeline.store, query(follow=True))
    assert await following.settle() == []
    pipeline.feed_sheet(Log(1))
    assert await following.settle() == [1]
    pipeline.feed_sheet(Log(2, 3))
    assert await following.settle() == [1, 2, 3]
    await following.stop()


async def test_what_nobody_reads_is_made_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part at a time, the oldest first, once no more comes than that."""
    monkeypatch.setattr(pipeline_module, "_SETTLE_S", 0.0)
    monkeypatch.setattr(pipeline_module, "_SETTLED", 2)
    pipeline, logs = piped(), [Log(1), Log(2, 3), Log(4), Log(5, 6)]
    for log in logs:
        pipeline.feed_sheet(log)
    seen: list[list[int]] = []
    for _ in range(4):
        await asyncio.sleep(0)
        seen.append([log.read for log in logs])
    assert seen == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]


async def test_bytes_that_wait_to_be_read_are_bounded() -> None:
    """The oldest are made rows, which are shorter."""
    pipeline = piped(capacity=10_000)
    for number in range(100):
        pipeline.feed_sheet(Log(number, size=1 << 20))
    assert pipeline.store.unread_bytes <= 32 << 20
    assert await ports(pipeline) == list(range(100))


async def test_what_cannot_be_read_is_no_flow() -> None:
    """Where more was counted than is there, nothing is shown, and the rest is."""
    refused: list[str] = []
    pipeline = piped(refuse=refused.append)
    for log in (Log(1), Log(of=2), Log(2, of=3), Log(70_000, of=1), Log(3)):
        pipeline.feed_sheet(log)
    assert await ports(pipeline) == [1, 2, 3]
    assert await ports(pipeline, number=2) == [2, 3]
    assert refused == ["nothing to be read", "its source port 70000 does not fit"]
    assert abi.EventKind.DROP not in pipeline.store.read(0, 15).rows["event"]["kind"]
