"""CPU time of every process of a cluster while nobody uses it."""

from __future__ import annotations

import collections
import contextlib
import os
import time
from pathlib import Path

from mycel.cluster.lifecycle import cgroups, record
from mycel.cluster.lifecycle.paths import ClusterPaths

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _name(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    for index, word in enumerate(words):
        if word == b"-m" and index + 1 < len(words):
            return words[index + 1].decode()
    return Path(words[0].decode()).name


def _spent(pids: list[int]) -> dict[int, tuple[str, float]]:
    """CPU seconds of each process, its ended and waited-for children included."""
    spent: dict[int, tuple[str, float]] = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            spent[pid] = _name(pid), sum(map(int, fields[11:15])) * _TICK_S
    return spent


def idle_cores(cluster: str, *, settle_s: float = 10, seconds: float = 60) -> dict[str, object]:
    """Cores used by the whole cluster over `seconds`, and by each kind of process."""
    found = record.read(ClusterPaths.of(cluster))
    if found is None:
        raise RuntimeError(f"no cluster {cluster}")
    time.sleep(settle_s)
    before, start = _spent(cgroups.processes(found.cgroup)), time.monotonic()
    time.sleep(seconds)
    after, passed = _spent(cgroups.processes(found.cgroup)), time.monotonic() - start
    by_name: collections.Counter[str] = collections.Counter()
    for pid, (name, value) in after.items():
        by_name[name] += value - before.get(pid, (name, 0.0))[1]
    return {
        "cores": round(sum(by_name.values()) / passed, 3),
        "seconds": seconds,
        "by process": {name: round(value / passed, 4) for name, value in by_name.most_common() if value > 0},
    }
