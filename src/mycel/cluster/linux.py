"""The few system calls of namespaces and mounts that Python 3.11 lacks, as plain functions that raise OSError.

Used by `lifecycle` (nodes) and `node` (pods). Nothing here knows clusters.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(path: str | Path, flags: int) -> None:
    """Move the calling thread into the namespace that `path` names."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns_fd(fd, flags, str(path))
    finally:
        os.close(fd)


def setns_fd(fd: int, flags: int, what: str = "") -> None:
    """Move the calling thread into the namespace of an open file descriptor."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), f"setns {what}")


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(),
        str(target).encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, f"mount {source} on {target}")


def bind(source: str | Path, target: str | Path, *, recursive: bool = False, read_only: bool = False) -> None:
    """Bind-mount; read-only needs the second call that the kernel asks for."""
    mount(str(source), target, flags=MS_BIND | (MS_REC if recursive else 0))
    if read_only:
        mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def umount(target: str | Path, *, detach: bool = True) -> None:
    """umount2(2), lazily unless told otherwise, never through a symbolic link."""
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if detach else 0)
    _check(_libc.umount2(str(target).encode(), ctypes.c_int(flags)), f"umount {target}")


def pivot_root(new: str | Path, old: str | Path) -> None:
    """pivot_root(2): `new` becomes the root, the old one moves to `old`."""
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    _check(_libc.syscall(ctypes.c_long(number), str(new).encode(), str(old).encode()), f"pivot_root {new}")


def sethostname(name: str) -> None:
    """The host name of the calling thread's UTS namespace."""
    raw = name.encode()
    _check(_libc.sethostname(raw, ctypes.c_size_t(len(raw))), "sethostname")


def mounts_under(prefix: str | Path) -> list[str]:
    """Mount points at or below `prefix` in our own mount namespace, deepest (latest) first."""
    base = str(prefix).rstrip("/")
    found: list[str] = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            point = line.split(" ", 5)[4].encode().decode("unicode_escape")
            if point == base or point.startswith(base + "/"):
                found.append(point)
    return found[::-1]


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None when there is no such (live) process.

    With the pid it names a process for good: pids are used again, pairs are not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
