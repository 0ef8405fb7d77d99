"""What was learnt, on disk: a line per answered address, appended before the answer leaves.

The file is in /run, so it is as old as the boot; its times are of CLOCK_BOOTTIME, which no clock change moves.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mycel.kit.files import replace_private
from mycel.model.address import Address, format_address
from mycel.plan.dns import LearntLine
from mycel.policy.name_cache import Entry

_LIMIT = 256 << 20
_SPARE_LINES = 20_000
_MAPPED = bytes(10) + b"\xff\xff"

_DECODER = msgspec.json.Decoder(LearntLine)


class Journal:
    """See the module."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._lines = 0

    def load(self) -> Iterator[Entry]:
        """What an earlier process had learnt; a line it did not finish is left out."""
        try:
            content = self._path.read_bytes() if self._path.stat().st_size <= _LIMIT else b""
        except OSError:
            return
        for raw in content.splitlines():
            try:
                line = _DECODER.decode(raw)
                yield Entry(line.name, _address(line.address), line.until_s, _address(line.source))
            except (ValueError, OSError):
                continue

    def append(self, entries: Iterable[Entry]) -> None:
        """Add what was learnt."""
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        lines = [_line(entry) for entry in entries]
        os.write(self._fd, b"".join(lines))
        self._lines += len(lines)

    def compact(self, entries: Iterable[Entry], count: int, *, now: bool = False) -> None:
        """Write the file anew when it has much that is not true any more, or `now`."""
        if not now and self._lines < 4 * count + _SPARE_LINES:
            return
        replace_private(self._path, map(_line, entries))
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._lines = count


def _address(text: str) -> Address:
    """As `parse_address`, ten times as fast: clients wait while the file is read. Raises OSError."""
    if ":" in text:
        return Address(socket.inet_pton(socket.AF_INET6, text))
    return Address(_MAPPED + socket.inet_pton(socket.AF_INET, text))


def _line(entry: Entry) -> bytes:
    text = LearntLine(entry.name, format_address(entry.address), round(entry.until_s, 1), format_address(entry.source))
    return msgspec.json.encode(text) + b"\n"
