"""One thing that was looked at, what was seen, and how to mend it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # there is a substitute, or it is only good to know
    MISSING = "missing"  # Mycel does not work without it


class Finding(NamedTuple):
    """A row of the report."""

    area: str
    what: str
    level: Level
    seen: str
    mend: str = ""


def needed(area: str, what: str, present: bool, seen: str, *, mend: str) -> Finding:
    """Something Mycel cannot do without."""
    return Finding(area, what, Level.OK if present else Level.MISSING, seen, "" if present else mend)


def optional(area: str, what: str, present: bool, seen: str, *, mend: str) -> Finding:
    """Something Mycel uses when it is there."""
    return Finding(area, what, Level.OK if present else Level.NOTE, seen, "" if present else mend)
