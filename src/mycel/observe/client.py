"""Connections to an Observer: over a unix socket, over TCP, or over any byte stream (an exec session).

grpclib wants a socket; a byte stream is joined to one end of a socket pair by two copying tasks.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol

from mycel.api.health_grpc import HealthStub
from mycel.api.observer_grpc import ObserverStub
from mycel.api.peer_grpc import PeerStub

_CHUNK = 65_536


class ByteStream(Protocol):
    """Both directions of a connection."""

    async def read(self) -> bytes:
        """Some bytes; empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        ...


class TlsFiles(NamedTuple):
    """Where certificates are; empty: the system's authorities, no client certificate."""

    ca_files: tuple[str, ...] = ()
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    allow_insecure: bool = False


class ObserverClient:
    """Stubs of the services behind one connection."""

    def __init__(self, channel: Channel, *, target: str) -> None:
        self.target = target
        self.observer = ObserverStub(channel)
        self.peer = PeerStub(channel)
        self.health = HealthStub(channel)


class BadServerAddress(ValueError):
    """A server address that is none."""


@asynccontextmanager
async def connect(server: str, *, tls: TlsFiles | None = None) -> AsyncGenerator[ObserverClient]:
    """A client for `unix:///path`, `host:port` or `tls://host:port`. Raises BadServerAddress; connects when used."""
    if server.startswith("unix:"):
        channel = Channel(path=server.removeprefix("unix:").replace("//", "/", 1))
        target = server
    else:
        host, port, wants_tls = parse_server(server)
        target = f"{host}:{port}"
        context = _tls(tls or TlsFiles()) if tls is not None or wants_tls else None
        name = tls.server_name if tls is not None and tls.server_name else host
        channel = Channel(host, port, ssl=context, config=Configuration(ssl_target_name_override=name))
    try:
        yield ObserverClient(channel, target=target)
    finally:
        channel.close()


def parse_server(server: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is meant."""
    scheme, separator, rest = server.partition("://")
    if separator and scheme not in ("tls", "tcp", "dns", "passthrough"):
        raise BadServerAddress(f"{server}: the server is unix:///path, host:port or tls://host:port")
    try:
        parts = urlsplit(f"//{(rest if separator else server).lstrip('/')}")
        host, port = parts.hostname, parts.port
    except ValueError as problem:
        raise BadServerAddress(f"{server}: {problem}") from problem
    if not host:
        raise BadServerAddress(f"{server}: the server's host is missing: host:port")
    return host, port or 4245, scheme == "tls" and bool(separator)


def _tls(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in files.ca_files:
        context.load_verify_locations(path)
    if files.cert_file:
        context.load_cert_chain(files.cert_file, files.key_file or None)
    if files.allow_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


class _SocketChannel(Channel):
    """A channel over a socket that is connected already."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__()
        self._end = end

    async def _create_connection(self) -> H2Protocol:
        _, protocol = await self._loop.create_connection(self._protocol_factory, sock=self._end)
        return protocol


@asynccontextmanager
async def connect_stream(stream: ByteStream, *, target: str) -> AsyncGenerator[ObserverClient]:
    """A client over a byte stream, which stays the caller's to close."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=theirs)
    copies = [
        asyncio.create_task(_from_client(reader, stream), name=f"to {target}"),
        asyncio.create_task(_to_client(stream, writer), name=f"from {target}"),
    ]
    channel = _SocketChannel(ours)
    try:
        yield ObserverClient(channel, target=target)
    finally:
        channel.close()
        ours.close()
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _from_client(reader: asyncio.StreamReader, stream: ByteStream) -> None:
    while data := await reader.read(_CHUNK):
        await stream.write(data)


async def _to_client(stream: ByteStream, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await stream.read():
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()  # the client then sees its calls end
