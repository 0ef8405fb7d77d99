"""Changes in folders as callbacks of the event loop, instead of polling."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_HEADER = struct.Struct("iIII")
CLOSE_WRITE = 0x8
MOVED = 0xC0
CREATE = 0x100
DELETE = 0x200


class Watcher:
    """One inotify descriptor; `watch(folder, callback)` calls `callback(file name)` for every change."""

    def __init__(self) -> None:
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}; raise fs.inotify.max_user_instances")
        self._callbacks: dict[int, Callable[[str], None]] = {}
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def watch(
        self, folder: Path, callback: Callable[[str], None], mask: int = CLOSE_WRITE | MOVED | CREATE | DELETE
    ) -> None:
        """Follow one folder (not what is below its folders). Raises OSError."""
        wd: int = _libc.inotify_add_watch(self._fd, str(folder).encode(), ctypes.c_uint32(mask))
        if wd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify {folder}: {os.strerror(number)}")
        self._callbacks[wd] = callback

    def close(self) -> None:
        """Stop following."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._fd, 65536)
            offset = 0
            while offset < len(data):
                wd, _mask, _cookie, length = _HEADER.unpack_from(data, offset)
                offset += _HEADER.size
                name = data[offset : offset + length].rstrip(b"\0").decode(errors="replace")
                offset += length
                callback = self._callbacks.get(wd)
                if callback:
                    callback(name)
