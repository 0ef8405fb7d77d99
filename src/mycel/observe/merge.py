"""Flows of many nodes as one stream in the order of time, as a relay does it.

Answers that end are merged exactly: a flow is passed on when every stream has shown its next one. Streams
that follow cannot wait for a silent node, so a flow is held back for a moment and passed on with what came
in meanwhile.
"""

import asyncio
import heapq
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

from mycel.api import observer_pb2, relay_pb2

Response = observer_pb2.GetFlowsResponse
Explain = Callable[[Exception], str]

WINDOW_S = 0.3
"""How long a followed flow is held back: longer than events take from kernel to store (0.1 s)."""

_QUEUED = 1024


def node_status(state: relay_pb2.NodeState, names: list[str], message: str = "") -> Response:
    """A response that tells of nodes instead of flows."""
    response = Response()
    response.node_status.state_change = state
    response.node_status.node_names.extend(names)
    response.node_status.message = message
    response.time.GetCurrentTime()
    return response


def _time_ns(response: Response) -> int:
    return response.time.seconds * 1_000_000_000 + response.time.nanos


async def _pump(
    name: str,
    stream: AsyncGenerator[Response],
    put: Callable[[Response | None], Awaitable[None]],
    explain: Explain,
) -> None:
    """Pass a stream on; a failure becomes a node status, the end becomes None."""
    try:
        async with aclosing(stream):
            async for response in stream:
                await put(response)
    except Exception as problem:  # one node's failure must not end the others' streams
        await put(node_status(relay_pb2.NODE_ERROR, [name], explain(problem)))
    await put(None)


@asynccontextmanager
async def _stopped(pumps: list[asyncio.Task[None]]) -> AsyncGenerator[None]:
    """Ends the pumps with the block. No TaskGroup: it would turn the closing of a generator into an error."""
    try:
        yield
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def merge_answers(
    streams: Mapping[str, AsyncGenerator[Response]], *, explain: Explain = str
) -> AsyncGenerator[Response]:
    """Merge streams that end, each in the order of time."""
    queues: dict[str, asyncio.Queue[Response | None]] = {name: asyncio.Queue(_QUEUED) for name in streams}
    pumps = [
        asyncio.create_task(_pump(name, stream, queues[name].put, explain), name=f"flows of {name}")
        for name, stream in streams.items()
    ]
    async with _stopped(pumps):
        heap: list[tuple[int, str, Response]] = []
        for name, queue in queues.items():
            if (first := await queue.get()) is not None:
                heap.append((_time_ns(first), name, first))
        heapq.heapify(heap)
        while heap:
            _, name, response = heap[0]
            yield response
            following = await queues[name].get()
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (_time_ns(following), name, following))


async def merge_followed(
    streams: Mapping[str, AsyncGenerator[Response]], *, window_s: float = WINDOW_S, explain: Explain = str
) -> AsyncGenerator[Response]:
    """Merge streams that go on, nearly in the order of time; ends when all have ended."""
    arrivals: asyncio.Queue[Response | None] = asyncio.Queue(_QUEUED)
    loop = asyncio.get_running_loop()
    pumps = [
        asyncio.create_task(_pump(name, stream, arrivals.put, explain), name=f"flows of {name}")
        for name, stream in streams.items()
    ]
    async with _stopped(pumps):
        live, count = len(pumps), 0
        heap: list[tuple[int, int, float, Response]] = []
        while live or heap:
            # Anything that has waited long enough lets everything older than itself go first.
            due = max((entry[0] for entry in heap if entry[2] <= loop.time()), default=None)
            while heap and (not live or (due is not None and heap[0][0] <= due)):
                yield heapq.heappop(heap)[3]
            if not live:
                continue
            wait_s = min((entry[2] for entry in heap), default=None)
            try:
                async with asyncio.timeout_at(wait_s):
                    arrived = await arrivals.get()
            except TimeoutError:
                continue
            while True:
                if arrived is None:
                    live -= 1
                else:
                    count += 1
                    heapq.heappush(heap, (_time_ns(arrived), count, loop.time() + window_s, arrived))
                if arrivals.empty() or len(heap) >= _QUEUED:
                    break
                arrived = arrivals.get_nowait()


async def merge(
    streams: Mapping[str, AsyncGenerator[Response]], *, follow: bool, explain: Explain = str
) -> AsyncGenerator[Response]:
    """One stream of many; a single stream is passed on as it is."""
    merged = merge_followed(streams, explain=explain) if follow else merge_answers(streams, explain=explain)
    async with aclosing(merged):
        async for response in merged:
            yield response
