"""The first process of the container dns-proxy: `cilium-dns-proxy [--cgroup-root DIR] [options of the proxy]`.

It has loaded what the proxy is made of, so a new one is there in a moment; and it opens the listeners, so that queries
wait for it meanwhile.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path

from mycel.dnsproxy import main as proxy
from mycel.kit.supervise import Forked, supervise


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="cilium-dns-proxy", description="The mesh's DNS proxy, kept running.")
    parser.add_argument("--cgroup-root", type=Path, default=Path("/run/cilium/cgroupv2"))
    given, rest = parser.parse_known_args()
    options, debug = proxy.read_options(rest)
    folder = options.state_dir / "dns-proxy"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    gc.collect()
    gc.freeze()

    opened = proxy.open_listeners(options)

    def start() -> Forked:
        process = Forked(lambda: proxy.serve(options, opened, debug=debug))
        for each in opened.values():
            each.close()
        opened.clear()
        return process

    def ended() -> None:  # at once: the next start may be put off
        opened.update(proxy.open_listeners(options))

    return supervise("cilium-dns-proxy", start, group=folder / "group", cgroup_root=given.cgroup_root, ended=ended)


if __name__ == "__main__":
    sys.exit(main())
