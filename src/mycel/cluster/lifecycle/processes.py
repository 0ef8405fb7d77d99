"""Long-lived processes of a cluster, each known by pid and start time in `<run>/proc/<name>.json`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from mycel.cluster import linux
from mycel.cluster.lifecycle import cgroups
from mycel.cluster.lifecycle.paths import ClusterPaths
from mycel.cluster.lifecycle.record import write_atomic

SUPERVISOR = "supervisor"
API_SERVER = "apiserver"
_LOG_LIMIT = 16 << 20


class Process(msgspec.Struct, frozen=True):
    """A process for good: the pid alone may come to mean another one."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether this very process runs."""
        return linux.start_time(self.pid) == self.started


def read(paths: ClusterPaths, name: str) -> Process | None:
    """The recorded process, alive or not."""
    try:
        return msgspec.json.decode((paths.run / "proc" / f"{name}.json").read_bytes(), type=Process)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def start(paths: ClusterPaths, name: str, command: list[str], *, cgroup: Path) -> Process:
    """Start `command` in its own session inside `cgroup`, with its output appended to `<state>/logs/<name>.log`."""
    paths.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    (paths.run / "proc").mkdir(parents=True, exist_ok=True, mode=0o700)
    log = paths.logs / f"{name}.log"
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.rename(log.with_suffix(".log.1"))
    with open(log, "ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=environment(paths),
            start_new_session=True,
            # Joining before exec leaves no moment in which a delete could miss the process.
            preexec_fn=lambda: cgroups.enter(cgroup),
        )
    process = Process(child.pid, linux.start_time(child.pid) or 0)
    write_atomic(paths.run / "proc" / f"{name}.json", msgspec.json.encode(process), mode=0o600)
    return process


def environment(paths: ClusterPaths) -> dict[str, str]:
    """What cluster processes see: the folders' roots and a plain path, nothing of the user's shell."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
        "MYCEL_STATE_DIR": str(paths.state.parents[1]),
        "MYCEL_RUN_DIR": str(paths.run.parent),
    }


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our own modules with this Python."""
    return [sys.executable, "-m", name, *arguments]
