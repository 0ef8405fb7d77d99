"""The first process of the container cilium-envoy: keeps stock Envoy running (`kit.supervise`), the socket it dials
(`lending`), and while it begins anew its listeners' ports (`holding`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from pathlib import Path

from mycel.envoy.holding import Holder
from mycel.envoy.lending import Lender
from mycel.kit.supervise import supervise

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


def main() -> int:
    """`cilium-envoy --config FILE`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="cilium-envoy", description="Stock Envoy, kept running.")
    parser.add_argument("--config", default="/var/run/cilium/envoy-config/bootstrap-config.json")
    parser.add_argument("--concurrency", type=int, default=0, help="worker threads; 0: one per core")
    parser.add_argument("--drain-time-s", type=int, default=10)
    parser.add_argument("--cgroup-root", default="/run/cilium/cgroupv2", help="the node's version 2 control groups")
    parser.add_argument("--stand-in", default="cilium-envoy-stand-in", help="serves Envoy while there is no agent")
    parser.add_argument("--log-level", default="warning")
    options = parser.parse_args()
    folder = Path(FOLDER)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # it may have been made by a kubelet
    (folder / "admin.sock").unlink(missing_ok=True)
    os.umask(0o077)
    lender = Lender(folder, [options.stand_in])
    holder = Holder()
    for each in (lender, holder):
        threading.Thread(target=each.run, daemon=True).start()
    command = arguments(
        options.config,
        node=os.environ.get("K8S_NODE_NAME") or "node",
        concurrency=options.concurrency or len(os.sched_getaffinity(0)),
        drain_s=options.drain_time_s,
        log_level=options.log_level,
    )
    return supervise(
        "cilium-envoy",
        lambda: subprocess.Popen(command),
        group=folder / "group",
        cgroup_root=Path(options.cgroup_root),
        ended=holder.hold,
    )


if __name__ == "__main__":
    sys.exit(main())
