"""Objects in memory, made durable by the writer thread.

Two views of the same objects: `head` has what was accepted, which the next write must build upon; `committed`
has what is on the disk, which alone is read, listed and watched. So nobody ever sees a version that a crash
could take back, and resourceVersion never goes backwards for anyone.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from mycel.cluster.store.database import Writer, counter, load_log, load_objects, open_database
from mycel.cluster.store.errors import RevisionTooOld, StoreFailed
from mycel.cluster.store.record import Change, ChangeType, Object, Record, ResourceId, Revision

_KEEP_CHANGES = 4096
Listener = Callable[[list[Change]], None]
Table = dict[tuple[str, str], Record]


class Store:
    """The store of one API server; every method is called from the event loop's thread."""

    def __init__(self, path: Path, *, keep_changes: int = _KEEP_CHANGES) -> None:
        self._connection = open_database(path)
        self._loop = asyncio.get_running_loop()
        self._committed: dict[ResourceId, Table] = {}
        self._pending: dict[tuple[ResourceId, str, str], list[Record | None]] = {}
        self._waiting: deque[tuple[Revision, asyncio.Future[None]]] = deque()
        self._history: deque[Change] = deque(maxlen=keep_changes)
        self._listeners: dict[ResourceId, list[Listener]] = {}
        self._failed: StoreFailed | None = None
        self._closing = False
        self._load(keep_changes)
        self._writer = Writer(self._connection, self._committed_in_thread, keep_changes=keep_changes)
        self._writer.start()

    def _load(self, keep_changes: int) -> None:
        for record in load_objects(self._connection):
            self._committed.setdefault(record.resource, {})[record.key] = record
        self._floor = Revision(counter(self._connection, "compacted"))
        self._revision = self._next = Revision(counter(self._connection, "revision"))
        for change in load_log(self._connection):
            if len(self._history) == keep_changes:
                self._floor = self._history[0].revision
            self._history.append(change)

    # --- reading ---

    @property
    def revision(self) -> Revision:
        """The newest committed revision."""
        return self._revision

    def get(self, resource: ResourceId, namespace: str, name: str) -> Record | None:
        """The committed object, or None."""
        table = self._committed.get(resource)
        return table.get((namespace, name)) if table else None

    def list(self, resource: ResourceId, namespace: str | None = None) -> list[Record]:
        """Committed objects sorted by namespace and name; `namespace=None` means all."""
        table = self._committed.get(resource, {})
        if namespace is None:
            return [table[key] for key in sorted(table)]
        return [table[key] for key in sorted(key for key in table if key[0] == namespace)]

    def values(self, resource: ResourceId) -> Iterable[Record]:
        """Committed objects in no order."""
        return self._committed.get(resource, {}).values()

    def count(self) -> int:
        """How many objects there are."""
        return sum(len(table) for table in self._committed.values())

    def head(self, resource: ResourceId, namespace: str, name: str) -> Record | None:
        """The newest accepted version, which may still be on its way to the disk: for writers only."""
        pending = self._pending.get((resource, namespace, name))
        return pending[-1] if pending else self.get(resource, namespace, name)

    def changes_since(self, resource: ResourceId, revision: Revision) -> list[Change]:
        """Committed changes of `resource` after `revision`; RevisionTooOld when they are compacted away."""
        if revision < self._floor:
            raise RevisionTooOld(f"too old resource version: {revision} ({self._floor})")
        newer = itertools.takewhile(lambda change: change.revision > revision, reversed(self._history))
        return [change for change in newer if change.after.resource == resource][::-1]

    def subscribe(self, resource: ResourceId, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each committed group of changes of `resource`; the result unsubscribes."""
        listeners = self._listeners.setdefault(resource, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener)

    # --- writing ---

    def put(self, resource: ResourceId, obj: Object) -> tuple[Record, asyncio.Future[None]]:
        """Accept a new version of `obj` (sets its resourceVersion); await the future, then acknowledge."""
        meta = obj["metadata"]
        before = self.head(resource, meta.get("namespace", ""), meta["name"])
        revision = self._take_revision()
        meta["resourceVersion"] = str(revision)
        record = Record.of(resource, obj, revision)
        kind = ChangeType.ADDED if before is None else ChangeType.MODIFIED
        return record, self._accept(Change(revision, kind, before, record), record)

    def delete(self, resource: ResourceId, obj: Object) -> tuple[Record, asyncio.Future[None]]:
        """Accept the end of `obj` (its last state, which watchers get, with a new resourceVersion)."""
        meta = obj["metadata"]
        before = self.head(resource, meta.get("namespace", ""), meta["name"])
        revision = self._take_revision()
        meta["resourceVersion"] = str(revision)
        record = Record.of(resource, obj, revision)
        return record, self._accept(Change(revision, ChangeType.DELETED, before, record), None)

    def _take_revision(self) -> Revision:
        if self._failed is not None:
            raise self._failed
        if self._closing:
            raise StoreFailed("the API server is shutting down")
        self._next = Revision(self._next + 1)
        return self._next

    def _accept(self, change: Change, state: Record | None) -> asyncio.Future[None]:
        record = change.after
        self._pending.setdefault((record.resource, record.namespace, record.name), []).append(state)
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((change.revision, future))
        self._writer.put(change)
        return future

    def _committed_in_thread(self, group: list[Change], error: StoreFailed | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, group, error)

    def _settle(self, group: list[Change], error: StoreFailed | None) -> None:
        if error is not None or self._failed is not None:
            self._fail(error or StoreFailed("an earlier commit failed"))
            return
        touched: dict[ResourceId, list[Change]] = {}
        for change in group:
            record = change.after
            full_key = (record.resource, *record.key)
            states = self._pending[full_key]
            states.pop(0)
            if not states:
                del self._pending[full_key]
            table = self._committed.setdefault(record.resource, {})
            if change.type is ChangeType.DELETED:
                table.pop(record.key, None)
            else:
                table[record.key] = record
            if self._history.maxlen == len(self._history):
                self._floor = self._history[0].revision
            self._history.append(change)
            touched.setdefault(record.resource, []).append(change)
        self._revision = group[-1].revision
        for resource, changes in touched.items():
            for listener in tuple(self._listeners.get(resource, ())):
                listener(changes)
        for change in group:
            if change.before is not None:
                change.before.shrink()
            if change.type is ChangeType.DELETED:
                change.after.shrink()
        while self._waiting and self._waiting[0][0] <= self._revision:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def _fail(self, error: StoreFailed) -> None:
        """A lost commit leaves accepted versions without ground: refuse writes from now on, answer reads."""
        self._failed = error
        self._pending.clear()
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    @property
    def failure(self) -> StoreFailed | None:
        """Why writes are refused, or None."""
        return self._failed

    async def close(self) -> None:
        """Write what was accepted, then close the file."""
        self._closing = True
        await asyncio.to_thread(self._writer.stop)
        await asyncio.sleep(0)
