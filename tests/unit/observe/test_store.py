"""The ring of flows."""

import asyncio

import numpy as np
import pytest

from mycel.flow.rows import ROW, Rows
from mycel.observe.store import FlowStore


def rows(*times: int) -> Rows:
    """Rows told apart by their time."""
    made = np.zeros(len(times), ROW)
    made["wall_ns"] = times
    return made


def store(capacity: int = 5) -> FlowStore:
    """A small one."""
    return FlowStore(node_name="n1", capacity=capacity)


def times(found: Rows) -> list[int]:
    """What tells rows apart."""
    return found["wall_ns"].tolist()


@pytest.mark.parametrize("sizes", [[3], [5], [3, 3], [4, 4, 4], [12], [2, 11, 1], [1] * 13])
def test_newest_rows_are_held(sizes: list[int]) -> None:
    """Whatever the sizes of batches, the last rows are there in order."""
    kept, written = store(), 0
    for size in sizes:
        kept.append(rows(*range(written, written + size)))
        written += size
    assert written == kept.head
    assert list(range(max(0, written - 5), written)) == times(kept.read(0, kept.head).rows)
    assert list(range(max(0, written - 5), written)) == kept.column("wall_ns").tolist()


def test_overtaken_reader_is_told_exactly() -> None:
    """Delivered and missed add up to what was written."""
    kept = store()
    kept.append(rows(*range(12)))
    piece = kept.read(2, 9)
    assert (piece.start, piece.missed, times(piece.rows)) == (7, 5, [7, 8])
    gone = kept.read(0, 3)
    assert (gone.start, gone.missed, times(gone.rows)) == (7, 7, [])


def test_reading_copies() -> None:
    """What was read does not change when the ring goes on."""
    kept = store()
    kept.append(rows(1, 2, 3))
    piece = kept.read(0, 3)
    kept.append(rows(4, 5, 6, 7, 8))
    assert times(piece.rows) == [1, 2, 3]


async def test_waiting_for_rows_and_losses() -> None:
    """A waiter wakes for a row, for a loss, or when its time is up."""
    kept = store()
    assert not await kept.wait_newer(0, 0, timeout_s=0)
    waiter = asyncio.create_task(kept.wait_newer(0, 0))
    await asyncio.sleep(0)
    kept.append(rows(1))
    assert await waiter
    waiter = asyncio.create_task(kept.wait_newer(1, 0))
    await asyncio.sleep(0)
    kept.append_loss(3, cpu=None, first_ns=1, last_ns=2)
    assert await waiter


def test_losses_by_cursor_and_by_place() -> None:
    """A reader of history is told what was lost among its flows, one that follows what is lost from now on."""
    kept = store()
    kept.append_loss(1, cpu=0, first_ns=1, last_ns=1)
    kept.append(rows(1, 2))
    kept.append_loss(2, cpu=1, first_ns=2, last_ns=3)
    assert [loss.events for loss in kept.losses_from(kept.losses_before(0))] == [2]
    assert kept.losses_from(kept.losses_noted) == []
    assert kept.lost == 3


def test_statistics() -> None:
    """Counts of what is held, seen and lost."""
    kept = store()
    kept.append(rows(*range(7)))
    kept.append_loss(4, cpu=None, first_ns=0, last_ns=0)
    statistics = kept.statistics()
    assert (statistics.held, statistics.capacity, statistics.seen, statistics.lost) == (5, 5, 7, 4)
    assert statistics.rate > 0


def test_room_for_nothing_is_refused() -> None:
    """A store without room is a wrong setting."""
    with pytest.raises(ValueError, match="room"):
        store(0)
