"""The last valid version of policies that are not valid now, on disk: a restart must not open what they closed.

A file exists only while the API server's version of its object is not valid, and counts only for that object (by
its uid), so that it cannot bring back what was deleted.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mycel.kit.files import replace_private
from mycel.policy.engine import PolicyKeyRef

log = logging.getLogger(__name__)
_FILE_LIMIT = 4 << 20


class PolicyFiles:
    """The directory of files, one per object."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._there = {path.name for path in directory.iterdir()}

    def save(self, key: PolicyKeyRef, manifest: Mapping[str, Any]) -> None:
        """Keep the version that is in force."""
        path = self._path(key)
        replace_private(path, [msgspec.json.encode(manifest)])
        self._there.add(path.name)

    def load(self, key: PolicyKeyRef, uid: str) -> dict[str, Any] | None:
        """The kept version of the object with this uid; None when there is none."""
        path = self._path(key)
        try:
            if path.stat().st_size > _FILE_LIMIT:
                raise ValueError("it is too large")
            manifest: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as exc:
            log.error("policy file %s cannot be used: %s", path, exc)
            return None
        return manifest if manifest.get("metadata", {}).get("uid") == uid else None

    def remove(self, key: PolicyKeyRef) -> None:
        """The object is valid again, or gone."""
        if not self._there:
            return  # as nearly always
        path = self._path(key)
        path.unlink(missing_ok=True)
        self._there.discard(path.name)

    def _path(self, key: PolicyKeyRef) -> Path:
        return self._directory / f"{hashlib.sha256('/'.join(key).encode()).hexdigest()[:32]}.json"
