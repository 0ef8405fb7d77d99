"""One kind's objects, kept in memory: list, then watch, for as long as the process lives.

list → synced → watch with bookmarks → resume at the last resource version when a watch ends or breaks → list
again on 410. While the API server is away the store keeps what was known; listeners hear differences only,
also after a relist.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from mycel.k8s.client import ApiClient, selectors
from mycel.k8s.errors import ApiError, Gone, NotFound, from_watch_error
from mycel.k8s.resources import Resource

T = TypeVar("T")
log = logging.getLogger(__name__)

_PAGE = 500
_WATCH_S = (300.0, 600.0)  # a watch is renewed after a random time in this range, as client-go does
_LINE_LIMIT = 64 << 20  # no sane object comes near; a broken peer must not fill our memory
_BACKOFF_S = (0.1, 10.0)
_NOT_FOUND_FAILURES = 4  # a definition that is about to be made: look about once a second


class Key(NamedTuple):
    """An object's place; `namespace` is empty for cluster-wide kinds."""

    namespace: str
    name: str


class _Metadata(msgspec.Struct, gc=False, frozen=True):
    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""


class _Head(msgspec.Struct, gc=False, frozen=True):
    metadata: _Metadata = _Metadata()


class _ListMetadata(msgspec.Struct, gc=False, frozen=True, rename={"continue_": "continue"}):
    resourceVersion: str = ""
    continue_: str = ""


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMetadata = _ListMetadata()
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


_HEAD = msgspec.json.Decoder(_Head)
_LIST = msgspec.json.Decoder(_List)
_EVENT = msgspec.json.Decoder(_Event)

Listener = Callable[[Key, T | None, T | None], None]
"""Called with (key, old, new) after the store changed; `old` is None when created, `new` when deleted."""


class Codec(Generic[T]):
    """How one kind's JSON becomes what the store holds: `wire` is a msgspec type, `parse` makes a value."""

    def __init__(self, wire: Any, parse: Callable[[Any], T]) -> None:
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(wire)
        self._parse = parse

    def decode(self, data: bytes | msgspec.Raw) -> T:
        """Raises ValueError (msgspec's ValidationError is one) when the object is not of the shape."""
        return self._parse(self._decoder.decode(data))


def dict_codec(resource: Resource) -> Codec[dict[str, Any]]:
    """Plain dicts; what lists leave out (apiVersion, kind) is filled in."""
    head = {"apiVersion": resource.api_version, "kind": resource.kind}
    return Codec(dict[str, Any], lambda value: value if "kind" in value else head | value)


@dataclass(frozen=True, slots=True)
class InformerStatistics:
    """For readiness, metrics and debugging."""

    resource: str
    objects: int
    synced: bool
    connected: bool
    relists: int
    events: int
    failures: int
    last_error: str


class Informer(Generic[T]):
    """`Informer(client, PODS)` keeps dicts, with a `Codec` typed values. Start `run()` as a task."""

    def __init__(
        self,
        client: ApiClient,
        resource: Resource,
        decode: Codec[T] | type[dict[str, Any]] = dict,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        on_change: Listener[T] | None = None,
    ) -> None:
        self.resource = resource
        self._client = client
        codec: Any = decode if isinstance(decode, Codec) else dict_codec(resource)
        self._codec: Codec[T] = codec
        self._path = resource.path(namespace)
        self._selectors = selectors(label_selector, field_selector)
        self._listeners: list[Listener[T]] = [on_change] if on_change else []
        self._objects: dict[Key, T] = {}
        self._versions: dict[Key, str] = {}
        self.store: Mapping[Key, T] = MappingProxyType(self._objects)
        self.resource_version = ""
        self.connected = False
        self._synced = asyncio.Event()
        self._relists = self._events = self._failures = 0
        self._last_error = ""

    def subscribe(self, listener: Listener[T]) -> None:
        """Add a listener; it hears changes from now on (and, before the first list, everything)."""
        self._listeners.append(listener)

    def get(self, name: str, namespace: str = "") -> T | None:
        """The object as last seen."""
        return self._objects.get(Key(namespace, name))

    @property
    def synced(self) -> bool:
        """Whether the first list has been taken in."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Until the first list has been taken in."""
        await self._synced.wait()

    def statistics(self) -> InformerStatistics:
        """A frozen record of how it goes."""
        return InformerStatistics(
            str(self.resource), len(self._objects), self.synced, self.connected,
            self._relists, self._events, self._failures, self._last_error,
        )  # fmt: skip

    async def run(self) -> None:
        """List and watch until cancelled. API errors are retried with backoff, never raised."""
        failures = 0
        while True:
            started = time.monotonic()
            try:
                if not self.resource_version:
                    await self._relist()
                    failures = 0
                await self._watch()
                failures = 0
            except Gone:
                self.resource_version = ""
                failures += 1  # a server that answers 410 to a fresh list must not be hammered
            except ApiError as exc:
                failures += 1
                if isinstance(exc, NotFound):
                    failures = min(failures, _NOT_FOUND_FAILURES)
                self._failures += 1
                if self._last_error != str(exc):
                    log.info("%s: %s; trying again", self.resource, exc)
                self._last_error = str(exc)
            finally:
                self.connected = False
            if time.monotonic() - started > _BACKOFF_S[1]:
                failures = min(failures, 1)
            if failures:
                await asyncio.sleep(backoff_s(failures))

    async def _relist(self) -> None:
        """Take the whole collection in; listeners hear only what differs."""
        items: dict[Key, tuple[str, msgspec.Raw]] = {}
        params: dict[str, str | int] = {**self._selectors, "limit": _PAGE}
        while True:
            page = _decode(_LIST, await self._client.request("GET", self._path, params=params))
            for raw in page.items or []:
                key, version = _place(raw)
                items[key] = (version, raw)
            if not page.metadata.continue_:
                break
            params["continue"] = page.metadata.continue_
        self._relists += 1
        for key in [key for key in self._objects if key not in items]:
            self._remove(key)
        for key, (version, raw) in items.items():
            if self._versions.get(key) != version:
                self._put(key, version, raw)
        self.resource_version = page.metadata.resourceVersion
        self._synced.set()

    async def _watch(self) -> None:
        """Follow changes until the server ends the watch. Raises Gone, ApiError."""
        seconds = random.uniform(*_WATCH_S)  # noqa: S311 (spreads load, guards nothing)
        params: dict[str, str | int] = {
            **self._selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.resource_version,
            "timeoutSeconds": int(seconds),
        }
        async with self._client.stream(self._path, params=params, read_timeout_s=seconds + 30) as chunks:
            self.connected = True
            self._last_error = ""
            async for line in _lines(chunks):
                self._take(_decode(_EVENT, line))

    def _take(self, event: _Event) -> None:
        self._events += 1
        if event.type == "ERROR":
            raise from_watch_error(bytes(event.object))
        key, version = _place(event.object)
        if event.type == "DELETED":
            self._remove(key)
        elif event.type in ("ADDED", "MODIFIED"):
            self._put(key, version, event.object)
        if version:
            self.resource_version = version

    def _put(self, key: Key, version: str, raw: msgspec.Raw) -> None:
        try:
            new = self._codec.decode(raw)
        except ValueError as exc:
            # Keep the last good one: half-understood objects must not change what is enforced.
            log.error("%s %s/%s cannot be read and is left as it was: %s", self.resource.kind, *key, exc)
            return
        old = self._objects.get(key)
        self._versions[key] = version
        self._objects[key] = new
        if old is None or old != new:
            self._notify(key, old, new)

    def _remove(self, key: Key) -> None:
        self._versions.pop(key, None)
        old = self._objects.pop(key, None)
        if old is not None:
            self._notify(key, old, None)

    def _notify(self, key: Key, old: T | None, new: T | None) -> None:
        for listener in self._listeners:
            listener(key, old, new)


def backoff_s(failures: int) -> float:
    """Seconds to wait after the n-th failure in a row: doubling, bounded, half of it random."""
    low, high = _BACKOFF_S
    return min(high, low * 2 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)  # noqa: S311


def _place(raw: msgspec.Raw) -> tuple[Key, str]:
    metadata = _decode(_HEAD, raw).metadata
    return Key(metadata.namespace, metadata.name), metadata.resourceVersion


def _decode(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as exc:
        raise ApiError(200, "", f"the API server sent something unreadable: {exc}") from exc


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Split a byte stream at newlines; a rest without one is dropped with the connection."""
    rest = bytearray()
    async for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = bytes(rest) + chunk[start:end] if rest else chunk[start:end]
            rest.clear()
            start = end + 1
            if line.strip():
                yield line
        rest += chunk[start:]
        if len(rest) > _LINE_LIMIT:
            raise ApiError(200, "", f"a watch event is longer than {_LINE_LIMIT} bytes")
