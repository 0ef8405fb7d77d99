"""One node's plan: a mapping for every map of the datapath, under one version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mycel.abi import (
    AliasKey,
    AliasValue,
    AnnouncedKey,
    AnnouncedValue,
    BackendKey,
    BackendValue,
    EndpointKey,
    EndpointValue,
    InterfaceKey,
    IpcacheKey,
    IpcacheLpmKey,
    IpcacheValue,
    NodeKey,
    NodeValue,
    PolicyKey,
    PolicyValue,
    ProxyKey,
    ProxyValue,
    ServiceKey,
    ServiceValue,
    SlotKey,
    SlotValue,
)

APPLY_ORDER = (
    "nodes",
    "backends",
    "service_slots",
    "services",
    "announced",
    "proxies",
    "policy",
    "endpoints",
    "interfaces",
    "aliases",
    "ipcache",
    "ipcache_lpm",
)
"""What is pointed at comes first (a service after its backends, an endpoint after its policy), and an address
gets an identity when every endpoint's policy knows it; deletes go backwards.
"""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What the node's datapath should hold. Plans of equal rows are equal, whatever their version."""

    endpoints: Mapping[EndpointKey, EndpointValue]
    interfaces: Mapping[InterfaceKey, EndpointValue]
    ipcache: Mapping[IpcacheKey, IpcacheValue]
    ipcache_lpm: Mapping[IpcacheLpmKey, IpcacheValue]
    nodes: Mapping[NodeKey, NodeValue]
    services: Mapping[ServiceKey, ServiceValue]
    service_slots: Mapping[SlotKey, SlotValue]
    backends: Mapping[BackendKey, BackendValue]
    policy: Mapping[int, Mapping[PolicyKey, PolicyValue]] = field(
        default_factory=dict[int, Mapping[PolicyKey, PolicyValue]]
    )
    aliases: Mapping[AliasKey, AliasValue] = field(default_factory=dict[AliasKey, AliasValue])
    announced: Mapping[AnnouncedKey, AnnouncedValue] = field(default_factory=dict[AnnouncedKey, AnnouncedValue])
    proxies: Mapping[ProxyKey, ProxyValue] = field(default_factory=dict[ProxyKey, ProxyValue])
    version: int = field(default=0, compare=False)

    def by_map(self) -> dict[str, Mapping[Any, Any]]:
        """Rows by name of the map, in APPLY_ORDER."""
        return {name: getattr(self, name) for name in APPLY_ORDER}

    def __str__(self) -> str:
        return f"plan {self.version}: " + " ".join(f"{name}={len(rows)}" for name, rows in self.by_map().items())
