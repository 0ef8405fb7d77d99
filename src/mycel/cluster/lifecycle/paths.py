"""Where a cluster's files are. `MYCEL_STATE_DIR` and `MYCEL_RUN_DIR` move everything, so tests live side by side."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


def state_root() -> Path:
    """What survives a reboot."""
    return Path(os.environ.get("MYCEL_STATE_DIR") or "/var/lib/mycel").absolute()


def run_root() -> Path:
    """What a reboot may empty."""
    return Path(os.environ.get("MYCEL_RUN_DIR") or "/run/mycel").absolute()


@dataclass(frozen=True, slots=True)
class ClusterPaths:
    """All places of one cluster on this machine."""

    name: str
    state: Path
    run: Path

    @classmethod
    def of(cls, name: str) -> ClusterPaths:
        """The places of cluster `name` below the configured roots."""
        return cls(name, state_root() / "clusters" / name, run_root() / name)

    @property
    def record(self) -> Path:
        return self.state / "cluster.json"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def apiserver(self) -> Path:
        return self.state / "apiserver"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def images(self) -> Path:
        return self.state / "images"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def namespaces(self) -> Path:
        return self.run / "ns"

    def node(self, node: str) -> Path:
        """One node's files: overlay upper, pods, containers, logs."""
        return self.state / "nodes" / node

    def namespace(self, node: str, kind: str) -> Path:
        """The file that keeps a node's namespace (`net`, `mnt`, `uts`) alive."""
        return self.namespaces / f"{node}.{kind}"

    @property
    def token(self) -> str:
        """Eight characters that tell this cluster's interfaces, tables and cgroups from everybody else's."""
        return hashlib.sha256(str(self.state).encode()).hexdigest()[:8]

    @property
    def bridge(self) -> str:
        return f"mycel-{self.token}"  # 14 characters; interfaces may have 15

    def veth(self, index: int) -> str:
        """The machine's end of the `index`-th node's cable."""
        return f"my{self.token}n{index}"

    @property
    def nft_table(self) -> str:
        return f"mycel-{self.token}"

    @property
    def cgroup(self) -> str:
        """Path below each hierarchy's root; every process of the cluster is in it."""
        return f"mycel-{self.token}"
