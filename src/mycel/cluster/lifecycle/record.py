"""`cluster.json`: everything that was made, or is about to be made, for one cluster.

Written before the thing it names is made, so a delete after any crash finds all of it. Replaced atomically.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from mycel.cluster.lifecycle.errors import LifecycleError
from mycel.cluster.lifecycle.paths import ClusterPaths, state_root


class MountRecord(msgspec.Struct, frozen=True):
    """One extra mount of a node."""

    host_path: str
    container_path: str
    read_only: bool = False


class NodeRecord(msgspec.Struct, frozen=True):
    """One node: its name, address and cable."""

    name: str
    role: str
    address: str
    veth: str
    labels: dict[str, str] = {}
    mounts: tuple[MountRecord, ...] = ()


class ClusterRecord(msgspec.Struct, frozen=True):
    """One cluster of this machine."""

    name: str
    bridge: str
    network: str  # of the nodes, e.g. 172.18.0.0/16
    gateway: str  # the bridge's own address in it
    pod_subnet: str
    service_subnet: str
    api_address: str
    api_port: int
    nft_table: str
    cgroup: str
    nodes: tuple[NodeRecord, ...]
    kubeconfigs: tuple[str, ...] = ()  # files that carry our context
    ip_forward_was: str = "1"
    ready: bool = False
    version: int = 1

    @property
    def context(self) -> str:
        return f"mycel-{self.name}"

    @property
    def kube_dns(self) -> str:
        """The well-known address of cluster DNS: the tenth of the service network."""
        return _nth(self.service_subnet, 10)

    @property
    def kubernetes_service(self) -> str:
        """The well-known address of the API server's Service: the first of the service network."""
        return _nth(self.service_subnet, 1)

    @property
    def servers(self) -> tuple[str, str]:
        """The API server for the machine and for nodes."""
        return f"https://{self.api_address}:{self.api_port}", f"https://{self.gateway}:{self.api_port}"

    def node(self, name: str) -> NodeRecord:
        """The node called `name`. Raises LifecycleError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LifecycleError(f"cluster {self.name} has no node {name}: it has {', '.join(n.name for n in self.nodes)}")


def _nth(network: str, index: int) -> str:
    import ipaddress

    return str(ipaddress.ip_network(network)[index])


def write(paths: ClusterPaths, record: ClusterRecord) -> None:
    """Replace the record; it is on disk when this returns."""
    paths.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(paths.record, msgspec.json.format(msgspec.json.encode(record)), mode=0o600)


def read(paths: ClusterPaths) -> ClusterRecord | None:
    """The record, or None when no such cluster was ever begun. Raises LifecycleError when it is unreadable."""
    try:
        return msgspec.json.decode(paths.record.read_bytes(), type=ClusterRecord)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as exc:
        raise LifecycleError(f"{paths.record} is damaged ({exc}): delete the cluster with --force") from exc


def names() -> list[str]:
    """All clusters begun below the configured state folder."""
    root = state_root() / "clusters"
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def write_atomic(path: Path, data: bytes, *, mode: int) -> None:
    """Write beside, flush, rename over."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        raise
