"""What can go wrong with the store; each message names the file and the next step."""

from __future__ import annotations


class StoreError(Exception):
    """Any failure of the store."""


class StoreCorrupt(StoreError):
    """The database fails its integrity check or is not ours: refuse to start."""


class StoreFailed(StoreError):
    """A commit failed (disk full, I/O error): nothing of that group was written."""


class RevisionTooOld(StoreError):
    """A watch asked for changes that were compacted away: the caller lists again (HTTP 410)."""
