"""The services on a unix socket, asked by a gRPC client."""

import asyncio
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from mycel.api import flow_pb2 as pb
from mycel.api import health_pb2, observer_pb2, peer_pb2, relay_pb2
from mycel.observe.client import ObserverClient, connect, connect_stream
from mycel.observe.peers import Peer, Peers
from mycel.observe.pipeline import FlowPipeline
from mycel.observe.server import serve
from tests.unit.flow.samples import Names, event, events

DIAL = (sys.executable, "-m", "mycel.observe.dial")
PEERS = Peers({"n1": Peer("n1", "172.18.0.2:4244")})


@pytest.fixture
async def pipeline() -> FlowPipeline:
    """Thirty flows."""
    made = FlowPipeline(Names(), node_name="n1", capacity=4095)
    made.feed(events(*(event(time_ns=port, source_port=port) for port in range(30))))
    return made


@pytest.fixture
async def client(pipeline: FlowPipeline, tmp_path: Path) -> AsyncIterator[ObserverClient]:
    """A client of a running server."""
    path = tmp_path / "hubble.sock"
    server = await serve(path, pipeline.store, peers=PEERS, version="v1.19.4")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with connect(f"unix://{path}") as connected:
        yield connected
    await server.aclose()
    assert not path.exists()


async def test_flows(client: ObserverClient) -> None:
    """Frames written by hand are read by an ordinary client."""
    found = await client.observer.GetFlows(observer_pb2.GetFlowsRequest(number=20))
    assert list(range(10, 30)) == [response.flow.l4.TCP.source_port for response in found]
    assert {"default/n1"} == {response.node_name for response in found}


async def test_health(client: ObserverClient) -> None:
    """The stock client asks for this name first; others do not exist."""
    asked = health_pb2.HealthCheckRequest(service="hubble.server.Observer")
    assert (await client.health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(GRPCError) as refused:
        await client.health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert refused.value.status == Status.NOT_FOUND


async def test_status(client: ObserverClient) -> None:
    """Counts, one node, a version."""
    status = await client.observer.ServerStatus(observer_pb2.ServerStatusRequest())
    assert (status.num_flows, status.max_flows, status.seen_flows, status.version) == (30, 4095, 30, "v1.19.4")
    assert (status.num_connected_nodes.value, status.num_unavailable_nodes.value) == (1, 0)
    assert status.HasField("num_unavailable_nodes")


async def test_nodes_and_namespaces(client: ObserverClient) -> None:
    """This node; the namespaces of its flows."""
    (node,) = (await client.observer.GetNodes(observer_pb2.GetNodesRequest())).nodes
    assert (node.name, node.state, node.num_flows) == ("default/n1", relay_pb2.NODE_CONNECTED, 30)
    found = (await client.observer.GetNamespaces(observer_pb2.GetNamespacesRequest())).namespaces
    assert [(each.cluster, each.namespace) for each in found] == [("default", "shop")]


async def test_bad_filter(client: ObserverClient) -> None:
    """The client is told which field it got wrong."""
    with pytest.raises(GRPCError, match="source_ip") as refused:
        request = observer_pb2.GetFlowsRequest(whitelist=[pb.FlowFilter(source_ip=["x"])])
        await client.observer.GetFlows(request)
    assert refused.value.status == Status.INVALID_ARGUMENT


async def test_field_mask_is_a_hint(client: ObserverClient) -> None:
    """The stock client's mask leaves out fields that it prints: they come all the same."""
    request = observer_pb2.GetFlowsRequest(number=1)
    request.field_mask.paths.extend(["time", "IP"])
    (response,) = await client.observer.GetFlows(request)
    assert response.flow.traffic_direction == pb.INGRESS


async def test_follow_and_leave(client: ObserverClient, pipeline: FlowPipeline) -> None:
    """A followed stream delivers at once and ends when the client leaves."""
    async with client.observer.GetFlows.open() as stream:
        await stream.send_message(observer_pb2.GetFlowsRequest(follow=True), end=True)
        await stream.recv_initial_metadata()
        pipeline.feed(events(event(source_port=99)))
        response = await asyncio.wait_for(stream.recv_message(), 60)
        assert response is not None
        assert response.flow.l4.TCP.source_port == 99
        await stream.cancel()


async def test_streams_without_events(client: ObserverClient) -> None:
    """Agent and debug events exist, and are none."""
    assert await client.observer.GetAgentEvents(observer_pb2.GetAgentEventsRequest()) == []
    assert await client.observer.GetDebugEvents(observer_pb2.GetDebugEventsRequest()) == []


async def test_peers(client: ObserverClient) -> None:
    """First all peers, then changes."""
    async with client.peer.Notify.open() as stream:
        await stream.send_message(peer_pb2.NotifyRequest(), end=True)
        first = await asyncio.wait_for(stream.recv_message(), 60)
        assert first is not None
        assert (first.name, first.address, first.type) == ("n1", "172.18.0.2:4244", peer_pb2.PEER_ADDED)
        PEERS.replace({"n1": Peer("n1", "172.18.0.9:4244"), "n2": Peer("n2", "172.18.0.3:4244", "n2.example")})
        changed = [await asyncio.wait_for(stream.recv_message(), 60) for _ in range(2)]
        assert [each and each.type for each in changed] == [peer_pb2.PEER_UPDATED, peer_pb2.PEER_ADDED]
        await stream.cancel()
    PEERS.replace({"n1": Peer("n1", "172.18.0.2:4244")})


async def test_stale_socket_is_replaced(pipeline: FlowPipeline, tmp_path: Path) -> None:
    """An agent that was killed leaves its socket behind."""
    path = tmp_path / "hubble.sock"
    first = await serve(path, pipeline.store)
    second = await serve(path, pipeline.store)
    async with connect(f"unix://{path}") as client:
        assert await client.observer.GetFlows(observer_pb2.GetFlowsRequest(number=1))
    await second.aclose()
    await first.aclose()


class Process:
    """A subprocess as a byte stream."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin and process.stdout
        self._stdin, self._stdout = process.stdin, process.stdout

    async def read(self) -> bytes:
        return await self._stdout.read(65_536)

    async def write(self, data: bytes) -> None:
        self._stdin.write(data)
        await self._stdin.drain()


async def test_flows_over_a_pipe(pipeline: FlowPipeline, tmp_path: Path) -> None:
    """hubble-dial carries gRPC over standard input and output, as it does over exec."""
    path = tmp_path / "hubble.sock"
    server = await serve(path, pipeline.store)
    process = await asyncio.create_subprocess_exec(
        *DIAL,
        str(path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    async with connect_stream(Process(process), target="n1") as client:
        found = await client.observer.GetFlows(observer_pb2.GetFlowsRequest(number=30))
        assert len(found) == 30
    assert process.stdin
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 60) == 0
    await server.aclose()


async def test_dial_without_a_server(tmp_path: Path) -> None:
    """Nobody listening is a sentence and an exit code."""
    process = await asyncio.create_subprocess_exec(*DIAL, str(tmp_path / "none"), stderr=asyncio.subprocess.PIPE)
    _, complaint = await process.communicate()
    assert process.returncode == 1
    assert b"is the agent of this node ready?" in complaint
