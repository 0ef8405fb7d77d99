"""The node's maps by name, each with its layouts: the one list that ties `mycel_x` to `abi.XKey` and
`abi.XValue`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mycel import abi
from mycel.abi import layouts
from mycel.datapath import syscall
from mycel.datapath.errors import DatapathError
from mycel.datapath.maps import CounterMap, KernelMap
from mycel.datapath.policy_map import PolicyMap
from mycel.kit.reconcile import Target
from mycel.model.address import Address

PREFIX: Final = "mycel_"

# The kernel's own rows: found anew when they are lost, so their maps may be rebuilt when a layout changes.
KERNEL_OWNED: Final = frozenset(
    PREFIX + name
    for name in (
        "affinity",
        "ct",
        "nat",
        "fragments",
        "socket_nat",
        "next_hops",
        "metrics",
        "lost",
        "events",
        "scratch",
    )
)


@dataclass(frozen=True, slots=True)
class NodeMaps:
    """Every map of the node. Those above the line are the plan's, and reconcile targets."""

    endpoints: KernelMap[abi.EndpointKey, abi.EndpointValue]
    interfaces: KernelMap[abi.InterfaceKey, abi.EndpointValue]
    ipcache: KernelMap[abi.IpcacheKey, abi.IpcacheValue]
    ipcache_lpm: KernelMap[abi.IpcacheLpmKey, abi.IpcacheValue]
    nodes: KernelMap[abi.NodeKey, abi.NodeValue]
    services: KernelMap[abi.ServiceKey, abi.ServiceValue]
    service_slots: KernelMap[abi.SlotKey, abi.SlotValue]
    backends: KernelMap[abi.BackendKey, abi.BackendValue]
    policy: PolicyMap
    aliases: KernelMap[abi.AliasKey, abi.AliasValue]
    proxies: KernelMap[abi.ProxyKey, abi.ProxyValue]
    announced: KernelMap[abi.AnnouncedKey, abi.AnnouncedValue]
    # ---- read only
    names: KernelMap[abi.NameKey, abi.IpcacheValue]  # the DNS proxy's
    ct: KernelMap[layouts.Tuple, abi.CtValue]
    nat: KernelMap[layouts.Tuple, abi.NatValue]
    affinity: KernelMap[abi.AffinityKey, abi.AffinityValue]
    socket_nat: KernelMap[abi.SocketNatKey, abi.SocketNatValue]
    fragments: KernelMap[abi.FragmentKey, abi.FragmentValue]
    metrics: CounterMap[abi.MetricKey, abi.MetricValue]
    fds: Mapping[str, int]

    @classmethod
    def open(cls, fds: Mapping[str, int]) -> NodeMaps:
        """From descriptors by full name. Raises MapIncompatible before anything is written."""
        missing = [name for name in NAMES if PREFIX + name not in fds]
        if missing:
            raise DatapathError(f"the programs have no map {', '.join(missing)}: build them anew")

        def hash_of(name: str, key: Any, value: Any) -> Any:
            return KernelMap(PREFIX + name, fds[PREFIX + name], key=key, value=value)

        return cls(
            endpoints=hash_of("endpoints", abi.EndpointKey, abi.EndpointValue),
            interfaces=hash_of("interfaces", abi.InterfaceKey, abi.EndpointValue),
            ipcache=hash_of("ipcache", abi.IpcacheKey, abi.IpcacheValue),
            ipcache_lpm=hash_of("ipcache_lpm", abi.IpcacheLpmKey, abi.IpcacheValue),
            nodes=hash_of("nodes", abi.NodeKey, abi.NodeValue),
            services=hash_of("services", abi.ServiceKey, abi.ServiceValue),
            service_slots=hash_of("service_slots", abi.SlotKey, abi.SlotValue),
            backends=hash_of("backends", abi.BackendKey, abi.BackendValue),
            policy=PolicyMap(PREFIX + "policy", fds[PREFIX + "policy"]),
            aliases=hash_of("aliases", abi.AliasKey, abi.AliasValue),
            announced=hash_of("announced", abi.AnnouncedKey, abi.AnnouncedValue),
            proxies=hash_of("proxies", abi.ProxyKey, abi.ProxyValue),
            names=hash_of("names", abi.NameKey, abi.IpcacheValue),
            ct=hash_of("ct", layouts.Tuple, abi.CtValue),
            nat=hash_of("nat", layouts.Tuple, abi.NatValue),
            affinity=hash_of("affinity", abi.AffinityKey, abi.AffinityValue),
            socket_nat=hash_of("socket_nat", abi.SocketNatKey, abi.SocketNatValue),
            fragments=hash_of("fragments", abi.FragmentKey, abi.FragmentValue),
            metrics=CounterMap(PREFIX + "metrics", fds[PREFIX + "metrics"], key=abi.MetricKey, value=abi.MetricValue),
            fds=dict(fds),
        )

    def target(self, name: str) -> Target[Any, Any]:
        """A map the plan writes, named as in NodePlan."""
        if name not in PLANNED:
            raise DatapathError(f"the plan has no map {name}: it has {', '.join(PLANNED)}")
        target: Target[Any, Any] = Named(name, getattr(self, name))
        return target

    def dump(self, name: str) -> Mapping[Any, Any]:
        """Rows of one map from the kernel, typed. Blocks. Raises DatapathError for a name there is not."""
        if name not in NAMES or name in ("lost", "events"):
            readable = ", ".join(each for each in NAMES if each not in ("lost", "events"))
            raise DatapathError(f"no map {name}: there are {readable}")
        return getattr(self, name).dump()

    def identity(self, address: Address) -> int:
        """What programs take an address for that is no pod's of this node (lib/identity.h), from the kernel."""
        found = (
            self.ipcache.get(abi.IpcacheKey(address))
            or self.names.get(abi.NameKey(address))
            or self.ipcache_lpm.get(abi.IpcacheLpmKey(128, address))
        )
        return abi.ReservedIdentity.WORLD if found is None else found.identity

    def fd(self, name: str) -> int:
        """Descriptor of a map, by its name without the prefix; it stays ours."""
        return self.fds[PREFIX + name]

    def entries(self) -> dict[str, int]:
        """How many rows each map can hold."""
        return {name: syscall.map_info(fd).max_entries for name, fd in sorted(self.fds.items())}


class Named:
    """A target under the plan's name for it."""

    def __init__(self, name: str, target: Target[Any, Any]) -> None:
        self.name = name
        self.read = target.read
        self.apply = target.apply


PLANNED: Final = (
    "endpoints",
    "interfaces",
    "ipcache",
    "ipcache_lpm",
    "nodes",
    "services",
    "service_slots",
    "backends",
    "policy",
    "aliases",
    "proxies",
    "announced",
)
NAMES: Final = (*PLANNED, "names", "ct", "nat", "affinity", "socket_nat", "fragments", "metrics", "lost", "events")
