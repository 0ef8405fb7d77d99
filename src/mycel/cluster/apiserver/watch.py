"""Watch streams: committed changes, filtered, as lines of JSON; queued ones leave in one write.

A watcher sees an object that begins to match as ADDED and one that ceases to match as DELETED. A watcher too slow
for its queue is ended; it comes back with the last resourceVersion it saw.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec

from mycel.cluster.apiserver.registry import Kind
from mycel.cluster.apiserver.selectors import Predicate
from mycel.cluster.store import Change, ChangeType, Record, Revision, Store

_QUEUE_BYTES = 64 * 1024 * 1024
_BOOKMARK_S = 60.0
Render = Callable[[ChangeType, Record], bytes]


class Watcher:
    """The queue between the store and one watching client."""

    def __init__(
        self, store: Store, kind: Kind, namespace: str, *, predicate: Predicate | None, render: Render
    ) -> None:
        self._store = store
        self._kind = kind
        self._namespace = namespace
        self._predicate = predicate
        self._render = render
        self._frames: list[bytes] = []
        self._size = 0
        self._wake = asyncio.Event()
        self.overflowed = False
        self.closed = False
        self._unsubscribe = store.subscribe(kind.resource, self._on_changes)

    def close(self) -> None:
        """Leave the store; safe to call twice."""
        if not self.closed:
            self.closed = True
            self._unsubscribe()
            self._wake.set()

    def start_from(self, revision: Revision) -> None:
        """Queue what happened after `revision`; RevisionTooOld when that is no longer known."""
        self._on_changes(self._store.changes_since(self._kind.resource, revision))

    def start_with(self, records: Iterable[Record]) -> None:
        """Queue current objects as ADDED."""
        for record in records:
            self._push(self._render(ChangeType.ADDED, record))

    def _push(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._size += len(frame)
        if self._size > _QUEUE_BYTES:
            self.overflowed = True
        self._wake.set()

    def _on_changes(self, changes: list[Change]) -> None:
        for change in changes:
            after = change.after
            if self._namespace and after.namespace != self._namespace:
                continue
            if self._predicate is None:
                self._push(self._render(change.type, after))
                continue
            seen = visible_change(change, self._predicate)
            if seen is not None:
                self._push(self._render(*seen))

    async def take(self, timeout_s: float) -> bytes:
        """Everything queued, as soon as there is something; b'' after `timeout_s` or when closed."""
        if not self._frames and not self.closed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return b""
        self._wake.clear()
        frames, self._frames, self._size = self._frames, [], 0
        return b"".join(frames)


def visible_change(change: Change, predicate: Predicate) -> tuple[ChangeType, Record] | None:
    """A change as a watcher with a selector sees it, None when it does not."""
    after = change.after
    matches = predicate(after.obj)
    if change.type is ChangeType.DELETED:
        matched = matches if change.before is None else predicate(change.before.obj)
        return (ChangeType.DELETED, after) if matches or matched else None
    if change.before is None:
        if change.type is ChangeType.ADDED:
            return (ChangeType.ADDED, after) if matches else None
        # Read back from an old log: whether it matched before is unknown. Both answers are safe for a client
        # that keeps objects by name.
        return (ChangeType.MODIFIED if matches else ChangeType.DELETED, after)
    matched = predicate(change.before.obj)
    if matches:
        return (ChangeType.MODIFIED if matched else ChangeType.ADDED, after)
    if not matched:
        return None
    last = {**change.before.obj, "metadata": {**change.before.obj["metadata"]}}
    last["metadata"]["resourceVersion"] = str(change.revision)
    return ChangeType.DELETED, Record.of(after.resource, last, change.revision)


def bookmark(kind: Kind, revision: Revision) -> bytes:
    """A BOOKMARK line: everything up to `revision` has been sent."""
    obj = {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": {"resourceVersion": str(revision), "creationTimestamp": None},
    }
    return b'{"type":"BOOKMARK","object":%s}\n' % msgspec.json.encode(obj)


class Schedule:
    """When a watch sends bookmarks and when it ends."""

    def __init__(self, *, timeout_s: float, bookmarks: bool) -> None:
        now = time.monotonic()
        self._end = now + timeout_s
        self._bookmarks = bookmarks
        self._next_bookmark = now + _BOOKMARK_S

    def wait_s(self) -> float:
        """How long to wait for events at most."""
        now = time.monotonic()
        until = min(self._end, self._next_bookmark) if self._bookmarks else self._end
        return max(0.0, until - now)

    def over(self) -> bool:
        """Whether the watch is to end."""
        return time.monotonic() >= self._end

    def bookmark_due(self) -> bool:
        """Whether a bookmark is to be sent now; asking sets the next time."""
        now = time.monotonic()
        if not self._bookmarks or now < min(self._next_bookmark, self._end):
            return False
        self._next_bookmark = now + _BOOKMARK_S
        return True
