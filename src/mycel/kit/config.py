"""Settings of a mounted ConfigMap: a file for each key. A value that cannot be used raises SettingsError, with the key.

Absent and empty are the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mycel.kit import durations

_LIMIT = 1 << 20


class SettingsError(Exception):
    """A setting cannot be used; the message names it and says what it may be."""


def read_config_dir(path: Path) -> dict[str, str]:
    """The files of a mounted ConfigMap; empty when there is none."""
    if not path.is_dir():
        return {}
    return {
        file.name: file.read_text().strip()
        for file in path.iterdir()
        if not file.name.startswith("..") and file.is_file() and file.stat().st_size <= _LIMIT
    }


def flag(config: Mapping[str, str], key: str, *, default: bool) -> bool:
    """`true` or `false`."""
    value = config.get(key, "").lower()
    if value not in ("", "true", "false"):
        raise SettingsError(f"{key} is {value!r}: say true or false")
    return value == "true" if value else default


def words(config: Mapping[str, str], key: str, known: tuple[str, ...]) -> frozenset[str]:
    """Some of `known`, separated by commas or spaces."""
    found = frozenset(config.get(key, "").replace(",", " ").split())
    if unknown := found - set(known):
        raise SettingsError(f"{key} has {', '.join(sorted(unknown))}: it knows {', '.join(known)}")
    return found


def number(config: Mapping[str, str], key: str, default: int) -> int:
    """A whole number."""
    value = config.get(key, "")
    if not value:
        return default
    if not value.isdecimal():
        raise SettingsError(f"{key} is {value!r}: say a whole number")
    return int(value)


def duration_s(config: Mapping[str, str], key: str, default_s: float) -> float:
    """Go's notation: `5s`, `1m30s`."""
    value = config.get(key, "")
    if not value:
        return default_s
    found = durations.duration_s(value)
    if found is None:
        raise SettingsError(f"{key} is {value!r}: say a duration such as 5s or 1m30s")
    return found
