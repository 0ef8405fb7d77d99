"""Requests through Envoy on unix sockets: listeners of policies, of which only address and cluster are others."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h2.config
import h2.connection
import h2.events

from mycel.abi import Direction
from mycel.envoy import listeners
from mycel.envoy.header_matches import resource_name
from mycel.envoy.messages import from_json, to_resource
from mycel.envoy.resources import CLUSTER, LISTENER, SECRET, Resource, Snapshot
from mycel.envoy.secrets import header_value
from mycel.policy.http import SecretRef
from mycel.policy.proxy_ports import HttpSections
from mycel.policy.rules import L7
from tests.oracle.http import Request, Rule

NO_SECRETS: Mapping[SecretRef, Resource] = MappingProxyType({})
_PREFACE = b"PRI * HTTP/2.0\r\n"
_BATCH = 50
_PATIENCE_S = 60
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def section(rules: Sequence[Rule]) -> L7:
    """Rules as a policy carries them."""
    return L7("http", json.dumps({"rules": list(rules)}))


def held(secrets: Mapping[str, str]) -> dict[SecretRef, Resource]:
    """Secrets, by `namespace/name`, as Envoy gets them."""
    found: dict[SecretRef, Resource] = {}
    for place, value in secrets.items():
        ref = SecretRef(*place.split("/"))
        made = header_value(ref, {"value": value.encode()})
        assert isinstance(made, Resource), made
        found[ref] = made
    return found


def snapshot(
    folder: Path,
    sets: Mapping[str, Sequence[Rule]],
    *,
    protocol: str | None = None,
    secrets: Mapping[SecretRef, Resource] = NO_SECRETS,
    **weaker: Any,
) -> Snapshot:
    """A listener `folder/NAME` for each set; the server is at `folder/server`, in the client's protocol or this one.

    `weaker` overwrites fields of the connection manager, for tests of tests.
    """
    cluster = {**listeners.cluster()}
    cluster.update(type="STATIC", lb_policy="ROUND_ROBIN", load_assignment=at(folder / "server"))
    del cluster["upstream_bind_config"]
    if protocol:
        options = {"@type": "type.googleapis.com/" + _HTTP, "explicit_http_config": {protocol: {}}}
        cluster["typed_extension_protocol_options"] = {_HTTP: options}
    found: dict[str, Any] = {}
    for name, rules in sets.items():
        http = HttpSections(Direction.INGRESS, (section(rules),))
        manager = listeners.connection_manager(http, secrets.keys()) | weaker
        chain = {"name": name, "filters": [{"name": "http", "typed_config": manager}]}
        address = {"pipe": {"path": str(folder / name)}}
        fields: Any = {"name": name, "address": address, "filter_chains": [chain]}
        found[name] = to_resource(from_json(LISTENER, fields))
    return {
        SECRET: {resource_name(ref): each for ref, each in secrets.items()},
        CLUSTER: {cluster["name"]: to_resource(from_json(CLUSTER, cluster))},
        LISTENER: found,
    }


def at(path: Path) -> Any:
    """A cluster's one endpoint: a unix socket."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(path)}}}}
    return {"cluster_name": "server", "endpoints": [{"lb_endpoints": [endpoint]}]}


class Backend:
    """A server of both protocols. It keeps every byte of HTTP/1 and every request of HTTP/2; answers 200 to all."""

    def __init__(self) -> None:
        self.streams: list[bytearray] = []  # one per connection of HTTP/1
        self.requests: list[list[tuple[bytes, bytes]]] = []  # HTTP/2

    @contextlib.asynccontextmanager
    async def at(self, path: Path) -> AsyncGenerator[Backend]:
        """Listen."""
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield self
        finally:
            server.close()

    @property
    def received(self) -> Iterator[list[tuple[str, str]]]:
        """The headers of each request, in any order; names in lower case."""
        for headers in self.requests:
            yield [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        for stream in self.streams:
            for head in bytes(stream).decode("latin-1").split("\r\n\r\n"):
                fields = (line.partition(":") for line in head.split("\r\n")[1:])
                yield [(name.lower(), value.strip()) for name, _, value in fields]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            data = await reader.read(65536)
            if data.startswith(_PREFACE[:3]) and (len(data) < 16 or data.startswith(_PREFACE)):
                await self._two(data, reader, writer)
            else:
                await self._one(data, reader, writer)
        writer.close()

    async def _one(self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = bytearray()
        self.streams.append(kept)
        rest = b""
        while data:
            kept += data
            rest += data
            while (taken := _strict_length(rest)) is not None:
                rest = rest[taken:]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            data = await reader.read(65536)

    async def _two(self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding=False, validate_inbound_headers=False)
        state = h2.connection.H2Connection(config)
        state.initiate_connection()
        while data:
            for event in state.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self.requests.append([(bytes(name), bytes(value)) for name, value in event.headers or ()])
                    state.send_headers(event.stream_id or 0, [(b":status", b"200")], end_stream=True)
            writer.write(state.data_to_send())
            data = await reader.read(65536)


def _strict_length(data: bytes) -> int | None:
    """How long the first whole request is; None: not there yet."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    fields = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    headers = {name.lower(): value.strip() for name, _, value in fields}
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        place = 0
        while True:
            line, found, _ = body[place:].partition(b"\r\n")
            if not found:
                return None
            size = int(line.partition(b";")[0], 16)
            place += len(line) + 2 + size + 2
            if place > len(body):
                return None
            if size == 0:
                return len(head) + 4 + place
    length = int(headers.get(b"content-length", b"0"))
    return len(head) + 4 + length if len(body) >= length else None


async def ask_one(path: Path, requests: Iterable[Request]) -> list[int]:
    """The status of each request, over HTTP/1.1; where a connection is closed, another goes on."""
    found: list[int] = []
    async with asyncio.timeout(_PATIENCE_S):
        reader, writer = await asyncio.open_unix_connection(path)
        for each in requests:
            writer.write(one_bytes(each))
            status, goes_on = await read_answer(reader, head=each.method == "HEAD")
            found.append(status)
            if not goes_on:
                writer.close()
                reader, writer = await asyncio.open_unix_connection(path)
        writer.close()
    return found


def one_bytes(request: Request) -> bytes:
    """A request of HTTP/1.1 without a body."""
    lines = [f"{request.method} {request.target} HTTP/1.1", f"host: {request.authority}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def read_answer(reader: asyncio.StreamReader, *, head: bool) -> tuple[int, bool]:
    """One answer (to HEAD: without a body): its status, and whether more may come. Raises IncompleteReadError."""
    text = (await reader.readuntil(b"\r\n\r\n")).lower()
    for line in text.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and not head:
            await reader.readexactly(int(value))
    return int(text.split(b" ")[1]), b"\r\nconnection: close\r\n" not in text


async def ask_two(path: Path, requests: Iterable[Request]) -> list[int]:
    """The same over HTTP/2; 0: reset."""
    rest = list(requests)
    found: list[int] = []
    while rest:
        found += await two(path, [two_headers(each) for each in rest[:500]])
        del rest[:500]
    return found


def two_headers(request: Request) -> list[tuple[bytes, bytes]]:
    """A request as HTTP/2 has it."""
    pseudo = [(":method", request.method), (":scheme", "http"), (":authority", request.authority)]
    text = [*pseudo, (":path", request.target), *((name.lower(), value) for name, value in request.headers)]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in text]


async def two(path: Path, requests: Sequence[Sequence[tuple[Any, Any]]]) -> list[int]:
    """The status of each list of headers, sent as they are on one connection; 0: reset, or the connection ended."""
    config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    state = h2.connection.H2Connection(config)
    state.initiate_connection()
    reader, writer = await asyncio.open_unix_connection(path)
    found: dict[int, int] = {}
    order: list[int] = []
    open_: set[int] = set()
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(_PATIENCE_S):
            while len(order) < len(requests) or open_:
                while len(order) < len(requests) and len(open_) < _BATCH:
                    number = state.get_next_available_stream_id()
                    state.send_headers(number, list(requests[len(order)]), end_stream=True)
                    order.append(number)
                    open_.add(number)
                writer.write(state.data_to_send())
                data = await reader.read(65536)
                if not data:
                    break
                for event in state.receive_data(data):
                    number = getattr(event, "stream_id", None) or 0
                    if isinstance(event, h2.events.ResponseReceived):
                        status = next(value for name, value in event.headers or () if name in (b":status", ":status"))
                        found[number] = int(status)
                    if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                        open_.discard(number)
                    if isinstance(event, h2.events.ConnectionTerminated):
                        open_.clear()
                        order += [-1] * (len(requests) - len(order))
    writer.close()
    return [found.get(number, 0) for number in order] + [0] * (len(requests) - len(order))
