"""The informer against a server that pages, hangs up, forgets and lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from mycel.k8s import informer as informer_module
from mycel.k8s.client import ApiClient, Endpoint
from mycel.k8s.informer import Codec, Informer, Key, backoff_s
from mycel.k8s.resources import PODS

from .fake_server import FakeApi


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer_module, "_BACKOFF_S", (0.001, 0.002))


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    fake = FakeApi()
    await fake.server.start_server()
    yield fake
    fake.hang_up()
    await fake.server.close()


@asynccontextmanager
async def running(api: FakeApi, *args: Any, **kwargs: Any) -> AsyncIterator[Informer[Any]]:
    async with ApiClient(Endpoint(server=str(api.server.make_url("")).rstrip("/"))) as client:
        informer: Informer[Any] = Informer(client, PODS, *args, **kwargs)
        task = asyncio.create_task(informer.run())
        try:
            await asyncio.wait_for(informer.wait_synced(), 120)
            yield informer
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(condition: Any) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.001)


async def test_list_in_pages_then_changes(api: FakeApi) -> None:
    """Every page is taken in; then additions, changes and deletions arrive in order."""
    api.page = 2
    for name in ("a", "b", "c"):
        api.put(name)
    heard: list[tuple[str, bool, bool]] = []
    async with running(
        api, on_change=lambda key, old, new: heard.append((key.name, old is None, new is None))
    ) as informer:
        assert set(informer.store) == {Key("default", name) for name in "abc"}
        assert [query.get("continue") for query in api.lists()] == [None, "2"]
        await until(lambda: api.watchers)
        api.put("d")
        api.put("a", nodeName="n1")
        api.remove("b")
        await until(lambda: Key("default", "b") not in informer.store)
        assert informer.store[Key("default", "a")]["spec"] == {"nodeName": "n1"}
        assert informer.store[Key("default", "a")]["kind"] == "Pod"
        assert heard[3:] == [("d", True, False), ("a", False, False), ("b", False, True)]


async def test_a_watch_that_ends_is_resumed_without_a_list(api: FakeApi) -> None:
    """A closed watch goes on at the last version, and what happened meanwhile is not lost."""
    api.put("a")
    async with running(api) as informer:
        await until(lambda: api.watchers)
        api.hang_up()
        api.put("b")
        await until(lambda: Key("default", "b") in informer.store)
        assert len(api.lists()) == 1
        assert informer.statistics().relists == 1


async def test_bookmarks_move_the_version(api: FakeApi) -> None:
    """After a bookmark the next watch starts there."""
    api.put("a")
    async with running(api) as informer:
        await until(lambda: api.watchers)
        api.bookmark()
        await until(lambda: informer.resource_version == "2")
        api.hang_up()
        await until(lambda: len(api.watches()) == 2)
        assert [watch["resourceVersion"] for watch in api.watches()] == ["1", "2"]
        assert set(informer.store) == {Key("default", "a")}


async def test_410_relists_and_reports_only_differences(api: FakeApi) -> None:
    """A version that is too old means a new list; unchanged objects are not reported again."""
    api.put("stays")
    api.put("goes")
    heard: list[tuple[str, bool]] = []
    async with running(api, on_change=lambda key, old, new: heard.append((key.name, new is None))) as informer:
        await until(lambda: api.watchers)
        heard.clear()
        api.remove("goes", silently=True)
        api.compact()
        api.hang_up()
        await until(lambda: Key("default", "goes") not in informer.store)
        assert heard == [("goes", True)]
        assert informer.statistics().relists == 2


async def test_errors_keep_the_store(api: FakeApi) -> None:
    """While the server fails, everything known stays; then it catches up."""
    api.put("a")
    async with running(api) as informer:
        await until(lambda: api.watchers)
        api.fail_next = [500, 503, 429]
        api.hang_up()
        await until(lambda: not api.fail_next)
        assert set(informer.store) == {Key("default", "a")}
        api.put("b")
        await until(lambda: Key("default", "b") in informer.store)
        assert informer.statistics().failures >= 3


async def test_lines_cut_anywhere(api: FakeApi) -> None:
    """Events may arrive in pieces and several at once."""
    async with running(api) as informer:
        await until(lambda: api.watchers)
        line = b'{"type":"ADDED","object":{"metadata":{"name":"x","namespace":"n","resourceVersion":"7"}}}\n'
        api.send(line[:20])
        api.send(line[20:] + line.replace(b'"x"', b'"y"') + line[:5])
        await until(lambda: Key("n", "y") in informer.store)
        assert Key("n", "x") in informer.store


class _Spec(msgspec.Struct):
    node_name: str = msgspec.field(default="", name="nodeName")


class _Pod(msgspec.Struct):
    spec: _Spec


async def test_an_unreadable_object_does_not_stop_the_others(api: FakeApi) -> None:
    """What breaks its shape is skipped, its last good state kept."""
    api.put("good", nodeName="n1")
    api.put("bad", nodeName=5)
    codec = Codec(_Pod, lambda pod: pod.spec.node_name)
    async with running(api, codec) as informer:
        assert dict(informer.store) == {Key("default", "good"): "n1"}
        await until(lambda: api.watchers)
        api.put("good", nodeName=7)
        api.put("bad", nodeName="n2")
        await until(lambda: len(informer.store) == 2)
        assert informer.store[Key("default", "good")] == "n1"


async def test_selectors_are_sent_with_list_and_watch(api: FakeApi) -> None:
    """Field and label selectors reach the server both times."""
    async with running(api, label_selector="a=b", field_selector="spec.nodeName=n1"):
        await until(lambda: api.watches())
        for query in (api.lists()[0], api.watches()[0]):
            assert (query["labelSelector"], query["fieldSelector"]) == ("a=b", "spec.nodeName=n1")


def test_backoff_grows_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubling from the first to the last figure, never above."""
    monkeypatch.setattr(informer_module, "_BACKOFF_S", (0.1, 10.0))
    assert 0.05 <= backoff_s(1) <= 0.1
    assert all(5.0 <= backoff_s(n) <= 10.0 for n in (8, 20, 1000))
