"""kind's `v1alpha4` cluster file → `ClusterConfig`. Pure: text in, value out.

What this cluster cannot do is refused by name (`nodes[1].extraPortMappings`), never skipped silently.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Any

import yaml

from mycel.cluster.lifecycle.errors import ConfigInvalid

_API_VERSION = "kind.x-k8s.io/v1alpha4"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,48}[a-z0-9])?")
_MAX_BYTES = 1 << 20
_MAX_NODES = 64


class Role(StrEnum):
    """What a node is for."""

    CONTROL_PLANE = "control-plane"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Mount:
    """A machine's path shown inside a node (kind's extraMounts)."""

    host_path: str
    container_path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node as asked for."""

    name: str
    role: Role
    labels: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """A cluster as asked for; the same on every machine."""

    name: str
    nodes: tuple[NodeConfig, ...]
    pod_subnet: IPv4Network = field(default_factory=lambda: IPv4Network("10.244.0.0/16"))
    service_subnet: IPv4Network = field(default_factory=lambda: IPv4Network("10.96.0.0/16"))
    api_server_address: str = "127.0.0.1"
    api_server_port: int = 0  # 0: 6443 or the next free one
    disable_default_cni: bool = False


def parse(text: str, *, name: str | None = None) -> ClusterConfig:
    """The cluster that a kind file describes; `name` (the command line's) wins over the file's. Raises
    ConfigInvalid.
    """
    if len(text) > _MAX_BYTES:
        raise ConfigInvalid(f"the cluster file is larger than {_MAX_BYTES} bytes")
    try:
        data = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as exc:
        raise ConfigInvalid(f"the cluster file is not YAML: {exc}") from exc
    top = _mapping(data, "the file", {"apiVersion", "kind", "name", "nodes", "networking"})
    if top.get("apiVersion") != _API_VERSION:
        raise ConfigInvalid(f"apiVersion: want {_API_VERSION}, got {top.get('apiVersion')!r}")
    if top.get("kind") != "Cluster":
        raise ConfigInvalid(f"kind: want Cluster, got {top.get('kind')!r}")
    cluster = name or _string(top.get("name", "kind"), "name")
    if not _NAME.fullmatch(cluster):
        raise ConfigInvalid(f"name: {cluster!r} is not a name of lower-case letters, digits, '-' and '.' (at most 50)")
    return ClusterConfig(cluster, _nodes(top.get("nodes"), cluster), **_networking(top.get("networking")))


def default(name: str = "kind") -> ClusterConfig:
    """One control-plane node, as kind makes without a file."""
    return parse(f"apiVersion: {_API_VERSION}\nkind: Cluster\n", name=name)


def _nodes(value: Any, cluster: str) -> tuple[NodeConfig, ...]:
    entries: list[Any] = [{"role": "control-plane"}] if value is None else _list(value, "nodes")
    if not 1 <= len(entries) <= _MAX_NODES:
        raise ConfigInvalid(f"nodes: want 1 to {_MAX_NODES} nodes, got {len(entries)}")
    counts: dict[Role, int] = {}
    nodes: list[NodeConfig] = []
    for index, entry in enumerate(entries):
        path = f"nodes[{index}]"
        node = _mapping(entry, path, {"role", "labels", "extraMounts"})
        try:
            role = Role(_string(node.get("role", "control-plane"), f"{path}.role"))
        except ValueError as exc:
            raise ConfigInvalid(f"{path}.role: {exc} (want control-plane or worker)") from exc
        counts[role] = counts.get(role, 0) + 1
        number = "" if counts[role] == 1 else str(counts[role])
        labels = _mapping(node.get("labels") or {}, f"{path}.labels", None)
        nodes.append(
            NodeConfig(
                f"{cluster}-{role}{number}",
                role,
                tuple((key, _string(label, f"{path}.labels.{key}")) for key, label in labels.items()),
                tuple(_mounts(node.get("extraMounts"), path)),
            )
        )
    if counts.get(Role.CONTROL_PLANE, 0) != 1:
        raise ConfigInvalid(
            f"nodes: want exactly one control-plane node (the API server runs once), got "
            f"{counts.get(Role.CONTROL_PLANE, 0)}"
        )
    return tuple(nodes)


def _mounts(value: Any, path: str) -> Iterable[Mount]:
    for index, entry in enumerate(_list([] if value is None else value, f"{path}.extraMounts")):
        where = f"{path}.extraMounts[{index}]"
        mount = _mapping(entry, where, {"hostPath", "containerPath", "readOnly"})
        paths = [_string(mount.get(key), f"{where}.{key}") for key in ("hostPath", "containerPath")]
        for key, found in zip(("hostPath", "containerPath"), paths, strict=True):
            if not found.startswith("/"):
                raise ConfigInvalid(f"{where}.{key}: {found!r} is not an absolute path")
        yield Mount(paths[0], paths[1], _bool(mount.get("readOnly", False), f"{where}.readOnly"))


def _networking(value: Any) -> dict[str, Any]:
    known = {
        "disableDefaultCNI", "podSubnet", "serviceSubnet", "apiServerAddress", "apiServerPort", "ipFamily",
        "kubeProxyMode",
    }  # fmt: skip
    net = _mapping({} if value is None else value, "networking", known)
    if net.get("ipFamily", "ipv4") != "ipv4":
        raise ConfigInvalid(f"networking.ipFamily: {net['ipFamily']!r} is not supported yet, only ipv4")
    if net.get("kubeProxyMode", "none") != "none":
        raise ConfigInvalid("networking.kubeProxyMode: there is no kube-proxy, leave it out or say none")
    port = net.get("apiServerPort", 0)
    if not isinstance(port, int) or isinstance(port, bool) or not -1 <= port <= 65535:
        raise ConfigInvalid(f"networking.apiServerPort: want a port, got {port!r}")
    address = _string(net.get("apiServerAddress", "127.0.0.1"), "networking.apiServerAddress")
    try:
        ipaddress.IPv4Address(address)
    except ValueError as exc:
        raise ConfigInvalid(f"networking.apiServerAddress: {exc}") from exc
    result: dict[str, Any] = {
        "api_server_address": address,
        "api_server_port": max(port, 0),
        "disable_default_cni": _bool(net.get("disableDefaultCNI", False), "networking.disableDefaultCNI"),
        "pod_subnet": _subnet(net.get("podSubnet", "10.244.0.0/16"), "networking.podSubnet", longest=22),
        "service_subnet": _subnet(net.get("serviceSubnet", "10.96.0.0/16"), "networking.serviceSubnet", longest=24),
    }
    if result["pod_subnet"].overlaps(result["service_subnet"]):
        raise ConfigInvalid("networking.serviceSubnet: overlaps networking.podSubnet")
    return result


def _subnet(value: Any, path: str, *, longest: int) -> IPv4Network:
    try:
        network = IPv4Network(_string(value, path))
    except ValueError as exc:
        raise ConfigInvalid(f"{path}: {exc}") from exc
    if network.prefixlen > longest:
        raise ConfigInvalid(f"{path}: {network} is too small, want /{longest} or larger")
    return network


def _mapping(value: Any, path: str, known: set[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigInvalid(f"{path}: want a mapping, got {type(value).__name__}")
    prefix = "" if path == "the file" else f"{path}."
    for key in value:
        if not isinstance(key, str):
            raise ConfigInvalid(f"{prefix}{key}: field names are strings")
        if known is not None and key not in known:
            raise ConfigInvalid(f"{prefix}{key}: not supported (known here: {', '.join(sorted(known))})")
    return value


def _list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigInvalid(f"{path}: want a list, got {type(value).__name__}")
    return value


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise ConfigInvalid(f"{path}: want a string, got {value!r}")
    return value


def _bool(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigInvalid(f"{path}: want true or false, got {value!r}")
    return value
