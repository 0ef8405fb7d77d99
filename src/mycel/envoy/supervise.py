"""The first process of the container cilium-envoy: keeps stock Envoy running, and starts it again at once when it ends.

Standard library only: it stays resident beside Envoy and is up in milliseconds. Kubernetes would start the container
again as well, but waits longer each time. Envoy itself keeps what it was given when the agent is away, and asks for it
again when it begins.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mycel.kit.groups import write_group

STEADY_S = 2.0  # one that ran so long did not fail at its configuration
LONGEST_PAUSE_S = 2.0
FOLDER = "/var/run/cilium/envoy"


def binary() -> str:
    """Envoy: `$MYCEL_ENVOY`, this installation's (build/envoy), or the one on PATH."""
    own = Path(__file__).resolve().parents[3] / "build" / "envoy" / "envoy" / "_bin" / "envoy"
    return os.environ.get("MYCEL_ENVOY") or (str(own) if own.exists() else "envoy")


def arguments(config: str, *, node: str, concurrency: int, drain_s: int, log_level: str) -> list[str]:
    """Envoy's command line. Listeners that go have `drain_s` seconds for what is under way."""
    return [
        binary(),
        *("--config-path", config),
        *("--service-node", node, "--service-cluster", "mycel"),
        *("--concurrency", str(concurrency)),
        *("--drain-time-s", str(drain_s), "--drain-strategy", "immediate"),
        *("--log-level", log_level, "--disable-hot-restart"),
    ]


def pause_s(failures: int) -> float:
    """How long to wait before the next start, after so many that failed at once: 0, then 0.1 s doubling."""
    return min(0.1 * 2 ** (failures - 1), LONGEST_PAUSE_S) if failures else 0.0


class Supervisor:
    """Starts a command again whenever it ends, until asked to stop."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def stop(self, *_: object) -> None:
        """Let the command end, and do not start it again."""
        self._stopping = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def run(self) -> int:
        """Until stopped."""
        failures = 0
        while not self._stopping:
            began_s = time.monotonic()
            self._process = subprocess.Popen(self._command)
            if self._stopping:
                self.stop()
            code = self._process.wait()
            if self._stopping:
                break
            failures = failures + 1 if time.monotonic() - began_s < STEADY_S else 0
            print(f"cilium-envoy: Envoy ended with {code}; it is started again", file=sys.stderr, flush=True)
            time.sleep(pause_s(failures))
        return 0


def main() -> int:
    """`cilium-envoy --config FILE`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="cilium-envoy", description="Stock Envoy, kept running.")
    parser.add_argument("--config", default="/var/run/cilium/envoy-config/bootstrap-config.json")
    parser.add_argument("--concurrency", type=int, default=0, help="worker threads; 0: one per core")
    parser.add_argument("--drain-time-s", type=int, default=10)
    parser.add_argument("--cgroup-root", default="/run/cilium/cgroupv2", help="the node's version 2 control groups")
    parser.add_argument("--log-level", default="warning")
    options = parser.parse_args()
    folder = Path(FOLDER)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "admin.sock").unlink(missing_ok=True)
    os.umask(0o077)
    # The kernel believes the marks of this group's sockets; the agent writes that down.
    while not write_group(folder / "group", Path(options.cgroup_root)):
        print(f"cilium-envoy: not below {options.cgroup_root} yet", file=sys.stderr, flush=True)
        time.sleep(0.5)
    supervisor = Supervisor(
        arguments(
            options.config,
            node=os.environ.get("K8S_NODE_NAME") or "node",
            concurrency=options.concurrency or len(os.sched_getaffinity(0)),
            drain_s=options.drain_time_s,
            log_level=options.log_level,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.stop)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
