"""The store: what is read is durable, revisions grow, history is bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mycel.cluster.store import ChangeType, ResourceId, Revision, RevisionTooOld, Store, StoreCorrupt

THINGS = ResourceId("things")


def _thing(name: str, **more: object) -> dict[str, object]:
    return {"kind": "Thing", "metadata": {"name": name, "namespace": "n"}, **more}


async def test_reads_show_only_what_is_committed(tmp_path: Path) -> None:
    """A write is seen by the next writer at once, by readers when it is on the disk."""
    store = Store(tmp_path / "store.db")
    try:
        record, done = store.put(THINGS, _thing("a"))
        assert store.head(THINGS, "n", "a") is record
        assert store.get(THINGS, "n", "a") is None and store.revision == 0
        await done
        assert store.get(THINGS, "n", "a") is record and store.revision == 1
    finally:
        await store.close()


async def test_everything_is_back_after_a_restart(tmp_path: Path) -> None:
    """Objects, revision and history survive; deleted objects stay deleted."""
    store = Store(tmp_path / "store.db")
    writes = [store.put(THINGS, _thing(name))[1] for name in ("a", "b", "c")]
    writes.append(store.put(THINGS, _thing("a", size=2))[1])
    writes.append(store.delete(THINGS, _thing("b"))[1])
    await asyncio.gather(*writes)
    await store.close()
    store = Store(tmp_path / "store.db")
    try:
        assert [record.name for record in store.list(THINGS)] == ["a", "c"]
        assert store.list(THINGS)[0].obj["size"] == 2
        assert store.revision == 5
        told = [(change.type, change.after.name) for change in store.changes_since(THINGS, Revision(3))]
        assert told == [(ChangeType.MODIFIED, "a"), (ChangeType.DELETED, "b")]
    finally:
        await store.close()


async def test_listeners_hear_groups_in_order(tmp_path: Path) -> None:
    """Each change once, in order of revision, of the asked resource only."""
    store = Store(tmp_path / "store.db")
    heard: list[tuple[int, ChangeType]] = []
    leave = store.subscribe(THINGS, lambda changes: heard.extend((c.revision, c.type) for c in changes))
    try:
        first = store.put(THINGS, _thing("a"))[1]
        other = store.put(ResourceId("others"), _thing("a"))[1]
        second = store.put(THINGS, _thing("a"))[1]
        await asyncio.gather(first, other, second)
        leave()
        await store.put(THINGS, _thing("a"))[1]
        assert heard == [(1, ChangeType.ADDED), (3, ChangeType.MODIFIED)]
    finally:
        await store.close()


async def test_old_history_is_gone(tmp_path: Path) -> None:
    """Beyond the kept changes a watch is told to list again, before and after a restart."""
    store = Store(tmp_path / "store.db", keep_changes=8)
    await asyncio.gather(*(store.put(THINGS, _thing(f"t{n}"))[1] for n in range(40)))
    assert len(store.changes_since(THINGS, Revision(36))) == 4
    with pytest.raises(RevisionTooOld):
        store.changes_since(THINGS, Revision(5))
    await store.close()
    store = Store(tmp_path / "store.db", keep_changes=8)
    try:
        assert len(store.changes_since(THINGS, Revision(36))) == 4
        with pytest.raises(RevisionTooOld):
            store.changes_since(THINGS, Revision(5))
    finally:
        await store.close()


async def test_file_that_is_no_database(tmp_path: Path) -> None:
    """The message names the file."""
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database at all" * 300)
    with pytest.raises(StoreCorrupt, match=str(path)):
        Store(path)


async def test_files_are_private(tmp_path: Path) -> None:
    """0600 in 0700: Secrets are in there."""
    store = Store(tmp_path / "deep" / "store.db")
    await store.close()
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "deep" / "store.db").stat().st_mode & 0o777 == 0o600
