"""Container logs for `kubectl logs`: CRI lines (`time stream P|F text`) from the file and the one rotated before it.

`select` and `parse_line` are pure; `follow` waits for more by inotify, across rotation, until the container ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from mycel.cluster.node import clock
from mycel.cluster.node.http import BadRequest, Request
from mycel.cluster.node.inotify import CLOSE_WRITE, CREATE, MOVED, Watcher

_MODIFY = 0x2
_READ = 256 << 10


@dataclass(frozen=True, slots=True)
class Options:
    """What of a log is wanted."""

    follow: bool = False
    tail: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit: int | None = None
    stream: str = ""  # stdout, stderr, or both when empty


class Line(NamedTuple):
    """One record of the log."""

    time: bytes
    stream: bytes
    full: bool  # False: the line goes on in the next record
    text: bytes


def options(request: Request) -> Options:
    """From the query. Raises BadRequest naming the parameter."""

    def number(name: str) -> int | None:
        text = request.value(name)
        if text is None:
            return None
        if not text.isdigit():
            raise BadRequest(f"{name}: want a number that is not negative, got {text!r}")
        return int(text)

    since: datetime | None = None
    seconds, moment = number("sinceSeconds"), request.value("sinceTime")
    if seconds is not None:
        since = clock.now() - timedelta(seconds=seconds)
    elif moment:
        try:
            since = clock.parse(moment)
        except ValueError as exc:
            raise BadRequest(f"sinceTime: {exc}") from exc
    stream = (request.value("stream") or "").lower()
    return Options(
        request.flag("follow"),
        number("tailLines"),
        since,
        request.flag("timestamps"),
        number("limitBytes"),
        "" if stream == "all" else stream,
    )


def parse_line(raw: bytes) -> Line | None:
    """A record without its newline; None for what is none."""
    parts = raw.split(b" ", 3)
    if len(parts) != 4 or parts[2] not in (b"F", b"P"):
        return None
    return Line(parts[0], parts[1], parts[2] == b"F", parts[3])


def select(records: Iterable[Line], wanted: Options) -> Iterator[Line]:
    """Records of the stream and time asked for, the last `tail` full lines of them."""
    kept = (
        record
        for record in records
        if (not wanted.stream or record.stream == wanted.stream.encode())
        and (wanted.since is None or clock.parse(record.time.decode()[:26] + "+00:00") >= wanted.since)
    )
    if wanted.tail is None:
        yield from kept
        return
    lines: deque[list[Line]] = deque(maxlen=wanted.tail)
    current: list[Line] = []
    for record in kept:
        current.append(record)
        if record.full:
            lines.append(current)
            current = []
    for line in lines:
        yield from line
    if wanted.tail:
        yield from current


def render(record: Line, *, timestamps: bool, continued: bool) -> bytes:
    """What the person sees of a record."""
    head = record.time + b" " if timestamps and not continued else b""
    return head + record.text + (b"\n" if record.full else b"")


class _Tail:
    """Reads whole records of a file from where it stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115 (kept open across rotation)
        self._rest = b""

    def records(self) -> Iterator[Line]:
        while data := self._file.read(_READ):
            *lines, self._rest = (self._rest + data).split(b"\n")
            for raw in lines:
                record = parse_line(raw)
                if record is not None:
                    yield record

    def rotated(self) -> bool:
        """Whether the path now names another file."""
        import os

        with contextlib.suppress(FileNotFoundError):
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        return False

    def close(self) -> None:
        self._file.close()


async def stream(path: Path, wanted: Options, *, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log's bytes; with `follow` until `ended()` says that the container is over. Raises FileNotFoundError."""
    left = wanted.limit
    continued = False

    def shown(records: Iterable[Line]) -> Iterator[bytes]:
        nonlocal left, continued
        for record in records:
            data = render(record, timestamps=wanted.timestamps, continued=continued)
            continued = not record.full
            if left is not None:
                data = data[:left]
                left -= len(data)
            if data:
                yield data
            if left == 0:
                return

    tail = _Tail(path)
    try:
        rotated = path.with_name(path.name + ".1")
        before: Iterator[Line] = iter(())
        if rotated.exists():
            old = _Tail(rotated)
            before = old.records()
        for data in _batches(shown(select(_chain(before, tail.records()), wanted))):
            yield data
        if not wanted.follow or left == 0:
            return
        rest = Options(stream=wanted.stream)
        watcher, changed = Watcher(), asyncio.Event()
        try:
            watcher.watch(path.parent, lambda _name: changed.set(), _MODIFY | CREATE | MOVED | CLOSE_WRITE)
            while left != 0:
                changed.clear()
                over = ended()
                for data in _batches(shown(select(tail.records(), rest))):
                    yield data
                if tail.rotated():
                    tail.close()
                    tail = _Tail(path)
                    continue
                if over:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await changed.wait()
        finally:
            watcher.close()
    finally:
        tail.close()


def _batches(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces joined, so that a long log is not sent line by line."""
    batch = bytearray()
    for part in parts:
        batch += part
        if len(batch) > 32 << 10:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)


def _chain(*sources: Iterator[Line]) -> Iterator[Line]:
    for source in sources:
        yield from source
