"""Unix sockets that are never open to others, not for a moment."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def owner_only() -> Generator[None]:
    """What is made meanwhile has mode 0600 (umask(2): of the whole process, so nothing else may run)."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def bind_unix(kind: socket.SocketKind, path: Path) -> socket.socket:
    """A socket of mode 0600 at `path`, in place of what an earlier process left there; it does not block."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with owner_only():
            made.bind(str(path))
    except BaseException:
        made.close()
        raise
    return made
