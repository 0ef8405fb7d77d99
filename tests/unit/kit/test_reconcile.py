"""The reconcile loop: adopt, write, retry, heal, and order across targets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from mycel.kit.latest import Latest
from mycel.kit.reconcile import Diff, OrderedTargets, Report, TargetError, diff, reconcile
from tests import virtual_time


class Place:
    """A target in memory that notes what is done to it and fails on demand."""

    def __init__(
        self, name: str = "place", rows: Mapping[str, int] | None = None, log: list[str] | None = None
    ) -> None:
        self.name = name
        self.rows = dict(rows or {})
        self.log: list[str] = [] if log is None else log
        self.failures = 0
        self.full = False
        self._mirror: dict[str, int] | None = None

    async def read(self, *, fresh: bool) -> Mapping[str, int]:
        if fresh or self._mirror is None:
            self.log.append(f"{self.name} read")
            self._mirror = dict(self.rows)
        return self._mirror

    async def apply(self, change: Diff[str, int]) -> None:
        self.log.append(f"{self.name} {change}")
        if self.failures or (self.full and change.upserts):
            self.failures = max(0, self.failures - 1)
            raise TargetError(f"{self.name} failed")
        for place in (self.rows, self._mirror if self._mirror is not None else {}):
            place.update(change.upserts)
            for key in change.deletes:
                place.pop(key, None)


async def for_a_while(seconds: float, *args: Any, **settings: Any) -> None:
    """Run a reconcile loop for some virtual seconds."""
    with suppress(TimeoutError):
        await asyncio.wait_for(reconcile(*args, **settings), seconds)


@pytest.mark.parametrize(
    ("desired", "realized", "upserts", "deletes"),
    [
        ({}, {}, {}, ()),
        ({"a": 1}, {}, {"a": 1}, ()),
        ({"a": 1}, {"a": 1}, {}, ()),
        ({"a": 2}, {"a": 1}, {"a": 2}, ()),
        ({}, {"a": 1}, {}, ("a",)),
        ({"a": 1, "b": 2}, {"b": 2, "c": 3}, {"a": 1}, ("c",)),
        ({"a": 0}, {"a": None}, {"a": 0}, ()),
    ],
)
def test_diff(desired: dict[str, Any], realized: dict[str, Any], upserts: dict[str, Any], deletes: tuple[str]) -> None:
    """A diff holds what is missing, what differs and what is too much."""
    change = diff(desired, realized)
    assert (upserts, deletes) == (change.upserts, tuple(change.deletes))
    assert bool(upserts or deletes) is bool(change)


def test_adopts_leftovers() -> None:
    """Rows a predecessor left are kept when they are right and removed when they are not."""
    place, report = Place(rows={"right": 1, "stale": 2}), Report()
    virtual_time.run(for_a_while(1, Latest({"right": 1, "new": 3}), place, report))
    assert place.rows == {"right": 1, "new": 3}
    assert place.log == ["place read", "place +1 -1"]
    assert report.targets["place"].ok and report.targets["place"].entries == 2


def test_nothing_is_touched_before_something_is_desired() -> None:
    """Without a desired value, what is there stays: a start never deletes live state."""
    place = Place(rows={"live": 1})
    desired: Latest[Mapping[str, int]] = Latest()
    virtual_time.run(for_a_while(1000, desired, place, Report()))
    assert place.rows == {"live": 1}
    assert place.log == []


def test_failures_are_retried_with_backoff_and_reported() -> None:
    """A failing target is tried again after 0.1, 0.2, 0.4 s and its status says since when and why."""
    place, report = Place(), Report()
    place.failures = 3
    times: list[float] = []

    async def scenario() -> None:
        apply = place.apply

        async def timed(change: Diff[str, int]) -> None:
            times.append(round(virtual_time.now_s(), 3))
            await apply(change)

        place.apply = timed
        await for_a_while(0.65, Latest({"a": 1}), place, report)
        assert report.problems() == ["place: place failed"]
        await for_a_while(1, Latest({"a": 1}), place, report)

    virtual_time.run(scenario())
    assert times == [0.0, 0.1, 0.3, 0.65]
    assert report.targets["place"].ok and report.targets["place"].errors == 3


def test_an_intruder_is_healed_at_resync() -> None:
    """Rows somebody else changed come back with the next fresh read, not before."""
    place, report = Place(), Report()

    async def scenario() -> None:
        loop = asyncio.create_task(reconcile(Latest({"a": 1}), place, report, resync_s=60))
        await asyncio.sleep(1)
        place.rows = {"intruder": 9}
        await asyncio.sleep(58)
        assert place.rows == {"intruder": 9}
        await asyncio.sleep(2)
        assert place.rows == {"a": 1}
        loop.cancel()

    virtual_time.run(scenario())


def test_only_the_newest_desired_value_is_brought_about() -> None:
    """Values set while a target is busy are skipped, and `realized` follows."""
    place, report = Place(), Report()
    realized: Latest[int] = Latest()

    async def scenario() -> None:
        desired: Latest[Mapping[str, int]] = Latest({"a": 1})
        apply = place.apply

        async def slow(change: Diff[str, int]) -> None:
            await asyncio.sleep(1)
            await apply(change)

        place.apply = slow
        loop = asyncio.create_task(reconcile(desired, place, report, realized=realized))
        await asyncio.sleep(0.5)
        for value in range(2, 12):
            desired.set({"a": value})
        assert await realized.newer_than(0) == 1
        await realized.newer_than(1)
        assert (realized.value, place.rows["a"]) == (11, 11)
        loop.cancel()

    virtual_time.run(scenario())
    assert [line for line in place.log if "+" in line] == ["place +1 -0", "place +1 -0"]


def ordered(log: list[str]) -> tuple[Place, Place, OrderedTargets]:
    first, second = Place("first", {"old": 1}, log), Place("second", {"old": 1}, log)
    return first, second, OrderedTargets("both", [first, second])


def test_ordered_targets_make_before_break() -> None:
    """Upserts go in the order given, deletes the other way round."""
    log: list[str] = []
    first, second, both = ordered(log)
    desired: Latest[Mapping[str, Mapping[str, int]]] = Latest({"first": {"new": 1}, "second": {"new": 1}})
    virtual_time.run(for_a_while(1, desired, both, Report()))
    assert log[2:] == ["first +1 -0", "second +1 -0", "second +0 -1", "first +0 -1"]
    assert first.rows == second.rows == {"new": 1}


def test_a_full_target_stops_no_other_and_makes_room() -> None:
    """When one target cannot take its rows, others still get theirs; only its own leftovers go."""
    log: list[str] = []
    first, second, both = ordered(log)
    first.full = True
    report = Report()
    desired: Latest[Mapping[str, Mapping[str, int]]] = Latest({"first": {"new": 1}, "second": {"new": 1}})
    virtual_time.run(for_a_while(0.05, desired, both, report))
    assert second.rows == {"new": 1, "old": 1}
    assert first.rows == {}
    assert report.problems() == ["both: first failed"]


def test_what_settled_is_the_desired_rows_themselves() -> None:
    """Nobody looks through maps that did not change; an intruder's rows are seen and mended all the same."""
    log: list[str] = []
    first, second, both = ordered(log)
    desired: Latest[Mapping[str, Mapping[str, int]]] = Latest({"first": {"new": 1}, "second": {"old": 1}})

    async def scenario() -> None:
        settings: dict[str, Any] = {"resync_s": 5, "settled": both.settled}
        loop = asyncio.create_task(for_a_while(20, desired, both, Report(), **settings))
        await asyncio.sleep(1)
        read = await both.read(fresh=False)
        assert all(read[name] is rows for name, rows in desired.value.items())
        desired.set({**desired.value, "first": {"newer": 1}})
        await asyncio.sleep(1)
        assert first.rows == {"newer": 1}
        second.rows = {"intruder": 2}
        await asyncio.sleep(6)
        assert (first.rows, second.rows) == ({"newer": 1}, {"old": 1})
        first.failures = 1
        desired.set({"first": {"newest": 1}, "second": {"old": 1, "young": 1}})
        await asyncio.sleep(2)
        assert (first.rows, second.rows) == ({"newest": 1}, {"old": 1, "young": 1})
        await loop

    virtual_time.run(scenario())


def test_unknown_targets_are_named() -> None:
    """A plan for a target that does not exist is an error, not silence."""
    _, _, both = ordered([])
    with pytest.raises(TargetError, match="both has no target third"):
        asyncio.run(both.apply(Diff({"third": {}})))


def test_what_disturbs_a_target_is_mended_at_once() -> None:
    """Long before the next look by itself."""

    async def disturb() -> tuple[Place, list[str]]:
        place, disturbed = Place(), asyncio.Event()
        desired: Latest[Mapping[str, int]] = Latest({"a": 1})
        work = asyncio.create_task(reconcile(desired, place, Report(), disturbed=disturbed))
        await asyncio.sleep(1)
        place.rows["a"] = 7
        disturbed.set()
        await asyncio.sleep(1)
        work.cancel()
        return place, place.log

    place, log = virtual_time.run(disturb())
    assert place.rows == {"a": 1}
    assert log == ["place read", "place +1 -0", "place read", "place +1 -0"]


@pytest.mark.parametrize("turns", range(8))
def test_a_cancellation_ends_the_loop_whatever_arrives_with_it(turns: int) -> None:
    async def main() -> None:
        place, desired = Place(), Latest[Mapping[str, int]]()
        desired.set({"a": 1})
        task = asyncio.create_task(reconcile(desired, place, Report()))
        await asyncio.sleep(0.1)
        desired.set({"a": 2})
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done and task.cancelled()

    virtual_time.run(main())
