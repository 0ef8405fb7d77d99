"""Nodes: the Kubernetes object and what its agent publishes as CiliumNode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """A Kubernetes node."""

    name: str
    uid: str
    labels: Mapping[str, str]
    internal_addresses: tuple[str, ...]
    other_addresses: tuple[str, ...]  # ExternalIP
    pod_networks: tuple[str, ...]
    taints: tuple[str, ...]  # keys


@dataclass(frozen=True, slots=True)
class PublishedNode:
    """A CiliumNode: what the node's agent says of it."""

    name: str
    internal_addresses: tuple[str, ...]
    router_addresses: tuple[str, ...]  # CiliumInternalIP
    pod_networks: tuple[str, ...]
