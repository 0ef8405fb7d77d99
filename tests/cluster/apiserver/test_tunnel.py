"""exec, port-forward and logs: bytes pass between a client and a node's port 10250, both really on sockets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.cluster.apiserver.running import RunningServer, running

pytestmark = pytest.mark.cluster
_NODE = "127.0.0.77"  # all of 127/8 is ours: a node's address of its own, with the node's own port
_UPGRADE = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("tunnel")) as one:
        one.call("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
        addresses = [{"type": "InternalIP", "address": _NODE}]
        one.call(
            "PATCH",
            "/api/v1/nodes/n1/status",
            {"status": {"addresses": addresses}},
            content_type="application/merge-patch+json",
        )
        for name, containers, node in (("one", ["c"], "n1"), ("two", ["a", "b"], "n1"), ("lost", ["c"], None)):
            spec = {"containers": [{"name": c, "image": "x"} for c in containers]}
            if node:
                spec["nodeName"] = node
            status, answer = one.call(
                "POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": name}, "spec": spec}
            )
            assert status == 201, answer
        yield one


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close and wait: a transport left to the garbage collector is a warning in some later test."""
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


class _Node:
    """Answers as a node does, as far as bytes go: 101 and an echo, or a log."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.ended = asyncio.Event()
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if head.startswith("GET /containerLogs/"):
                body = "".join(f"line {n}\n" for n in range(1000))
                writer.write(
                    f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                await writer.drain()
            elif "/attach/" in head:
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno")
                await writer.drain()
            else:
                writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{_UPGRADE}\r\n".encode())
                while data := await reader.read(65536):
                    if data == b"bye":
                        break
                    writer.write(data)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended.set()
            await _close(writer)
            self.open -= 1


@asynccontextmanager
async def _node(server: RunningServer) -> AsyncIterator[_Node]:
    pair = server.pki.ensure_node("n1", [_NODE])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.pki.ca_certificate))
    context.load_cert_chain(pair.certificate, pair.key)
    context.verify_mode = ssl.CERT_REQUIRED
    node = _Node()
    listener = await asyncio.start_server(node.serve, _NODE, 10250, ssl=context)
    try:
        yield node
    finally:
        listener.close()
        await listener.wait_closed()
        async with asyncio.timeout(120):  # the node's own tasks close their connections
            while node.open:
                await asyncio.sleep(0.02)


async def _ask(server: RunningServer, request: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=server.tls(), server_hostname="localhost"
    )
    writer.write(f"{request}\r\nHost: localhost\r\n{_UPGRADE}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    return reader, writer, head


async def test_bytes_pass_both_ways(server: RunningServer) -> None:
    """A few MB come back unchanged; the node's end of the connection ends the client's."""
    async with _node(server) as node:
        reader, writer, head = await _ask(
            server, "POST /api/v1/namespaces/default/pods/one/exec?command=a%20b&command=c&stdout=true HTTP/1.1"
        )
        assert head.startswith("HTTP/1.1 101 ") and "Upgrade: SPDY/3.1" in head
        assert "X-Stream-Protocol-Version: v4.channel.k8s.io" in head
        sent = os.urandom(4 * 1024 * 1024)

        async def send() -> None:
            writer.write(sent)
            await writer.drain()

        sending = asyncio.create_task(send())
        got = await asyncio.wait_for(reader.readexactly(len(sent)), 120)
        await sending
        assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()
        writer.write(b"bye")
        assert await asyncio.wait_for(reader.read(), 120) == b""
        await _close(writer)
    assert node.heads[0].startswith("POST /exec/default/one/c?command=a%20b&command=c&stdout=true HTTP/1.1\r\n")
    assert "Authorization" not in node.heads[0]


async def test_client_that_leaves_ends_the_nodes_side(server: RunningServer) -> None:
    """No tunnel outlives its client."""
    async with _node(server) as node:
        _, writer, head = await _ask(server, "POST /api/v1/namespaces/default/pods/one/portforward HTTP/1.1")
        assert head.startswith("HTTP/1.1 101 ")
        assert node.heads[0].startswith("POST /portForward/default/one HTTP/1.1\r\n")
        await _close(writer)
        await asyncio.wait_for(node.ended.wait(), 120)


async def test_refusal_of_the_node_is_handed_on(server: RunningServer) -> None:
    """Anything but 101 is an ordinary answer."""
    async with _node(server):
        reader, writer, head = await _ask(server, "POST /api/v1/namespaces/default/pods/one/attach HTTP/1.1")
        assert head.startswith("HTTP/1.1 403 ")
        assert await asyncio.wait_for(reader.readexactly(2), 120) == b"no"
        await _close(writer)


async def test_logs(server: RunningServer) -> None:
    """The node's text, whole."""
    async with _node(server) as node:
        path = "/api/v1/namespaces/default/pods/one/log?tailLines=1000&timestamps=true&unknown=1"
        status, text = await asyncio.to_thread(server.call, "GET", path)
        assert status == 200 and text.splitlines()[::999] == ["line 0", "line 999"]
        assert node.heads[0].startswith("GET /containerLogs/default/one/c?timestamps=true&tailLines=1000 HTTP/1.1")


def test_which_container(server: RunningServer) -> None:
    """Ambiguous and unknown containers, pods without a node, nodes that do not answer."""
    base = "/api/v1/namespaces/default/pods"
    status, answer = server.call("GET", f"{base}/two/log")
    assert status == 400
    assert answer["message"] == "a container name must be specified for pod two, choose one of: [a b]"
    status, answer = server.call("GET", f"{base}/two/log?container=z")
    assert (status, answer["message"]) == (400, "container z is not valid for pod two")
    status, answer = server.call("POST", f"{base}/lost/exec?command=a", Connection="Upgrade", Upgrade="SPDY/3.1")
    assert (status, answer["message"]) == (400, "pod lost does not have a host assigned")
    status, answer = server.call("GET", f"{base}/one/log")
    assert status == 500 and "node n1 does not answer on port 10250" in answer["message"]
    status, _ = server.call("GET", f"{base}/one/exec?command=a")
    assert status == 400
