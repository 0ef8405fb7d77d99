"""Volumes whose content comes from the API (configMap, secret, downwardAPI, projected): which files, and writing
them at once.

The files of a volume change together: a new folder is filled, then `..data` is renamed over, as kubelet does, so a
reader sees the old set or the new one.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mycel.cluster.node.errors import VolumeError
from mycel.cluster.node.names import Object

_DATA = "..data"


class File(NamedTuple):
    """One projected file."""

    content: bytes
    mode: int


Payload = dict[str, File]


def select(
    data: Mapping[str, bytes], items: Sequence[Object] | None, *, mode: int, optional: bool, what: str
) -> Payload:
    """All keys, or with `items` the chosen ones under their paths. Raises VolumeError for missing keys unless
    `optional`.
    """
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files: Payload = {}
    for item in items:
        if item["key"] not in data:
            if optional:
                continue
            raise VolumeError(f"references non-existent {what} key: {item['key']}")
        files[clean(item["path"])] = File(data[item["key"]], int(item.get("mode") or mode))
    return files


def clean(path: str) -> str:
    """A relative path that stays below the volume. Raises VolumeError."""
    parts = Path(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise VolumeError(f"volume path {path!r} must be relative and stay inside")
    return str(Path(*parts))


def write(folder: Path, files: Payload, *, group: int | None = None) -> bool:
    """Make the folder show exactly `files`; False when it did already. Owners: root, and `group` where a pod has
    an fsGroup.
    """
    folder.mkdir(parents=True, exist_ok=True)
    current = folder / _DATA
    if current.is_symlink() and _same(current, files):
        return False
    fresh = folder / f"..{time.strftime('%Y_%m_%d_%H_%M_%S', time.gmtime())}.{time.time_ns() % 10**9:09d}"
    fresh.mkdir(mode=0o755)
    for name, file in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = file.mode | 0o040 if group is not None else file.mode
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as out:
            out.write(file.content)
            os.fchmod(out.fileno(), mode)
            if group is not None:
                os.fchown(out.fileno(), -1, group)
    old = current.readlink() if current.is_symlink() else None
    beside = folder / "..data_tmp"
    beside.unlink(missing_ok=True)
    beside.symlink_to(fresh.name)
    beside.rename(current)
    heads = {Path(name).parts[0] for name in files}
    for head in heads:
        link = folder / head
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{head}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.is_symlink() and entry.name not in heads:
            entry.unlink()
    if old is not None:
        shutil.rmtree(folder / old, ignore_errors=True)
    return True


def _same(current: Path, files: Payload) -> bool:
    there = {str(path.relative_to(current)) for path in current.rglob("*") if path.is_file()}
    return there == set(files) and all((current / name).read_bytes() == file.content for name, file in files.items())
