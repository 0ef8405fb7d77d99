"""exec, attach, port-forward and logs: bytes between the client and the pod's node.

The API server ends neither SPDY nor WebSocket: it repeats the request to `https://<node>:10250` with its client
certificate and, once the node switches protocols, copies bytes both ways.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web

from mycel.cluster.apiserver import errors
from mycel.cluster.apiserver.pki import Pki
from mycel.cluster.apiserver.rest import Call
from mycel.cluster.store import ResourceId, Store

log = logging.getLogger("mycel.apiserver.tunnel")
Object = dict[str, Any]
_PORT = 10250
_CONNECT_S = 10.0
_HEAD_LIMIT = 65536
_CHUNK = 65536
_PASSED = (
    "upgrade",
    "connection",
    "x-stream-protocol-version",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "origin",
)
_PATHS = {"exec": "exec", "attach": "attach", "portforward": "portForward"}


class Tunnels:
    """Connections to nodes."""

    def __init__(self, store: Store, pki: Pki) -> None:
        self._store = store
        pair = pki.pair("apiserver-kubelet-client")
        self._tls = ssl.create_default_context(cafile=str(pki.ca_certificate))
        self._tls.load_cert_chain(pair.certificate, pair.key)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._session: aiohttp.ClientSession | None = None
        self._open: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """End every tunnel."""
        for task in tuple(self._open):
            task.cancel()
        if self._session is not None:
            await self._session.close()

    # --- where ---

    def _pod(self, call: Call) -> Object:
        record = self._store.get(ResourceId("pods"), call.target.namespace, call.target.name)
        if record is None:
            raise errors.not_found("pods", "", call.target.name)
        return record.obj

    def _node_address(self, pod: Object) -> str:
        name = pod["metadata"]["name"]
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            raise errors.bad_request(f"pod {name} does not have a host assigned")
        record = self._store.get(ResourceId("nodes"), "", node)
        if record is None:
            raise errors.not_found("nodes", "", node)
        for address in (record.obj.get("status") or {}).get("addresses") or ():
            if address.get("type") == "InternalIP":
                return str(address["address"])
        raise errors.unavailable(f"node {node} has no InternalIP yet: wait until it has registered")

    @staticmethod
    def _container(pod: Object, wanted: str) -> str:
        spec = pod.get("spec") or {}
        name = pod["metadata"]["name"]
        regular = [c["name"] for c in spec.get("containers") or ()]
        others = [c["name"] for key in ("initContainers", "ephemeralContainers") for c in spec.get(key) or ()]
        if wanted:
            if wanted not in regular and wanted not in others:
                raise errors.bad_request(f"container {wanted} is not valid for pod {name}")
            return wanted
        chosen = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
        if chosen in regular:
            return str(chosen)
        if len(regular) == 1:
            return regular[0]
        init = f" or one of the init containers: [{' '.join(others)}]" if others else ""
        raise errors.bad_request(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]{init}"
        )

    # --- logs ---

    async def logs(self, call: Call) -> web.StreamResponse:
        """GET pods/NAME/log: the node's answer, streamed."""
        pod = self._pod(call)
        container = self._container(pod, call.query.get("container", ""))
        if not (pod.get("spec") or {}).get("nodeName"):
            return web.Response(text="")
        address = self._node_address(pod)
        names = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes")
        query = [(name, call.query[name]) for name in names if name in call.query]
        meta = pod["metadata"]
        path = "/".join(quote(part, safe="") for part in (meta["namespace"], meta["name"], container))
        url = f"https://{_host(address)}:{_PORT}/containerLogs/{path}?{urlencode(query)}"
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S), auto_decompress=False
            )
        try:
            async with self._session.get(url, ssl=self._tls) as answer:
                if answer.status != 200:
                    text = (await answer.content.read(_HEAD_LIMIT)).decode(errors="replace").strip()
                    reason = "BadRequest" if answer.status == 400 else "InternalError"
                    raise errors.ApiFault(answer.status, reason, text or f"the node answered {answer.status}")
                response = web.StreamResponse(
                    status=200, headers={"Content-Type": answer.headers.get("Content-Type", "text/plain")}
                )
                response.enable_chunked_encoding()
                await response.prepare(call.request)
                async for data in answer.content.iter_any():
                    await response.write(data)
                await response.write_eof()
                return response
        except aiohttp.ClientConnectorError as error:
            raise _unreachable(pod, error) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            log.debug("log stream of %s/%s ended: %s", meta["namespace"], meta["name"], error)
            raise ConnectionResetError("the log stream ended") from error

    # --- upgrades ---

    async def upgrade(self, call: Call) -> web.StreamResponse:
        """exec, attach and portforward: switch protocols and copy bytes."""
        pod = self._pod(call)
        meta = pod["metadata"]
        kind = call.target.subresource
        parts = [meta["namespace"], meta["name"]]
        if kind != "portforward":
            parts.append(self._container(pod, call.query.get("container", "")))
            if kind == "exec" and "command" not in call.query:
                raise errors.bad_request("you must specify at least 1 command for the container")
        if "upgrade" not in call.request.headers.get("Connection", "").lower():
            raise errors.bad_request(f"{kind} needs an upgraded connection: Upgrade request required")
        address = self._node_address(pod)
        path = f"/{_PATHS[kind]}/" + "/".join(quote(part, safe="") for part in parts)
        query = call.request.rel_url.raw_query_string
        head = [
            f"{call.request.method} {path}{'?' + query if query else ''} HTTP/1.1",
            f"Host: {_host(address)}:{_PORT}",
        ]
        for name, value in call.request.headers.items():
            if name.lower() in _PASSED:
                head.append(f"{name}: {value}")
        if call.request.method == "POST":
            head.append("Content-Length: 0")
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(address, _PORT, ssl=self._tls, limit=_HEAD_LIMIT)
        except (OSError, TimeoutError, ssl.SSLError) as error:
            raise _unreachable(pod, error) from error
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
            return await _relay(call.request, reader, writer)
        except asyncio.IncompleteReadError as error:
            raise errors.unavailable(f"the node closed the connection before it answered {kind}") from error
        finally:
            self._open.discard(task)
            writer.close()


async def _relay(
    request: web.BaseRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> web.StreamResponse:
    """Hand the node's answer to the client; after a 101, copy both ways until one side ends."""
    raw_head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = raw_head.decode("latin-1").split("\r\n")
    status = int(status_line.split(" ", 2)[1])
    headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]
    if status != 101:
        body = await _plain_body(reader, {name.lower(): value for name, value in headers})
        kind = next((value for name, value in headers if name.lower() == "content-type"), "text/plain")
        return web.Response(status=status, body=body, headers={"Content-Type": kind})
    transport = request.transport
    protocol = request.protocol
    if transport is None:
        raise ConnectionResetError("the client went away")
    incoming = _Incoming(writer)
    protocol.set_parser(incoming)  # pyright: ignore[reportArgumentType] (any object with feed_data does)
    transport.write(raw_head)
    outgoing = asyncio.create_task(_copy(reader, transport, request))
    ending = asyncio.create_task(incoming.ended.wait())
    try:
        await asyncio.wait([outgoing, ending], return_when=asyncio.FIRST_COMPLETED)
        if incoming.ended.is_set() and not outgoing.done():
            # The client closed its side: let what the node still has to say go out for a moment.
            if writer.can_write_eof():
                writer.write_eof()
            await asyncio.wait([outgoing], timeout=1)
    finally:
        for task in (outgoing, ending):
            task.cancel()
        await asyncio.gather(outgoing, ending, return_exceptions=True)
        protocol.force_close()
        transport.close()
    return _Done()


async def _plain_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    length = headers.get("content-length", "")
    if length.isdigit():
        return await reader.readexactly(min(int(length), 1 << 20))
    async with asyncio.timeout(5):
        return await reader.read(_HEAD_LIMIT)


class _Incoming:
    """What aiohttp feeds the bytes after an upgrade to: they go straight on to the node."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.ended = asyncio.Event()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Called by the server's protocol for each read."""
        self._writer.write(data)
        return False, b""

    def feed_eof(self) -> None:
        """The client closed."""
        self.ended.set()

    def set_exception(self, exc: BaseException, *_: object) -> None:
        """The connection broke."""
        self.ended.set()


async def _copy(reader: asyncio.StreamReader, transport: asyncio.Transport, request: web.BaseRequest) -> None:
    while data := await reader.read(_CHUNK):
        if transport.is_closing():
            return
        transport.write(data)
        await request.protocol._drain_helper()  # pyright: ignore[reportPrivateUsage]


class _Done(web.StreamResponse):
    """Stands for an answer that has been given already."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _unreachable(pod: Object, error: BaseException) -> errors.ApiFault:
    node = pod["spec"].get("nodeName")
    detail = str(error) or type(error).__name__
    return errors.ApiFault(
        500, "InternalError", f"error dialing backend: node {node} does not answer on port {_PORT}: {detail}"
    )
