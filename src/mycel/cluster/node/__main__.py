"""`python -m mycel.cluster.node --cluster NAME --node NODE`: enter the node's place, then become the node program.

Entering comes before anything else is imported or started: namespaces are changed while there is one thread, and
everything started later inherits the node's control group, by which its cgroup BPF programs apply.
"""

from __future__ import annotations

import argparse
import os
import sys

from mycel.cluster import linux
from mycel.cluster.lifecycle import cgroups, record
from mycel.cluster.lifecycle.nodespace import cgroup_of
from mycel.cluster.lifecycle.paths import ClusterPaths


def enter(cluster: str, node: str) -> None:
    """Move this process into the node's control group and namespaces. Raises OSError, LifecycleError."""
    paths = ClusterPaths.of(cluster)
    known = record.read(paths)
    if known is None:
        raise SystemExit(f"there is no cluster {cluster} at {paths.state}")
    cgroups.enter(cgroups.make(cgroup_of(known, known.node(node)), "system"))
    flags = {"net": linux.CLONE_NEWNET, "uts": linux.CLONE_NEWUTS, "mnt": linux.CLONE_NEWNS}
    files = {kind: os.open(paths.namespace(node, kind), os.O_RDONLY | os.O_CLOEXEC) for kind in flags}
    for kind, flag in flags.items():
        linux.setns_fd(files[kind], flag, f"{node}.{kind}")
        os.close(files[kind])
    os.chdir("/")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="mycel-node")
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--node", required=True)
    arguments = parser.parse_args()
    enter(arguments.cluster, arguments.node)
    from mycel.cluster.node.main import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
