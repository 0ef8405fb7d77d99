"""The first process of the container dns-proxy: `cilium-dns-proxy [--cgroup-root DIR] [options of the proxy]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mycel.kit.supervise import supervise


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="cilium-dns-proxy", description="The mesh's DNS proxy, kept running.")
    parser.add_argument("--cgroup-root", type=Path, default=Path("/run/cilium/cgroupv2"))
    parser.add_argument("--state-dir", type=Path, default=Path("/var/run/cilium"))
    given, rest = parser.parse_known_args()
    folder: Path = given.state_dir / "dns-proxy"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mycel.dnsproxy", f"--state-dir={given.state_dir}", *rest]
    return supervise("cilium-dns-proxy", command, group=folder / "group", cgroup_root=given.cgroup_root)


if __name__ == "__main__":
    sys.exit(main())
