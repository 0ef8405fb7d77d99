"""The SQLite file: current objects and the log of changes, written in groups by one thread.

WAL with synchronous=FULL: a commit is acknowledged only when it is on the disk. The writer gathers what
arrives within a millisecond or two into one commit, which is worth a factor of seven at 100 writes a group.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mycel.cluster.store.errors import StoreCorrupt, StoreFailed
from mycel.cluster.store.record import Change, ChangeType, Record, ResourceId, Revision

_SCHEMA_VERSION = 1
_GATHER_S = 0.0015
_GROUP_LIMIT = 512
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  revision INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (
  revision INTEGER PRIMARY KEY, type TEXT NOT NULL,
  resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

OnCommit = Callable[[list[Change], StoreFailed | None], None]


def open_database(path: Path) -> sqlite3.Connection:
    """Open or create the database at `path` (0600 in a 0700 directory); StoreCorrupt if damaged."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=2000")
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise StoreCorrupt(f"{path} is damaged ({verdict}): restore a copy, or delete and create the cluster")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise StoreCorrupt(f"{path} was written by a newer version ({version}): use that version")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreCorrupt(
            f"{path} is not a usable database ({error}): restore a copy, or delete and create the cluster"
        ) from error
    except StoreCorrupt:
        connection.close()
        raise
    return connection


def load_objects(connection: sqlite3.Connection) -> Iterator[Record]:
    """Every current object."""
    for resource, namespace, name, revision, body in connection.execute(
        "SELECT resource, namespace, name, revision, body FROM objects"
    ):
        yield Record(ResourceId(resource), namespace, name, revision=Revision(revision), raw=body, obj=None)


def load_log(connection: sqlite3.Connection) -> Iterator[Change]:
    """What is left of the log, oldest first; `before` is filled where the log itself holds it."""
    last: dict[tuple[str, str, str], Record] = {}
    for revision, kind, resource, namespace, name, body in connection.execute(
        "SELECT revision, type, resource, namespace, name, body FROM log ORDER BY revision"
    ):
        record = Record(ResourceId(resource), namespace, name, revision=Revision(revision), raw=body, obj=None)
        change = ChangeType(kind)
        key = (resource, namespace, name)
        yield Change(Revision(revision), change, last.get(key), record)
        if change is ChangeType.DELETED:
            last.pop(key, None)
        else:
            last[key] = record


def counter(connection: sqlite3.Connection, name: str) -> int:
    """A stored counter, 0 when it was never set."""
    row = connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


class Writer(threading.Thread):
    """The one thread that writes. `on_commit` is called from it, once per group, in order of revisions."""

    def __init__(self, connection: sqlite3.Connection, on_commit: OnCommit, *, keep_changes: int) -> None:
        super().__init__(name="store-writer", daemon=True)
        self._connection = connection
        self._on_commit = on_commit
        self._keep = keep_changes
        self._queue: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._since_compaction = 0

    def put(self, change: Change) -> None:
        """Queue one change; changes must come in order of revision."""
        self._queue.put(change)

    def stop(self) -> None:
        """Write what is queued, then end. Safe to call twice."""
        self._queue.put(None)
        self.join()

    def run(self) -> None:
        """Gather, commit, report, until stopped."""
        while True:
            first = self._queue.get()
            if first is None:
                break
            group, stopped = self._gather(first)
            try:
                self._commit(group)
            except sqlite3.Error as error:
                self._on_commit(group, StoreFailed(f"the store could not commit {len(group)} changes: {error}"))
            else:
                self._on_commit(group, None)
            if stopped:
                break
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def _gather(self, first: Change) -> tuple[list[Change], bool]:
        group = [first]
        deadline = time.monotonic() + _GATHER_S
        while len(group) < _GROUP_LIMIT:
            try:
                following = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return group, False
            if following is None:
                return group, True
            group.append(following)
        return group, False

    def _commit(self, group: list[Change]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for change in group:
                record = change.after
                key = (record.resource, record.namespace, record.name)
                if change.type is ChangeType.DELETED:
                    connection.execute("DELETE FROM objects WHERE resource=? AND namespace=? AND name=?", key)
                else:
                    connection.execute(
                        "INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?)",
                        (*key, change.revision, record.raw),
                    )
                connection.execute(
                    "INSERT INTO log VALUES (?,?,?,?,?,?)",
                    (change.revision, change.type.value, *key, record.raw),
                )
            last = group[-1].revision
            connection.execute("INSERT OR REPLACE INTO counters VALUES ('revision', ?)", (last,))
            self._since_compaction += len(group)
            if self._since_compaction >= self._keep // 4:
                connection.execute("DELETE FROM log WHERE revision <= ?", (last - self._keep,))
                connection.execute(
                    "INSERT OR REPLACE INTO counters VALUES ('compacted', ?)", (max(0, last - self._keep),)
                )
                self._since_compaction = 0
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
