"""`mycel-supervisor`: keeps the API server and the node programs of one cluster running.

Watches them by pidfd, so it adopts what a previous supervisor started; restarts with backoff. It serves nobody:
when it dies everything goes on, only restarts wait until `mycel cluster start`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mycel.cluster.lifecycle import cgroups, processes, record
from mycel.cluster.lifecycle.nodespace import cgroup_of
from mycel.cluster.lifecycle.paths import ClusterPaths
from mycel.cluster.lifecycle.record import ClusterRecord

log = logging.getLogger("mycel-supervisor")
_BACKOFF_S = (0.2, 10.0)
_STABLE_S = 30.0  # running this long forgives earlier failures


@dataclass(slots=True)
class Ward:
    """One process to keep alive."""

    name: str
    command: list[str]
    cgroup: Callable[[], Path]
    pidfd: int = -1
    pid: int = 0
    failures: int = 0
    since: float = field(default_factory=time.monotonic)
    restart_at: float = 0.0


def backoff_s(failures: int) -> float:
    """Seconds to wait before the next start after so many failures in a row."""
    low, high = _BACKOFF_S
    return min(high, low * 2 ** max(failures - 1, 0))


def wards(paths: ClusterPaths, cluster: ClusterRecord) -> list[Ward]:
    """What has to run, from the record alone."""
    listens = [f"{host}:{cluster.api_port}" for host in dict.fromkeys((cluster.api_address, cluster.gateway))]
    arguments = ["--state", str(paths.apiserver), "--pki", str(paths.pki)]
    for listen in listens:
        arguments += ["--listen", listen]
    arguments += ["--service-subnet", cluster.service_subnet, "--pod-subnet", cluster.pod_subnet]
    found = [
        Ward(
            processes.API_SERVER,
            processes.module("mycel.cluster.apiserver", *arguments),
            lambda: cgroups.make(cluster.cgroup, "system"),
        )
    ]
    for node in cluster.nodes:
        found.append(
            Ward(
                node.name,
                processes.module("mycel.cluster.node", "--cluster", cluster.name, "--node", node.name),
                lambda node=node: cgroups.make(cgroup_of(cluster, node), "system"),
            )
        )
    return found


def supervise(paths: ClusterPaths, all_wards: list[Ward]) -> None:
    """Run until SIGTERM; children are left alone then."""
    stopping: list[int] = []
    wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    poll = select.poll()
    poll.register(wake_r, select.POLLIN)
    for ward in all_wards:
        if not adopt(paths, ward):
            _start(paths, ward)
        poll.register(ward.pidfd, select.POLLIN)
    while not stopping:
        waiting = [ward for ward in all_wards if ward.pidfd < 0]
        delay = min((ward.restart_at for ward in waiting), default=None)
        timeout = None if delay is None else max(0, int((delay - time.monotonic()) * 1000) + 1)
        ready = {fd for fd, _ in poll.poll(timeout)}
        if wake_r in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_r, 512)
        for ward in all_wards:
            if ward.pidfd in ready:
                poll.unregister(ward.pidfd)
                _ended(ward)
            elif ward.pidfd < 0 and time.monotonic() >= ward.restart_at:
                _start(paths, ward)
                poll.register(ward.pidfd, select.POLLIN)


def adopt(paths: ClusterPaths, ward: Ward) -> bool:
    """Take over a process that an earlier supervisor started."""
    known = processes.read(paths, ward.name)
    if known is None or not known.alive:
        return False
    try:
        pidfd = os.pidfd_open(known.pid)
    except ProcessLookupError:
        return False
    if not known.alive:  # it went, and its number may already mean another process
        os.close(pidfd)
        return False
    ward.pid, ward.pidfd, ward.since = known.pid, pidfd, time.monotonic()
    log.info("%s: adopted, pid %d", ward.name, known.pid)
    return True


def _start(paths: ClusterPaths, ward: Ward) -> None:
    process = processes.start(paths, ward.name, ward.command, cgroup=ward.cgroup())
    ward.pid, ward.pidfd, ward.since = process.pid, os.pidfd_open(process.pid), time.monotonic()
    log.info("%s: started, pid %d", ward.name, process.pid)


def _ended(ward: Ward) -> None:
    code = "unknown"
    with contextlib.suppress(ChildProcessError):  # an adopted process is not our child
        _, status = os.waitpid(ward.pid, os.WNOHANG)
        code = str(os.waitstatus_to_exitcode(status))
    os.close(ward.pidfd)
    ward.pidfd = -1
    now = time.monotonic()
    ward.failures = 1 if now - ward.since > _STABLE_S else ward.failures + 1
    ward.restart_at = now + backoff_s(ward.failures)
    log.warning("%s: ended (exit code %s), again in %.1f s", ward.name, code, ward.restart_at - now)


def main() -> int:
    """Entry point of `python -m mycel.cluster.lifecycle.supervisor`."""
    parser = argparse.ArgumentParser(prog="mycel-supervisor")
    parser.add_argument("--cluster", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    paths = ClusterPaths.of(arguments.cluster)
    cluster = record.read(paths)
    if cluster is None:
        log.error("there is no cluster %s at %s", arguments.cluster, paths.state)
        return 1
    supervise(paths, wards(paths, cluster))
    return 0


if __name__ == "__main__":
    sys.exit(main())
