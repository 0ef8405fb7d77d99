"""One loop for every writer: wake, read, diff, apply, report.

Desired rows come from a `Latest`, realized rows from the target itself, and what differs is written. A
target that fails is tried again with backoff, the rest of the process goes on. The first diff at start is
the upgrade story: it adopts what an earlier process left, and deletes only once somebody has said what
should be there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from mycel.kit.backoff import backoff_s
from mycel.kit.latest import Latest

log = logging.getLogger(__name__)
K = TypeVar("K")
V = TypeVar("V")


class TargetError(Exception):
    """A target could not be brought to what is desired; the message says which row and why."""


@dataclass(frozen=True, slots=True)
class Diff(Generic[K, V]):
    """What to write and what to delete to get from one mapping to another."""

    upserts: Mapping[K, V]
    deletes: Sequence[K] = ()

    def __bool__(self) -> bool:
        return bool(self.upserts or self.deletes)

    def __str__(self) -> str:
        return f"+{len(self.upserts)} -{len(self.deletes)}"


def diff(desired: Mapping[K, V], realized: Mapping[K, V]) -> Diff[K, V]:
    """Rows of `desired` that are missing or different in `realized`, and keys only `realized` has."""
    missing = object()
    upserts = {key: value for key, value in desired.items() if realized.get(key, missing) != value}
    if len(realized) + len(upserts) == len(desired) and not upserts:
        return Diff(upserts)
    return Diff(upserts, tuple(key for key in realized if key not in desired))


class Target(Protocol[K, V]):
    """A keyed place: one BPF map, one set of links, one kind of xDS resource, the status of one CRD."""

    @property
    def name(self) -> str:
        """What reports and metrics call it."""
        ...

    async def read(self, *, fresh: bool) -> Mapping[K, V]:
        """Realized rows. `fresh` asks the place itself; otherwise a mirror of what was last seen and
        written will do. The object read before means that nothing but `apply` changed rows.
        """
        ...

    async def apply(self, change: Diff[K, V]) -> None:
        """Write a difference: idempotent, upserts before deletes. Raises TargetError."""
        ...


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """How one target stands."""

    name: str
    entries: int = 0
    applied: int = 0  # rounds that wrote something
    errors: int = 0
    failing_since_s: float | None = None  # monotonic clock
    problem: str = ""
    duration_s: float = 0.0  # of the last round

    @property
    def ok(self) -> bool:
        """Whether the last round succeeded."""
        return self.failing_since_s is None


@dataclass
class Report:
    """Where reconcile loops say how they are; health and metrics read it."""

    targets: dict[str, TargetStatus] = field(default_factory=dict[str, TargetStatus])
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def ok(self, name: str, *, entries: int, applied: bool, duration_s: float = 0.0) -> None:
        """The target holds what is desired."""
        last = self.targets.get(name, TargetStatus(name))
        status = TargetStatus(
            name, entries=entries, applied=last.applied + applied, errors=last.errors, duration_s=duration_s
        )
        self._put(status)

    def degraded(self, name: str, problem: BaseException, *, duration_s: float = 0.0) -> None:
        """The target could not be brought there; it will be tried again."""
        last = self.targets.get(name, TargetStatus(name))
        since_s = last.failing_since_s if last.failing_since_s is not None else time.monotonic()
        self._put(
            TargetStatus(
                name,
                entries=last.entries,
                applied=last.applied,
                errors=last.errors + 1,
                failing_since_s=since_s,
                problem=str(problem),
                duration_s=duration_s,
            )
        )

    def problems(self) -> list[str]:
        """One sentence per failing target."""
        return [f"{each.name}: {each.problem}" for each in self.targets.values() if not each.ok]

    def _put(self, status: TargetStatus) -> None:
        self.targets[status.name] = status
        self.changed.set()
        self.changed = asyncio.Event()


async def reconcile(
    desired: Latest[Mapping[K, V]],
    target: Target[K, V],
    report: Report,
    *,
    resync_s: float = 60.0,
    realized: Latest[int] | None = None,
    settled: Callable[[Mapping[K, V]], None] = lambda _rows: None,
    disturbed: asyncio.Event | None = None,
) -> None:
    """Keep `target` at `desired` for ever. `realized` is told each version that was brought about, `settled` its rows.

    Every `resync_s` the target is read anew, so that an intruder's rows are mended too; at once when `disturbed` is set
    by whoever sees that the target changed.
    """
    version = await desired.newer_than(0)
    failures, fresh = 0, True
    while True:
        version, rows = desired.version, desired.value
        if disturbed is not None:
            disturbed.clear()
        began_s = time.monotonic()
        try:
            change = diff(rows, await target.read(fresh=fresh))
            if change:
                await target.apply(change)
        except TargetError as problem:
            failures += 1
            wait_s = min(backoff_s(failures), resync_s)
            report.degraded(target.name, problem, duration_s=time.monotonic() - began_s)
        else:
            failures, wait_s = 0, resync_s
            report.ok(target.name, entries=len(rows), applied=bool(change), duration_s=time.monotonic() - began_s)
            settled(rows)
            if realized is not None:
                realized.set(version)
        try:
            async with asyncio.timeout(wait_s):
                await _newer(desired, version, disturbed)
            fresh = failures > 0 or (disturbed is not None and disturbed.is_set())
        except TimeoutError:
            fresh = True


async def _newer(desired: Latest[Any], version: int, disturbed: asyncio.Event | None) -> None:
    """Until there is something new to do."""
    if disturbed is None:
        await desired.newer_than(version)
        return
    waits = [asyncio.ensure_future(desired.newer_than(version)), asyncio.ensure_future(disturbed.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()


async def log_problems(report: Report) -> None:
    """Say once when a target stops following the plan, and when it does again."""
    told: dict[str, str] = {}
    while True:
        changed = report.changed
        now = {each.name: each.problem for each in report.targets.values() if not each.ok}
        for name, problem in now.items():
            if told.get(name) != problem:
                log.error("%s does not follow the plan: %s", name, problem)
        for name in told.keys() - now.keys():
            log.info("%s follows the plan again", name)
        told = now
        await changed.wait()


class OrderedTargets:
    """Targets that point at each other, as one: upserts in the order given, deletes the other way round.

    Keys are names of targets, values whole mappings. So a service is written after its backends and goes
    before them (make before break). A target that fails stops no other's upserts, but then nothing is
    deleted except its own rows, which makes room when it was full: what the others would delete may still
    be pointed at.
    """

    def __init__(self, name: str, targets: Iterable[Target[Any, Any]]) -> None:
        self.name = name
        self._targets = {each.name: each for each in targets}
        self._realized: dict[str, Mapping[Any, Any]] = {}
        self._settled: dict[str, tuple[Mapping[Any, Any], Mapping[Any, Any]]] = {}  # what was read, and equal to what

    async def read(self, *, fresh: bool) -> Mapping[str, Mapping[Any, Any]]:
        """Realized rows of every target; where they are those that settled, the desired rows themselves."""
        self._realized = {name: await each.read(fresh=fresh) for name, each in self._targets.items()}
        return {name: self._desired(name, rows) for name, rows in self._realized.items()}

    def _desired(self, name: str, rows: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """To see that nothing changed must not cost a look at every row of every map."""
        read, desired = self._settled.get(name, (None, rows))
        return desired if read is rows else rows

    def settled(self, desired: Mapping[str, Mapping[Any, Any]]) -> None:
        """The targets hold these rows."""
        self._settled = {name: (self._realized[name], rows) for name, rows in desired.items()}

    async def apply(self, change: Diff[str, Mapping[Any, Any]]) -> None:
        """Bring every named target to its mapping. Raises TargetError naming all that failed."""
        unknown = change.upserts.keys() - self._targets.keys()
        if unknown:
            raise TargetError(f"{self.name} has no target {', '.join(sorted(unknown))}")
        work = {
            name: diff(change.upserts[name], self._realized.get(name, {}))
            for name in self._targets
            if name in change.upserts
        }
        problems: dict[str, TargetError] = {}
        for name, each in work.items():
            if each.upserts:
                await self._attempt(name, Diff(each.upserts), problems)
        for name in reversed(work):
            if work[name].deletes and (not problems or name in problems):
                await self._attempt(name, Diff({}, work[name].deletes), problems)
        if problems:
            raise TargetError("; ".join(str(each) for each in problems.values()))
        for name in work:
            self._realized[name] = await self._targets[name].read(fresh=False)

    async def _attempt(self, name: str, change: Diff[Any, Any], problems: dict[str, TargetError]) -> None:
        self._settled.pop(name, None)
        try:
            await self._targets[name].apply(change)
        except TargetError as problem:
            problems.setdefault(name, problem)
