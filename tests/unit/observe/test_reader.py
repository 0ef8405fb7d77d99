"""Which flows a request gets, and when it ends."""

import asyncio
from typing import Any

import pytest

from mycel.api import flow_pb2 as pb
from mycel.api import observer_pb2
from mycel.observe import reader as reader_module
from mycel.observe.pipeline import FlowPipeline
from mycel.observe.reader import FlowQuery, FlowReader
from mycel.observe.store import FlowStore
from tests.unit.flow.samples import Names, event, events
from tests.unit.flow.test_kinds import parse_frames

SECOND_NS = 1_000_000_000


@pytest.fixture
def pipeline() -> FlowPipeline:
    """Twenty flows, one per second from second 100 on, ports 0 to 19; every fourth dropped."""
    made = FlowPipeline(Names(), node_name="n1", capacity=16)
    made._wall_offset_ns = lambda: 0  # type: ignore[method-assign]
    made.feed(events(*(numbered(port) for port in range(20))))
    return made


def numbered(port: int) -> Any:
    """The flow of a port, at its second."""
    kind = {"kind": 1, "sub_type": 133, "verdict": 2} if port % 4 == 0 else {}
    return event(time_ns=(100 + port) * SECOND_NS, source_port=port, **kind)


def query(**fields: Any) -> FlowQuery:
    """A request, parsed; since and until in seconds."""
    request = observer_pb2.GetFlowsRequest()
    for name in ("since", "until"):
        if name in fields:
            getattr(request, name).FromSeconds(fields.pop(name))
    request.MergeFrom(observer_pb2.GetFlowsRequest(**fields))
    return FlowQuery.parse(request)


def ports(responses: list[observer_pb2.GetFlowsResponse]) -> list[int]:
    """Ports of the flows among responses."""
    return [response.flow.l4.TCP.source_port for response in responses if response.HasField("flow")]


async def answer(store: FlowStore, asked: FlowQuery) -> list[observer_pb2.GetFlowsResponse]:
    """Everything a query that ends gets."""
    return [response async for frames in FlowReader(store, asked).frames() for response in parse_frames(frames)]


DROPPED = pb.FlowFilter(verdict=[pb.DROPPED])
HELD = list(range(4, 20))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, HELD),
        ({"number": 3}, [17, 18, 19]),
        ({"number": 2**64 - 1}, HELD),
        ({"number": 99}, HELD),
        ({"number": 3, "first": True}, [4, 5, 6]),
        ({"first": True}, HELD),
        ({"number": 2, "whitelist": [DROPPED]}, [12, 16]),
        ({"number": 2, "first": True, "whitelist": [DROPPED]}, [4, 8]),
        ({"number": 2, "blacklist": [DROPPED]}, [18, 19]),
        ({"since": 117}, [17, 18, 19]),
        ({"until": 105}, [4, 5]),
        ({"since": 110, "until": 112}, [10, 11, 12]),
        ({"since": 110, "number": 2}, [10, 11]),  # since decides where to begin
        ({"until": 110, "number": 2}, [9, 10]),
        ({"since": 500}, []),
        ({"whitelist": [pb.FlowFilter(source_port=["7"])]}, [7]),
    ],
)
@pytest.mark.parametrize("chunk", [1, 3, 1024])
async def test_history(
    pipeline: FlowPipeline, monkeypatch: pytest.MonkeyPatch, chunk: int, asked: dict[str, Any], expected: list[int]
) -> None:
    """Queries that end, whatever the size of the pieces they are read in."""
    monkeypatch.setattr(reader_module, "CHUNK", chunk)
    assert expected == ports(await answer(pipeline.store, query(**asked)))


class Following:
    """A reader that runs beside the test."""

    def __init__(self, store: FlowStore, asked: FlowQuery) -> None:
        self.got: list[observer_pb2.GetFlowsResponse] = []
        self._reader = FlowReader(store, asked)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for frames in self._reader.frames():
            self.got += parse_frames(frames)

    async def settle(self) -> list[int]:
        """Ports so far, when nothing more comes."""
        for _ in range(20):
            await asyncio.sleep(0)
        return ports(self.got)

    async def stop(self) -> None:
        """Leave, as a client does."""
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def test_follow_starts_with_what_comes(pipeline: FlowPipeline) -> None:
    """Without number and since nothing old is told."""
    following = Following(pipeline.store, query(follow=True))
    assert await following.settle() == []
    pipeline.feed(events(numbered(20), numbered(21)))
    assert await following.settle() == [20, 21]
    pipeline.feed(events(numbered(22)))
    assert await following.settle() == [20, 21, 22]
    await following.stop()


async def test_follow_after_the_last_ones(pipeline: FlowPipeline) -> None:
    """A number of old flows, then everything that passes; the number does not end it."""
    following = Following(pipeline.store, query(follow=True, number=2, whitelist=[DROPPED]))
    assert await following.settle() == [12, 16]
    pipeline.feed(events(*(numbered(port) for port in range(20, 30))))
    assert await following.settle() == [12, 16, 20, 24, 28]
    await following.stop()


async def test_follow_until(pipeline: FlowPipeline) -> None:
    """A stream with an end in the past ends by itself."""
    following = Following(pipeline.store, query(follow=True, number=1, until=119))
    await asyncio.wait_for(following.task, 60)
    assert ports(following.got) == [19]


async def test_slow_reader_is_told_what_it_missed(pipeline: FlowPipeline) -> None:
    """Delivered and lost add up to what was written, and the loss is one message."""
    reader = FlowReader(pipeline.store, query(follow=True))
    frames = reader.frames()
    for port in range(20, 100):
        pipeline.feed(events(numbered(port)))
    got: list[observer_pb2.GetFlowsResponse] = []
    while len(ports(got)) < 16:
        got += parse_frames(await anext(frames))
    await frames.aclose()
    lost = [response.lost_events for response in got if response.HasField("lost_events")]
    assert [each.num_events_lost for each in lost] == [80 - 16]
    assert lost[0].source == pb.HUBBLE_RING_BUFFER
    assert ports(got) == list(range(84, 100))


async def test_kernel_loss_is_told_once_per_window(pipeline: FlowPipeline) -> None:
    """Many losses on one CPU are one message with their sum."""
    following = Following(pipeline.store, query(follow=True, whitelist=[DROPPED]))
    await following.settle()
    pipeline.lost(5, cpu=1)
    pipeline.lost(7, cpu=1)
    while not following.got:
        await asyncio.sleep(0.001)
    (lost,) = (response.lost_events for response in following.got)
    assert (lost.num_events_lost, lost.cpu.value, lost.source) == (12, 1, pb.PERF_EVENT_RING_BUFFER)
    assert following.got[0].node_name == "default/n1"
    await following.stop()


async def test_names_survive_a_clean_up(pipeline: FlowPipeline) -> None:
    """Forgetting unused records does not rename flows that are held."""
    before = await answer(pipeline.store, query())
    pipeline.store.forget_unused_records()
    assert before == await answer(pipeline.store, query())
