"""A bare node for tests of the loader: a network namespace, a bpffs and a v2 cgroup of its own."""

from __future__ import annotations

import ipaddress
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mycel.datapath.node import Datapath
from mycel.datapath.settings import DatapathSettings
from tests.bpf.kernel import compiled
from tests.bpf.lab import inside, run

NODE, ROUTER, POD = (ipaddress.IPv4Address(each) for each in ("172.31.91.2", "10.244.91.1", "10.244.91.20"))


def settings_at(tmp: Path, tag: str) -> DatapathSettings:
    """Settings of the node whose filesystems are below `tmp`."""
    return DatapathSettings(
        node_ipv4=NODE,
        router_ipv4=ROUTER,
        pod_networks=(ipaddress.ip_network("10.244.0.0/16"),),
        pins=tmp / "bpf" / "mycel",
        cgroup=tmp / "cgroup" / tag,
        run_dir=tmp / "run",
        objects=tuple(compiled()),
        ring_bytes=65536,
    )


class Bed:
    """Make it, use it, close it: nothing is left."""

    def __init__(self, tmp: Path) -> None:
        self.tag = f"myl{os.getpid() % 100000}"
        self.namespaces: list[str] = []
        self._closers: list[Callable[[], None]] = []
        self.bpffs, self.cgroups = tmp / "bpf", tmp / "cgroup"
        self.cgroup = self.cgroups / self.tag
        for path, kind in ((self.bpffs, "bpf"), (self.cgroups, "cgroup2")):
            path.mkdir()
            run("mount", "-t", kind, "none", str(path))
        self.cgroup.mkdir()
        self.node = self.namespace("node")
        run("ip", "-n", self.node, "link", "add", "eth0", "type", "veth", "peer", "name", "wire")
        for words in (f"addr add {NODE}/24 dev eth0", "link set eth0 up", "link set wire up"):
            run("ip", "-n", self.node, *words.split())
        self.settings = settings_at(tmp, self.tag)

    def namespace(self, name: str) -> str:
        """A network namespace with its loopback up; `ip netns` knows it by the name returned."""
        full = f"{self.tag}-{name}"
        run("ip", "netns", "add", full)
        self.namespaces.append(full)
        run("ip", "-n", full, "link", "set", "lo", "up")
        return full

    def at_end(self, close: Callable[[], None]) -> None:
        """Have something closed, also when the test fails."""
        self._closers.append(close)

    def close(self) -> None:
        """Take everything away."""
        for close in self._closers:
            close()
        for each in self.namespaces:
            run("ip", "netns", "delete", each)
        for path in (self.bpffs, self.cgroups):
            if path == self.cgroups:
                self.cgroup.rmdir()
            run("umount", str(path))


def main() -> None:
    """`python -m tests.bpf.bed TMP TAG`: an agent that opens the datapath of a bed's node, says so, and stays."""
    tmp, tag = Path(sys.argv[1]), sys.argv[2]
    with inside(f"{tag}-node"):
        datapath = Datapath.open(settings_at(tmp, tag))
    print("up", flush=True)
    time.sleep(600)
    datapath.close()


if __name__ == "__main__":
    main()
