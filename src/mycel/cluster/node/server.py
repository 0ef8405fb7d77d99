"""The node's port 10250: exec, attach, port-forward, logs, for the API server alone.

TLS with the cluster's CA; who cannot show the API server's client certificate is refused, `/healthz` included.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path
from typing import Any

from mycel.cluster.node import command, http, logs, remote, sandbox, settings, websocket
from mycel.cluster.node.heartbeat import KUBELET_PORT
from mycel.cluster.node.http import BadRequest, Request
from mycel.cluster.node.manager import Manager
from mycel.cluster.node.names import ContainerId, PodKey
from mycel.cluster.node.pods import Pod
from mycel.cluster.node.portforward import Forwarder, messages
from mycel.cluster.node.remote import SpdyChannel, Stream, WebSocketChannel
from mycel.cluster.node.settings import NodeSettings
from mycel.cluster.node.state import ContainerState

log = logging.getLogger(__name__)
_CLIENT = "kube-apiserver-kubelet-client"
_EXEC_SPDY = ("v4.channel.k8s.io",)
_EXEC_WEBSOCKET = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_FORWARD_SPDY = "portforward.k8s.io"
_FORWARD_WEBSOCKET = "SPDY/3.1+portforward.k8s.io"


class Server:
    """Serves the pods of one manager."""

    def __init__(self, node: NodeSettings, manager: Manager) -> None:
        self._node = node
        self._manager = manager

    async def run(self) -> None:
        """Until cancelled."""
        server = await asyncio.start_server(
            self._connected, self._node.address, KUBELET_PORT, ssl=_tls(settings.CONFIG), limit=256 << 10
        )
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await http.read_request(reader)
            if request is not None:
                _check_client(writer)
                await self._route(request, reader, writer)
        except BadRequest as exc:
            writer.write(http.answer(exc.status, str(exc)))
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                writer.close()
                async with asyncio.timeout(2):
                    await writer.wait_closed()

    async def _route(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match request.path:
            case ("healthz",):
                writer.write(http.answer(200, "ok"))
            case ("containerLogs", namespace, name, container):
                await self._logs(request, writer, self._pod(namespace, name), container)
            case ("exec" | "attach" as verb, namespace, name, container):
                pod = self._pod(namespace, name)
                await self._command(verb, request, reader, writer, pod, container)
            case ("portForward", namespace, name):
                await self._forward(request, reader, writer, self._pod(namespace, name))
            case _:
                raise BadRequest("/" + "/".join(request.path) + " is not served here", 404)

    def _pod(self, namespace: str, name: str) -> Pod:
        pod = self._manager.find(PodKey(namespace, name))
        if pod is None:
            raise BadRequest(f"pod {namespace}/{name} is not on node {self._node.name}", 404)
        return pod

    async def _logs(self, request: Request, writer: asyncio.StreamWriter, pod: Pod, container: str) -> None:
        wanted = logs.options(request)
        previous = request.flag("previous")
        held = pod.state.containers.get(container)
        path = pod.container_log(container, previous=previous)
        if held is None or path is None or not path.exists():
            if previous and held is not None:
                text = f'previous terminated container "{container}" in pod "{pod.key.name}" not found'
                raise BadRequest(text, 400)
            reason = (held.message or held.waiting) if held else "ContainerCreating"
            text = f'container "{container}" in pod "{pod.key.name}" is waiting to start: {reason}'
            raise BadRequest(text, 400)
        run = held.container
        headers = {"Content-Type": "text/plain", "Transfer-Encoding": "chunked", "Connection": "close"}
        writer.write(http.head(200, headers))
        await writer.drain()
        async for data in logs.stream(path, wanted, ended=lambda: held.container != run or not held.running):
            writer.write(http.chunk(data))
            await writer.drain()
        writer.write(http.chunk(b""))
        await writer.drain()

    async def _command(
        self,
        verb: str,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pod: Pod,
        container: str,
    ) -> None:
        held = _running(pod, container)
        stdin, tty = request.flag("stdin", "input"), request.flag("tty")
        words = request.query.get("command") or []
        if verb == "exec" and not words:
            raise BadRequest("you must specify at least 1 command for the container")
        wanted = {Stream.ERROR}
        wanted |= {Stream.STDIN} if stdin else set()
        wanted |= {Stream.STDOUT} if request.flag("stdout", "output") else set()
        wanted |= {Stream.STDERR} if request.flag("stderr", "error") and not tty else set()
        wanted |= {Stream.RESIZE} if tty else set()
        channel = await _channel(request, reader, writer, wanted)
        async with remote.reading(channel):
            if isinstance(channel, SpdyChannel):
                try:
                    await channel.wait_streams()
                except TimeoutError:
                    return
            identity = ContainerId(held.container)
            try:
                if verb == "exec":
                    await command.run_exec(identity, words, channel, stdin=stdin, tty=tty)
                else:
                    await command.run_attach(identity, channel, stdin=stdin, tty=tty)
            except OSError as exc:
                await channel.finish(remote.failed(f"{verb} in container {container}: {exc}"))

    async def _forward(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pod: Pod
    ) -> None:
        if not pod.state.sandbox:
            raise BadRequest(f"unable to forward port because pod {pod.key} is not running", 400)
        netns = None if pod.pod["spec"].get("hostNetwork") else sandbox.netns_path(pod.uid)
        upgrade = request.header("upgrade").lower()
        if upgrade == "websocket":
            if _FORWARD_WEBSOCKET not in request.listed("sec-websocket-protocol"):
                raise BadRequest(f"port-forward over WebSocket needs the subprotocol {_FORWARD_WEBSOCKET}")
            writer.write(_websocket_head(request, _FORWARD_WEBSOCKET))
            incoming = messages(reader, writer)

            async def read() -> bytes:
                return await anext(incoming, b"")

            async def write(data: bytes) -> None:
                writer.write(websocket.encode(websocket.Op.BINARY, data))
                await writer.drain()

        elif upgrade == "spdy/3.1":
            headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": _FORWARD_SPDY}
            writer.write(http.head(101, headers))

            async def read() -> bytes:
                return await reader.read(65536)

            async def write(data: bytes) -> None:
                writer.write(data)
                await writer.drain()

        else:
            raise BadRequest("port-forward needs an upgrade to SPDY/3.1 or WebSocket")
        await Forwarder(netns, read, write).run()


async def _channel(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wanted: set[Stream]
) -> SpdyChannel | WebSocketChannel:
    """Answer the upgrade with the best protocol both sides speak. Raises BadRequest."""
    upgrade = request.header("upgrade").lower()
    if upgrade == "websocket":
        offered = request.listed("sec-websocket-protocol")
        chosen = next((name for name in _EXEC_WEBSOCKET if name in offered), None)
        if chosen is None:
            raise BadRequest(f"no common subprotocol: offered {', '.join(offered)}, known {', '.join(_EXEC_WEBSOCKET)}")
        writer.write(_websocket_head(request, chosen))
        return WebSocketChannel(reader, writer)
    if upgrade != "spdy/3.1":
        raise BadRequest("exec and attach need an upgrade to SPDY/3.1 or WebSocket")
    offered = request.listed("x-stream-protocol-version")
    chosen = next((name for name in _EXEC_SPDY if name in offered), None)
    if chosen is None:
        raise BadRequest(f"no common stream protocol: offered {', '.join(offered)}, known {', '.join(_EXEC_SPDY)}", 403)
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": chosen}
    writer.write(http.head(101, headers))
    return SpdyChannel(reader, writer, wanted)


def _websocket_head(request: Request, protocol: str) -> bytes:
    return http.head(
        101,
        {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Accept": websocket.accept_key(request.header("sec-websocket-key")),
            "Sec-WebSocket-Protocol": protocol,
        },
    )


def _running(pod: Pod, container: str) -> ContainerState:
    held = pod.state.containers.get(container)
    if held is None:
        raise BadRequest(f"container {container} is not in pod {pod.key}", 404)
    if not held.running:
        raise BadRequest(f"container {container} of pod {pod.key} is not running ({held.waiting or 'ended'})", 500)
    return held


def _check_client(writer: asyncio.StreamWriter) -> None:
    """Only the API server: any other certificate of the same CA (a node's, the administrator's) is refused."""
    certificate: Any = writer.get_extra_info("peercert") or {}
    names = [value for group in certificate.get("subject", ()) for key, value in group if key == "commonName"]
    if names != [_CLIENT]:
        raise BadRequest("only the API server may speak to this port", 403)


def _tls(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(folder / "kubelet.crt", folder / "kubelet.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    return context
