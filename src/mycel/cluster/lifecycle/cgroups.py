"""The cluster's control groups: every process of it lives below `<hierarchy>/mycel-<token>`, so none can be missed.

Membership is inherited on fork, which makes "end everything" one write to `cgroup.kill`, with no list of pids to trust.
Machines differ: v2 alone at /sys/fs/cgroup, or v1 hierarchies with an empty v2 beside them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from mycel.cluster.lifecycle.errors import LifecycleError

_CONTROLLERS = ("cpu", "memory", "pids", "cpuset", "io")


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Mounted control group file systems."""

    unified: Path
    legacy: tuple[Path, ...]

    @property
    def pure(self) -> bool:
        """Whether v2 carries the controllers (no v1 hierarchy is mounted)."""
        return not self.legacy


def hierarchies() -> Hierarchies:
    """What is mounted here. Raises LifecycleError without a v2 hierarchy: cgroup BPF hooks need one."""
    unified: Path | None = None
    legacy: list[Path] = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            kind, fields = right.split(" ", 1)[0], left.split(" ")
            if fields[3] != "/" or not fields[4].startswith("/sys/fs/cgroup"):
                continue  # a part of a hierarchy shown elsewhere, such as a node's own
            if kind == "cgroup2" and unified is None:
                unified = Path(fields[4])
            elif kind == "cgroup":
                legacy.append(Path(fields[4]))
    if unified is None:
        raise LifecycleError(
            "no cgroup2 is mounted below /sys/fs/cgroup: mkdir -p /sys/fs/cgroup/unified && "
            "mount -t cgroup2 none /sys/fs/cgroup/unified"
        )
    return Hierarchies(unified, tuple(legacy))


def make(path: str, leaf: str) -> Path:
    """Make `<unified>/<path>/<leaf>` and hand controllers down to `path` where v2 has them; returns the leaf."""
    found = hierarchies()
    place = found.unified
    for part in Path(path).parts:
        place = place / part
        place.mkdir(exist_ok=True)
        if found.pure:
            _delegate(place.parent)
            _delegate(place)
    (place / leaf).mkdir(exist_ok=True)
    return place / leaf


def _delegate(place: Path) -> None:
    available = (place / "cgroup.controllers").read_text().split()
    for name in _CONTROLLERS:
        if name in available:
            with contextlib.suppress(OSError):  # a group with processes of its own cannot; limits are then not enforced
                (place / "cgroup.subtree_control").write_text(f"+{name}")


def enter(place: Path) -> None:
    """Move the calling process; children follow."""
    (place / "cgroup.procs").write_text("0")


def processes(path: str) -> list[int]:
    """Every process at or below `path`."""
    base = hierarchies().unified / path
    found: list[int] = []
    for folder, _, _ in os.walk(base):
        with contextlib.suppress(FileNotFoundError, OSError):
            found += [int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split()]
    return found


def kill(path: str, *, timeout_s: float = 20) -> None:
    """End every process at or below `path` with SIGKILL and wait until the last is gone. Raises LifecycleError."""
    base = hierarchies().unified / path
    deadline = time.monotonic() + timeout_s
    while left := processes(path):
        try:
            (base / "cgroup.kill").write_text("1")  # kernel 5.14: atomic, forks included
        except OSError:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise LifecycleError(
                f"processes {left[:5]} of {base} do not end: look at /proc/<pid>/stack, then try again"
            )
        time.sleep(0.02)


def remove(path: str) -> None:
    """Remove the groups at and below `path` from every hierarchy; they must be empty of processes."""
    found = hierarchies()
    for root in (found.unified, *found.legacy):
        for folder, _, _ in os.walk(root / path, topdown=False):
            _rmdir(Path(folder))


def _rmdir(folder: Path) -> None:
    for _ in range(50):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # EBUSY for a moment after the last process went
            time.sleep(0.02)
        else:
            return
