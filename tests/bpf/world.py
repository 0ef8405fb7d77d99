"""The node of all packet tables: two pods here, one on another node, a service, the outside; per family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mycel import abi
from mycel.abi import EndpointFlags, IpcacheFlags, ReservedIdentity, ServiceFlags
from tests.bpf.frames import NODE_MAC, OTHER_MAC, POD_MAC, TCP, UDP, Frame
from tests.bpf.rows import addr, endpoint, host_endpoint, mac, prefix

REVISION = 5
POD_ID, OTHER_ID, REMOTE_ID = 1001, 1002, 1003
OTHER_NODE_MAC = "02:00:00:00:00:04"
NO_ADDR = bytes(16)


@dataclass(frozen=True)
class World:
    """Addresses of one family."""

    name: str
    pod: str  # behind the interface under test
    other: str  # a pod of this node
    remote: str  # a pod of another node
    node: str
    router: str
    remote_node: str
    outside: str
    service: str
    empty_service: str
    external: str  # of a service, for the outside
    nobody: str  # in this node's pod network, nobody's
    underlay_gateway: str
    loopback: str  # how a pod meets itself behind a service
    unspecified: str

    @property
    def bits(self) -> tuple[str, str]:
        """This node's pod network, and the service network."""
        return ("10.244.1.0/24", "10.96.0.0/16") if self.name == "v4" else ("fd00:244:1::/64", "fd00:96::/112")

    def frame(self, source: str = "pod", destination: str = "other", **fields: Any) -> Frame:
        """A frame between two of the world's, by their names."""
        return Frame(getattr(self, source, source), getattr(self, destination, destination), **fields)


V4 = World(
    "v4", "10.244.1.10", "10.244.1.11", "10.244.2.10", "172.31.77.2", "10.244.1.1", "172.31.77.3", "203.0.113.9",
    "10.96.0.10", "10.96.0.11", "198.51.100.7", "10.244.1.99", "172.31.77.1", "169.254.42.1", "0.0.0.0",
)  # fmt: skip
V6 = World(
    "v6", "fd00:244:1::10", "fd00:244:1::11", "fd00:244:2::10", "fd00:77::2", "fd00:244:1::1", "fd00:77::3",
    "2001:db8::9", "fd00:96::10", "fd00:96::11", "2001:db8:7::7", "fd00:244:1::99", "fd00:77::1", "fe80::a9fe:2a01",
    "::",
)  # fmt: skip
WORLDS = (V4, V6)


def pod_row(ifindex: int, *, flags: int = 0, ingress_set: int = 0, egress_set: int = 0) -> abi.EndpointValue:
    """The pod under test."""
    return endpoint(
        ipv4=addr(V4.pod), ipv6=addr(V6.pod), ifindex=ifindex, identity=POD_ID, policy_revision=REVISION,
        endpoint_id=11, flags=EndpointFlags.READY | flags, mac=mac(POD_MAC), node_mac=mac(NODE_MAC),
        ingress_set=ingress_set, egress_set=egress_set,
    )  # fmt: skip


def other_row(ifindex: int, *, flags: int = 0, ingress_set: int = 0, ready: bool = True) -> abi.EndpointValue:
    """The other pod of this node."""
    return endpoint(
        ipv4=addr(V4.other), ipv6=addr(V6.other), ifindex=ifindex, identity=OTHER_ID, policy_revision=REVISION,
        endpoint_id=12, flags=flags | (EndpointFlags.READY if ready else 0), ingress_set=ingress_set,
        mac=mac(OTHER_MAC), node_mac=mac(OTHER_NODE_MAC),
    )  # fmt: skip


def rows(ifindex: int, other: int) -> dict[str, dict[Any, Any]]:
    """What the plan would have written, for both families at once."""
    tables: dict[str, dict[Any, Any]] = {
        "interfaces": {abi.InterfaceKey(ifindex): pod_row(ifindex), abi.InterfaceKey(other): other_row(other)},
        "endpoints": {},
        "ipcache": {},
        "ipcache_lpm": {},
        "nodes": {abi.NodeKey(addr(V4.remote_node)): abi.NodeValue(2)},
        "services": {},
        "service_slots": {},
        "backends": {},
    }
    tunnel = IpcacheFlags.TUNNEL | IpcacheFlags.CLUSTER
    for number, world in enumerate(WORLDS):
        far = addr(V4.remote_node)
        known = {
            world.pod: (NO_ADDR, POD_ID, IpcacheFlags.CLUSTER),
            world.other: (NO_ADDR, OTHER_ID, IpcacheFlags.CLUSTER),
            world.remote: (far, REMOTE_ID, tunnel),
            world.node: (NO_ADDR, ReservedIdentity.HOST, IpcacheFlags.NODE),
            world.router: (NO_ADDR, ReservedIdentity.HOST, IpcacheFlags.NODE),
            world.remote_node: (far, ReservedIdentity.REMOTE_NODE, IpcacheFlags.NODE | IpcacheFlags.TUNNEL),
        }
        tables["ipcache"] |= {abi.IpcacheKey(addr(ip)): abi.IpcacheValue(*value) for ip, value in known.items()}
        tables["ipcache_lpm"] |= {
            prefix(each): abi.IpcacheValue(NO_ADDR, ReservedIdentity.UNMANAGED, IpcacheFlags.CLUSTER)
            for each in world.bits
        }
        tables["endpoints"] |= {
            abi.EndpointKey(addr(world.pod)): pod_row(ifindex),
            abi.EndpointKey(addr(world.other)): other_row(other),
            abi.EndpointKey(addr(world.node)): host_endpoint(),
            abi.EndpointKey(addr(world.router)): host_endpoint(),
        }
        for offset, protocol in ((0, TCP), (1, UDP)):
            service_id = 100 + 10 * number + offset
            full = abi.ServiceValue(service_id, 1, ServiceFlags.CLUSTER_IP, 0, 1, 0, 0)
            tables["services"] |= {
                abi.ServiceKey(addr(world.service), 80, protocol): full,
                abi.ServiceKey(addr(world.empty_service), 80, protocol): abi.ServiceValue(
                    900, 0, ServiceFlags.CLUSTER_IP, 0, 0, 0, 0
                ),
                abi.ServiceKey(addr(world.external), 80, protocol): full._replace(flags=ServiceFlags.EXTERNAL_IP),
                abi.ServiceKey(addr(world.unspecified), 30080, protocol): full._replace(flags=ServiceFlags.NODE_PORT),
            }
            tables["service_slots"][abi.SlotKey(service_id, 1)] = abi.SlotValue(service_id)
            tables["backends"][abi.BackendKey(service_id)] = abi.BackendValue(addr(world.other), 8080, protocol, 0)
    return tables
