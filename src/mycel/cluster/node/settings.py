"""What a node program is told at creation: `/etc/kubernetes/node.json` in the node's own root."""

from __future__ import annotations

from pathlib import Path

import msgspec

CONFIG = Path("/etc/kubernetes")


class NodeSettings(msgspec.Struct, frozen=True):
    """One node's fixed facts."""

    name: str
    cluster: str
    role: str
    address: str
    cgroup: str  # below every hierarchy's root
    cluster_dns: str
    cluster_domain: str = "cluster.local"
    labels: dict[str, str] = {}
    taint_control_plane: bool = False
    install_roots: tuple[str, ...] = ()
    pods: Path = Path("/var/lib/kubelet/pods")
    pod_logs: Path = Path("/var/log/pods")
    container_logs: Path = Path("/var/log/containers")
    images: Path = Path("/var/lib/mycel/images")
    max_pods: int = 250


def load(folder: Path = CONFIG) -> NodeSettings:
    """Read the settings; raises msgspec.ValidationError naming the field, or OSError."""
    return msgspec.json.decode((folder / "node.json").read_bytes(), type=NodeSettings)
