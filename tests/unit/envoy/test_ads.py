"""Aggregated discovery over a real unix socket: a client of gRPC in Envoy's place."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, StreamStreamMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from mycel.envoy import ads
from mycel.envoy.messages import message_class
from mycel.envoy.resources import CLUSTER, LISTENER, SECRET, Resource, Snapshot, TypeUrl, resource
from mycel.envoy.server import ProxyServer
from mycel.kit.latest import Latest
from mycel.kit.sockets import bind_unix

_SERVICE = "envoy.service.discovery.v3."
_METHOD = f"/{_SERVICE}AggregatedDiscoveryService/DeltaAggregatedResources"
PATIENCE_S = 120


def listeners(**contents: str) -> dict[TypeUrl, dict[str, Resource]]:
    return {LISTENER: {name: resource(text.encode()) for name, text in contents.items()}}


class Client:
    """One stream, from Envoy's side."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def ask(
        self, kind: TypeUrl, nonce: str = "", error: str = "", *, subscribe: tuple[str, ...] = (), **had: Resource
    ) -> None:
        """A request: the first of its type when there is no nonce, else an answer."""
        request: Any = message_class(_SERVICE + "DeltaDiscoveryRequest")()
        request.type_url, request.response_nonce = kind, nonce
        request.resource_names_subscribe.extend(subscribe)
        for name, each in had.items():
            request.initial_resource_versions[name] = each.version
        if error:
            request.error_detail.code, request.error_detail.message = 3, error
        await self._stream.send_message(request)

    async def told(self) -> Any:
        """The next response."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._stream.recv_message()


@contextlib.asynccontextmanager
async def calling(path: Path) -> AsyncGenerator[Client]:
    channel = Channel(path=str(path))
    request, response = (message_class(f"{_SERVICE}DeltaDiscovery{each}") for each in ("Request", "Response"))
    try:
        async with StreamStreamMethod[Any, Any](channel, _METHOD, request, response).open() as stream:
            await stream.send_request()
            yield Client(stream)
            await stream.cancel()
    finally:
        channel.close()


@contextlib.asynccontextmanager
async def serving(snapshot: Latest[Snapshot], folder: Path) -> AsyncGenerator[tuple[ads.Ads, Path]]:
    served, path = ads.Ads(snapshot), folder / "xds.sock"
    server = ProxyServer([served])
    await server.start(sock=bind_unix(socket.SOCK_STREAM, path))
    try:
        yield served, path
    finally:
        server.close()
        await server.wait_closed()


def names(response: Any) -> Mapping[str, bytes]:
    return {each.name: each.resource.value for each in response.resources}


async def test_what_differs_is_sent_and_what_is_said_of_it_is_told(tmp_path: Path) -> None:
    """Held resources are not sent again, a refusal names its resource, what goes is removed."""
    held = listeners(kept="1", gone="1")
    snapshot: Latest[Snapshot] = Latest(listeners(kept="1", good="1", bad="1"))
    async with serving(snapshot, tmp_path) as (served, path), calling(path) as envoy:
        await envoy.ask(LISTENER, **held[LISTENER])
        first = await envoy.told()
        assert names(first) == {"good": b"1", "bad": b"1"}
        assert served.streams == 1
        await envoy.ask(LISTENER, first.nonce, error="no")
        for _ in range(2):  # one by one, to learn whom it means
            alone = await envoy.told()
            (name,) = names(alone)
            await envoy.ask(LISTENER, alone.nonce, error="bad port" if name == "bad" else "")
        removal = await envoy.told()
        assert list(removal.removed_resources) == ["gone"]
        await envoy.ask(LISTENER, removal.nonce)
        snapshot.set(listeners(kept="1", good="2", bad="1"))
        assert names(await envoy.told()) == {"good": b"2"}
        said = {name: each.error for (_, name), each in served.answers.value.items()}
        assert said == {"kept": None, "good": None, "bad": "bad port"}
    assert served.streams == 0


async def test_a_secret_that_was_refused_stays_so_until_it_is_another(tmp_path: Path) -> None:
    """Envoy takes the same again without a word when another stream brings it."""
    snapshot: Latest[Snapshot] = Latest({SECRET: {"a": resource(b"broken")}})

    async def said(path: Path, error: str) -> str | None:
        async with calling(path) as envoy:
            await envoy.ask(SECRET, subscribe=("a",))
            told = await envoy.told()
            before = served.answers.version
            await envoy.ask(SECRET, told.nonce, error)
            async with asyncio.timeout(PATIENCE_S):
                await served.answers.newer_than(before)
            return served.answers.value[SECRET, "a"].error

    async with serving(snapshot, tmp_path) as (served, path):
        assert await said(path, "no certificate") == "no certificate"
        assert await said(path, "") == "no certificate"
        snapshot.set({SECRET: {"a": resource(b"mended")}})
        assert await said(path, "") is None


async def test_nothing_is_said_before_there_is_a_snapshot(tmp_path: Path) -> None:
    """An agent that knows nothing yet takes nothing away."""
    snapshot: Latest[Snapshot] = Latest()
    async with serving(snapshot, tmp_path) as (_, path), calling(path) as envoy:
        await envoy.ask(LISTENER, **listeners(old="1")[LISTENER])
        told = asyncio.create_task(envoy.told())
        await asyncio.sleep(0.05)
        assert not told.done()
        snapshot.set(listeners(old="1", new="1"))
        assert names(await told) == {"new": b"1"}


async def test_an_answer_is_waited_for_from_when_it_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots that come meanwhile, and answers about something else, give no more time."""
    monkeypatch.setattr(ads, "ANSWER_S", 2.0)
    snapshot: Latest[Snapshot] = Latest({CLUSTER: {"c0": resource(b"0")}, **listeners(silent="1")})
    async with serving(snapshot, tmp_path) as (_, path):
        with pytest.raises(GRPCError) as refused:
            async with calling(path) as envoy, asyncio.timeout(PATIENCE_S):
                await envoy.ask(LISTENER)
                assert names(await envoy.told()) == {"silent": b"1"}
                await envoy.ask(CLUSTER)
                number = 0
                while (told := await envoy.told()) is not None:
                    await asyncio.sleep(0.1)
                    number += 1
                    snapshot.set({CLUSTER: {f"c{number}": resource(b"0")}, **listeners(silent="1", more=str(number))})
                    await envoy.ask(CLUSTER, told.nonce)
                await envoy._stream.recv_trailing_metadata()
    assert refused.value.status is Status.DEADLINE_EXCEEDED
    assert refused.value.message is not None and "Listener" in refused.value.message


async def test_answers_in_time_keep_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it lives."""
    monkeypatch.setattr(ads, "ANSWER_S", 2.0)
    snapshot: Latest[Snapshot] = Latest(listeners(one="0"))
    async with serving(snapshot, tmp_path) as (_, path), calling(path) as envoy:
        await envoy.ask(LISTENER)
        for number in range(1, 26):
            told = await envoy.told()
            await asyncio.sleep(0.1)
            await envoy.ask(LISTENER, told.nonce)
            snapshot.set(listeners(one=str(number)))
        assert names(await envoy.told()) == {"one": b"25"}


async def test_only_root_may_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's connection is closed at once, before a word; the socket is the owner's alone."""
    monkeypatch.setattr("mycel.envoy.server.peer_user", lambda _socket: 65534)
    async with serving(Latest(listeners(one="1")), tmp_path) as (_, path):
        assert path.stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(path)
        async with asyncio.timeout(PATIENCE_S):
            await reader.read()  # what was on its way, then the end
        assert reader.at_eof()
        writer.close()
