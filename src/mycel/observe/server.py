"""The Observer, Peer and Health services over one flow store, on a unix socket of mode 0600.

Flows are sent as runs of ready frames rather than message by message: one HTTP/2 write carries many flows,
and a reader that does not keep up blocks only itself (the store goes on; what it misses is counted and
told).
"""

import asyncio
import socket
import stat
from pathlib import Path
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from mycel.api import health_pb2, observer_pb2, peer_pb2, relay_pb2
from mycel.api.health_grpc import HealthBase
from mycel.api.observer_grpc import ObserverBase
from mycel.api.peer_grpc import PeerBase
from mycel.flow.errors import FilterError
from mycel.observe.peers import Peers
from mycel.observe.reader import FlowQuery, FlowReader
from mycel.observe.store import FlowStore

_MOST_READERS = 256
_SERVICES = ("", "hubble.server.Observer", "observer.Observer", "peer.Peer")


async def send_frames(stream: Stream[Any, Any], frames: bytes) -> None:
    """Send complete gRPC frames as they are: grpclib has no public call, so its HTTP/2 stream is used."""
    await stream._stream.send_data(frames)  # pyright: ignore[reportPrivateUsage]


class Observer(ObserverBase):
    """observer.Observer of one node."""

    def __init__(self, store: FlowStore, *, version: str) -> None:
        self._store = store
        self._version = version
        self._readers = 0

    async def GetFlows(self, stream: Stream[observer_pb2.GetFlowsRequest, observer_pb2.GetFlowsResponse]) -> None:
        request = await _request(stream)
        if self._readers >= _MOST_READERS:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{_MOST_READERS} clients read flows already")
        try:
            query = FlowQuery.parse(request)
        except FilterError as problem:
            raise GRPCError(Status.INVALID_ARGUMENT, str(problem)) from problem
        self._readers += 1
        try:
            reader = FlowReader(self._store, query)
            await stream.send_initial_metadata()
            async for frames in reader.frames():
                await send_frames(stream, frames)
                await asyncio.sleep(0)  # a long history must not hold up the ring's reader
        finally:
            self._readers -= 1

    async def GetAgentEvents(
        self, stream: Stream[observer_pb2.GetAgentEventsRequest, observer_pb2.GetAgentEventsResponse]
    ) -> None:
        await _nothing(stream, follow=(await _request(stream)).follow)

    async def GetDebugEvents(
        self, stream: Stream[observer_pb2.GetDebugEventsRequest, observer_pb2.GetDebugEventsResponse]
    ) -> None:
        await _nothing(stream, follow=(await _request(stream)).follow)

    async def GetNodes(self, stream: Stream[observer_pb2.GetNodesRequest, observer_pb2.GetNodesResponse]) -> None:
        statistics = self._store.statistics()
        node = observer_pb2.Node(
            name=self._store.node_name,
            version=self._version,
            state=relay_pb2.NODE_CONNECTED,
            uptime_ns=statistics.uptime_ns,
            num_flows=statistics.held,
            max_flows=statistics.capacity,
            seen_flows=statistics.seen,
        )
        node.tls.enabled = False
        await stream.send_message(observer_pb2.GetNodesResponse(nodes=[node]))

    async def GetNamespaces(
        self, stream: Stream[observer_pb2.GetNamespacesRequest, observer_pb2.GetNamespacesResponse]
    ) -> None:
        response = observer_pb2.GetNamespacesResponse()
        for cluster, namespace in self._store.namespaces.recent():
            response.namespaces.add(cluster=cluster, namespace=namespace)
        await stream.send_message(response)

    async def ServerStatus(
        self, stream: Stream[observer_pb2.ServerStatusRequest, observer_pb2.ServerStatusResponse]
    ) -> None:
        statistics = self._store.statistics()
        response = observer_pb2.ServerStatusResponse(
            num_flows=statistics.held,
            max_flows=statistics.capacity,
            seen_flows=statistics.seen,
            uptime_ns=statistics.uptime_ns,
            version=self._version,
            flows_rate=statistics.rate,
        )
        response.num_connected_nodes.value = 1
        response.num_unavailable_nodes.value = 0
        await stream.send_message(response)


class PeerService(PeerBase):
    """peer.Peer over a set of peers."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def Notify(self, stream: Stream[peer_pb2.NotifyRequest, peer_pb2.ChangeNotification]) -> None:
        await stream.send_initial_metadata()
        async for notification in self._peers.watch():
            await stream.send_message(notification)


class Health(HealthBase):
    """grpc.health.v1: a process that answers serves."""

    async def Check(self, stream: Stream[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]) -> None:
        request = await _request(stream)
        if request.service not in _SERVICES:
            raise GRPCError(Status.NOT_FOUND, f"no service {request.service}: ask for one of {_SERVICES[1:]}")
        await stream.send_message(_serving())

    async def Watch(self, stream: Stream[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]) -> None:
        await stream.send_message(_serving())
        await asyncio.Event().wait()  # until the client goes: the state does not change


def _serving() -> health_pb2.HealthCheckResponse:
    return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


async def _request(stream: Stream[Any, Any]) -> Any:
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "the call came without a request")
    return request


async def _nothing(stream: Stream[Any, Any], *, follow: bool) -> None:
    """A stream without events; one that follows stays until the client goes."""
    await stream.send_initial_metadata()
    if follow:
        await asyncio.Event().wait()


class FlowServer:
    """A running server; close it with `aclose`."""

    def __init__(self, server: Server, path: Path) -> None:
        self._server = server
        self._path = path

    async def aclose(self) -> None:
        """Stop serving: open streams end, the socket's file goes."""
        self._server.close()
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)


async def serve(path: str | Path, store: FlowStore, *, peers: Peers | None = None, version: str = "") -> FlowServer:
    """Serve on a unix socket that only its owner may open; one that an earlier process left is replaced."""
    path = Path(path)
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)  # before listen(), so nobody gets in between
        server = Server([Observer(store, version=version), PeerService(peers or Peers()), Health()])
        await server.start(sock=listener)
    except BaseException:
        listener.close()
        raise
    return FlowServer(server, path)
