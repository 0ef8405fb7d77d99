"""Many nodes' flows as one stream."""

import asyncio
from collections.abc import AsyncGenerator

from mycel.api import observer_pb2, relay_pb2
from mycel.observe.merge import Response, merge, merge_followed


def flow(at: int, node: str) -> Response:
    """A flow of a node at a second."""
    response = observer_pb2.GetFlowsResponse(node_name=node)
    response.flow.node_name = node
    response.time.seconds = at
    return response


async def history(node: str, *times: int, fails: bool = False) -> AsyncGenerator[Response]:
    """A node's answer."""
    for at in times:
        await asyncio.sleep(0)
        yield flow(at, node)
    if fails:
        raise ConnectionError("gone")


def told(responses: list[Response]) -> list[tuple[int, str]]:
    """Second and node of the flows."""
    return [(response.time.seconds, response.node_name) for response in responses if response.HasField("flow")]


async def test_answers_are_merged_in_the_order_of_time() -> None:
    """A node with little and a node with nothing do not hold up the others."""
    streams = {"a": history("a", 1, 4, 5), "b": history("b", 2, 3, 9), "c": history("c")}
    merged = [response async for response in merge(streams, follow=False)]
    assert told(merged) == [(1, "a"), (2, "b"), (3, "b"), (4, "a"), (5, "a"), (9, "b")]


async def test_failure_of_one_node_is_told() -> None:
    """The others' flows come all the same."""
    streams = {"a": history("a", 1, 2), "b": history("b", 1, fails=True)}
    merged = [response async for response in merge(streams, follow=False)]
    assert told(merged) == [(1, "a"), (1, "b"), (2, "a")]
    (status,) = (response.node_status for response in merged if response.HasField("node_status"))
    assert (status.state_change, list(status.node_names), status.message) == (relay_pb2.NODE_ERROR, ["b"], "gone")


async def test_followed_streams_wait_for_each_other_a_moment() -> None:
    """What comes from several nodes within the window is put in order; a silent node holds nothing up."""
    come = asyncio.Event()

    async def late(node: str, *times: int) -> AsyncGenerator[Response]:
        await come.wait()
        for at in times:
            yield flow(at, node)

    async def silent() -> AsyncGenerator[Response]:
        await asyncio.Event().wait()
        yield flow(0, "silent")

    streams = {"a": late("a", 2, 4), "b": late("b", 1, 3), "c": silent()}
    merged = merge_followed(streams, window_s=0.02)
    come.set()
    got = [await anext(merged) for _ in range(4)]
    await merged.aclose()
    assert told(got) == [(1, "b"), (2, "a"), (3, "b"), (4, "a")]


async def test_followed_streams_end_when_all_have_ended() -> None:
    """A stream with an end, followed, ends."""
    merged = [response async for response in merge({"a": history("a", 1), "b": history("b", 2)}, follow=True)]
    assert sorted(told(merged)) == [(1, "a"), (2, "b")]
