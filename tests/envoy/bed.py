"""A real Envoy in a network namespace of its own, fed by the rules of `mycel.envoy.delta`, and backends beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from mycel.agent.proxy import otlp
from mycel.agent.proxy.access_log import AsItIs
from mycel.envoy import delta
from mycel.envoy.messages import message_class
from mycel.envoy.request_log import Line, is_line, read_line
from mycel.envoy.resources import Snapshot, TypeUrl, Version

ROOT = Path(__file__).parents[2]
ENVOY = Path(os.environ.get("MYCEL_ENVOY", ROOT / "build/envoy/envoy/_bin/envoy"))
_DISCOVERY = "envoy.service.discovery.v3."
_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
BACKEND = """
import http.server, socketserver, sys, threading
name, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{name} {self.path} {self.client_address[0]} {self.client_address[1]}\\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
socketserver.TCPServer.allow_reuse_address = True
server = http.server.ThreadingHTTPServer((address, port), Handler)
print("up", flush=True)
server.serve_forever()
"""


class Bed:
    """One Envoy. `offer` what it is to hold; `settled` waits until it has answered for everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: dict[tuple[TypeUrl, str], delta.Outcome] = {}
        self.logs: list[bytes] = []
        self._snapshot: Snapshot = {}
        self._streams: dict[Any, tuple[delta.Stream, asyncio.Lock]] = {}
        self._changed = asyncio.Event()
        self._holder: asyncio.subprocess.Process | None = None
        self._processes: list[asyncio.subprocess.Process] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Bed]:
        """The namespace, the server and Envoy."""
        ports = "sysctl -qw net.ipv4.ip_local_port_range='16384 60999'"
        setup = f"ip link set lo up; ip address add 192.0.0.8/32 dev lo; {ports}"
        self._holder = await asyncio.create_subprocess_exec(
            "unshare", "--net", "sh", "-c", f"{setup}; echo; exec sleep 1000000", stdout=asyncio.subprocess.PIPE
        )
        assert self._holder.stdout
        await self._holder.stdout.readline()
        server = Server([self])  # type: ignore[list-item]
        await server.start(path=str(self.folder / "xds.sock"))
        try:
            await self._spawn(
                str(ENVOY),
                "-c",
                bootstrap(self.folder),
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--log-level",
                "warning",
                "--log-path",
                str(self.folder / "envoy.log"),
            )
            yield self
        finally:
            for process in [*reversed(self._processes), self._holder]:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            server.close()

    async def backend(self, name: str, address: str, port: int) -> None:
        """An HTTP server that says its name, the path, and who asked."""
        process = await self._spawn(
            sys.executable, "-c", BACKEND, name, address, str(port), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout
        assert await process.stdout.readline() == b"up\n"

    async def curl(self, *words: str) -> str:
        """What curl prints."""
        return await self.prints("curl", "-s", "--max-time", "30", *words)

    async def prints(self, *command: str) -> str:
        """What a command in the namespace prints."""
        process = await self._spawn(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        self._processes.remove(process)
        return out.decode()

    async def logged(self, count: int) -> list[Line]:
        """The first requests of the access log."""
        async with asyncio.timeout(60):
            while len(found := [each.body.string_value for log in self.logs for each in otlp.records(log)]) < count:
                self._changed.clear()
                await self._changed.wait()
        assert all(is_line(each) for each in found)
        return [read_line(each) for each in found[:count]]

    def offer(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        for stream, (state, _lock) in list(self._streams.items()):
            state.offer(snapshot)
            asyncio.get_running_loop().create_task(self._send(stream))

    async def settled(self, names: Mapping[TypeUrl, Any]) -> None:
        """Until each of these resources was taken or refused in the version offered, and Envoy listens."""

        def done() -> bool:
            return all(
                (found := self.outcomes.get((kind, name))) is not None
                and found.version == self._snapshot[kind][name].version
                for kind, by_name in names.items()
                for name in by_name
            )

        async with asyncio.timeout(60):
            while not done():
                self._changed.clear()
                await self._changed.wait()
            while not await self._listens():
                await asyncio.sleep(0.02)

    async def _listens(self) -> bool:
        """Whether its workers run and no listener waits for something else that it needs."""
        wanted = {"listener_manager.workers_started": 1, "listener_manager.total_listeners_warming": 0}
        place = "http://envoy/stats?format=json&filter=^listener_manager.(workers|total)"
        said = json.loads(await self.curl("--unix-socket", str(self.folder / "admin.sock"), place))
        return wanted.items() <= {each["name"]: each["value"] for each in said["stats"] if "value" in each}.items()

    # What grpclib asks of a service.
    def __mapping__(self) -> dict[str, Handler]:
        return {
            _METHOD: Handler(
                self._stream,
                Cardinality.STREAM_STREAM,
                message_class(_DISCOVERY + "DeltaDiscoveryRequest"),
                message_class(_DISCOVERY + "DeltaDiscoveryResponse"),
            ),
            otlp.EXPORT: Handler(self._log, Cardinality.UNARY_UNARY, AsItIs, Empty),
        }

    async def _log(self, stream: Stream[Any, Any]) -> None:
        self.logs.append(await stream.recv_message())
        await stream.send_message(Empty())
        self._changed.set()

    async def _stream(self, stream: Stream[Any, Any]) -> None:
        state = delta.Stream(self._snapshot)
        self._streams[stream] = state, asyncio.Lock()
        try:
            async for request in stream:
                error = request.error_detail.message if request.HasField("error_detail") else None
                versions = {name: Version(version) for name, version in request.initial_resource_versions.items()}
                taken = state.receive(
                    delta.Request(
                        TypeUrl(request.type_url),
                        tuple(request.resource_names_subscribe),
                        tuple(request.resource_names_unsubscribe),
                        versions,
                        request.response_nonce,
                        error,
                    )
                )
                for each in taken:
                    self.outcomes[(each.type_url, each.name)] = each
                self._changed.set()
                await self._send(stream)
        finally:
            del self._streams[stream]

    async def _send(self, stream: Stream[Any, Any]) -> None:
        state, lock = self._streams[stream]
        async with lock:
            for response in state.due():
                message: Any = message_class(_DISCOVERY + "DeltaDiscoveryResponse")()
                message.type_url, message.nonce = response.type_url, response.nonce
                message.removed_resources.extend(response.removed)
                for name, resource in response.resources.items():
                    packed = message.resources.add(name=name, version=resource.version)
                    packed.resource.type_url, packed.resource.value = response.type_url, resource.body
                await stream.send_message(message)

    async def _spawn(self, *words: str, stdout: Any = None) -> asyncio.subprocess.Process:
        assert self._holder
        process = await asyncio.create_subprocess_exec(
            "nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *words, stdout=stdout
        )
        self._processes.append(process)
        return process


def bootstrap(folder: Path) -> str:
    """The page's own, with paths of this folder."""
    page = (ROOT / "docs/l7.md").read_text()
    text = next(block for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "dynamic_resources" in block)
    path = folder / "bootstrap.json"
    path.write_text(json.dumps(json.loads(text.replace("/var/run/cilium/envoy/", f"{folder}/"))))
    return str(path)
