"""Map rows of one node: its endpoints, everybody's addresses, services.

Each function depends on few inputs, so the caller recomputes only what a change touches.

The contract of every row (who reads it, what a miss means) is docs/datapath.md, "What the plan writes".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mycel.abi import (
    AnnouncedKey,
    AnnouncedValue,
    BackendKey,
    BackendValue,
    EndpointFlags,
    EndpointKey,
    EndpointValue,
    InterfaceKey,
    IpcacheFlags,
    IpcacheKey,
    IpcacheLpmKey,
    IpcacheValue,
    NodeKey,
    NodeValue,
    ReservedIdentity,
    ServiceFlags,
    ServiceKey,
    ServiceValue,
    SlotKey,
    SlotValue,
)
from mycel.model.address import NO_ADDRESS, Address, is_ipv4
from mycel.model.workload import EndpointId, IdentityId, LocalEndpoint, PublishedEndpoint
from mycel.service import balance

_NO_MAC = bytes(6)


class EndpointPolicy(NamedTuple):
    """What an endpoint enforces: the sets of each direction (0: nothing is enforced), and since when.

    `revision` is another one whenever the sets are others, so that the kernel judges connections anew.
    """

    ingress_set: int = 0
    egress_set: int = 0
    revision: int = 1


OPEN = EndpointPolicy()
EndpointPolicies = Mapping[EndpointId, EndpointPolicy]


@dataclass(frozen=True, slots=True)
class ThisNode:
    """The node the plan is for."""

    name: str
    addresses: tuple[Address, ...]  # underlay first
    router_addresses: tuple[Address, ...]
    pod_networks: tuple[tuple[Address, int], ...]  # prefix of 128 bits
    service_networks: tuple[tuple[Address, int], ...] = ()
    ingress_addresses: tuple[Address, ...] = ()  # the proxy's own, for clients of the outside


@dataclass(frozen=True, slots=True)
class OtherNode:
    """Another node of the cluster; `addresses` begin with the one tunnels end at."""

    name: str
    addresses: tuple[Address, ...]
    router_addresses: tuple[Address, ...]
    pod_networks: tuple[tuple[Address, int], ...]
    ingress_addresses: tuple[Address, ...] = ()


def endpoint_value(endpoint: LocalEndpoint, policy: EndpointPolicy | None = OPEN) -> EndpointValue:
    """The row of a pod of this node. Without an identity or a policy it is not ready: everything of it is dropped."""
    flags = EndpointFlags.READY if endpoint.identity and policy is not None else EndpointFlags(0)
    ingress, egress, revision = policy or OPEN
    flags |= EndpointFlags.ENFORCE_INGRESS if ingress else EndpointFlags(0)
    flags |= EndpointFlags.ENFORCE_EGRESS if egress else EndpointFlags(0)
    by_family = {is_ipv4(address): address for address in reversed(endpoint.addresses)}
    return EndpointValue(
        ipv4=by_family.get(True, NO_ADDRESS),
        ipv6=by_family.get(False, NO_ADDRESS),
        ifindex=endpoint.ifindex,
        identity=endpoint.identity,
        ingress_set=ingress,
        egress_set=egress,
        policy_revision=revision,
        endpoint_id=endpoint.endpoint_id,
        flags=flags,
        mac=endpoint.mac,
        node_mac=endpoint.node_mac,
    )


def endpoint_values(
    endpoints: Iterable[LocalEndpoint], policies: EndpointPolicies | None = None
) -> list[tuple[LocalEndpoint, EndpointValue]]:
    """This node's pods with what both maps hold of each."""
    return [(each, endpoint_value(each, policy_of(each, policies))) for each in endpoints]


def interface_rows(endpoints: Iterable[tuple[LocalEndpoint, EndpointValue]]) -> dict[InterfaceKey, EndpointValue]:
    """mycel_interfaces: the node's sides of the pods' pairs."""
    return {InterfaceKey(endpoint.ifindex): value for endpoint, value in endpoints}


def endpoint_rows(
    node: ThisNode, endpoints: Iterable[tuple[LocalEndpoint, EndpointValue]]
) -> dict[EndpointKey, EndpointValue]:
    """mycel_endpoints: the node's own addresses and its pods'."""
    rows = {EndpointKey(address): _own(address) for address in (*node.addresses, *node.router_addresses)}
    rows |= {EndpointKey(address): _own(address, ReservedIdentity.INGRESS) for address in node.ingress_addresses}
    return rows | pod_rows(endpoints)


def pod_rows(endpoints: Iterable[tuple[LocalEndpoint, EndpointValue]]) -> dict[EndpointKey, EndpointValue]:
    """Of mycel_endpoints: the pods'."""
    return {EndpointKey(address): value for endpoint, value in endpoints for address in endpoint.addresses}


def _own(address: Address, identity: ReservedIdentity = ReservedIdentity.HOST) -> EndpointValue:
    """The row of an address of the node itself."""
    return EndpointValue(
        ipv4=address if is_ipv4(address) else NO_ADDRESS,
        ipv6=NO_ADDRESS if is_ipv4(address) else address,
        ifindex=0,
        identity=identity,
        ingress_set=0,
        egress_set=0,
        policy_revision=OPEN.revision,
        endpoint_id=0,
        flags=EndpointFlags.HOST | EndpointFlags.READY,
        mac=_NO_MAC,
        node_mac=_NO_MAC,
    )


def policy_of(endpoint: LocalEndpoint, policies: EndpointPolicies | None) -> EndpointPolicy | None:
    """What an endpoint enforces; None while nobody has said. Without `policies` everything is open."""
    return OPEN if policies is None else policies.get(endpoint.endpoint_id)


class Underlay(NamedTuple):
    """A device of this node that leads to the others."""

    ifindex: int
    mac: bytes


def announced_rows(addresses: Iterable[Address], underlays: Iterable[Underlay]) -> dict[AnnouncedKey, AnnouncedValue]:
    """mycel_announced: what this node answers for by ARP, on every device."""
    devices = tuple(underlays)
    return {
        AnnouncedKey(address, device.ifindex): AnnouncedValue(device.mac)
        for address in sorted(addresses)
        for device in devices
    }


def node_rows(others: Iterable[OtherNode]) -> dict[NodeKey, NodeValue]:
    """mycel_nodes: where tunnelled packets may come from; numbered in order of names, from 1."""
    return {
        NodeKey(address): NodeValue(number)
        for number, each in enumerate(sorted(others, key=lambda node: node.name), start=1)
        for address in each.addresses
    }


def ipcache_rows(
    node: ThisNode,
    *,
    others: Iterable[OtherNode],
    published: Iterable[PublishedEndpoint],
    endpoints: Iterable[LocalEndpoint],
    apiserver: Iterable[Address],
    parse: Callable[[str], Address],
) -> dict[IpcacheKey, IpcacheValue]:
    """mycel_ipcache: who an address is.

    Where sources disagree: node before pod of this node before published pod. An API server that is none of these is of
    the outside: `prefix_rows` has it.
    """
    own = set(node.addresses)
    tunnels = {address: each.addresses[0] for each in others if each.addresses for address in each.addresses}
    special = set(apiserver)
    rows: dict[IpcacheKey, IpcacheValue] = {}
    # Numbers only: a published endpoint whose node nobody knows cannot be reached, and one of this node's own
    # past is not there any more.
    for each in sorted(published, key=lambda endpoint: endpoint.ref):
        if not each.node_address or not each.identity:
            continue
        tunnel = tunnels.get(parse(each.node_address))
        if tunnel is None:
            continue
        value = IpcacheValue(tunnel, each.identity, IpcacheFlags.TUNNEL | IpcacheFlags.CLUSTER)
        rows |= {IpcacheKey(parse(address)): value for address in each.addresses}
    for endpoint in endpoints:
        value = IpcacheValue(NO_ADDRESS, endpoint.identity or ReservedIdentity.INIT, IpcacheFlags.CLUSTER)
        rows |= {IpcacheKey(address): value for address in endpoint.addresses}
    for other in others:
        if not other.addresses:
            continue
        for address in (*other.addresses, *other.router_addresses):
            identity = ReservedIdentity.KUBE_APISERVER if address in special else ReservedIdentity.REMOTE_NODE
            rows[IpcacheKey(address)] = IpcacheValue(
                other.addresses[0], identity, IpcacheFlags.NODE | IpcacheFlags.TUNNEL
            )
        for address in other.ingress_addresses:
            rows[IpcacheKey(address)] = IpcacheValue(
                other.addresses[0], ReservedIdentity.INGRESS, IpcacheFlags.CLUSTER | IpcacheFlags.TUNNEL
            )
    for address in node.ingress_addresses:
        rows[IpcacheKey(address)] = IpcacheValue(NO_ADDRESS, ReservedIdentity.INGRESS, IpcacheFlags.CLUSTER)
    for address in (*own, *node.router_addresses):
        rows[IpcacheKey(address)] = IpcacheValue(NO_ADDRESS, ReservedIdentity.HOST, IpcacheFlags.NODE)
    return rows


def prefix_rows(
    node: ThisNode,
    others: Iterable[OtherNode],
    networks: Mapping[tuple[Address, int], IdentityId] | None = None,
) -> dict[IpcacheLpmKey, IpcacheValue]:
    """mycel_ipcache_lpm: pod and service networks, for addresses nobody claims by name; prefixes that have identities.

    `networks` are prefixes policies name and API servers outside, with their identities. What lies within the cluster's
    own networks stays the cluster's: policies about prefixes are about the outside.
    """
    rows = {
        IpcacheLpmKey(length, network): IpcacheValue(NO_ADDRESS, ReservedIdentity.UNMANAGED, IpcacheFlags.CLUSTER)
        for network, length in (*node.pod_networks, *node.service_networks)
    }
    for other in others:
        if other.addresses:
            value = IpcacheValue(
                other.addresses[0], ReservedIdentity.UNMANAGED, IpcacheFlags.TUNNEL | IpcacheFlags.CLUSTER
            )
            rows |= {IpcacheLpmKey(length, network): value for network, length in other.pod_networks}
    own = [(int.from_bytes(key.addr, "big"), key.prefixlen) for key in rows]
    for (address, length), identity in (networks or {}).items():
        number = int.from_bytes(address, "big")
        inside = any(length >= outer and number >> (128 - outer) == base >> (128 - outer) for base, outer in own)
        if not inside:
            rows[IpcacheLpmKey(length, address)] = IpcacheValue(NO_ADDRESS, identity, IpcacheFlags(0))
    return rows


@dataclass(frozen=True, slots=True)
class ServiceRows:
    """The three maps of services."""

    services: Mapping[ServiceKey, ServiceValue]
    slots: Mapping[SlotKey, SlotValue]
    backends: Mapping[BackendKey, BackendValue]


class Redirect(NamedTuple):
    """The listeners that take a frontend's connections: of pods and nodes, and of clients of the outside."""

    port: int
    port_outside: int


_NO_REDIRECT = Redirect(0, 0)


def service_rows(
    frontends: Mapping[balance.FrontendKey, balance.Frontend],
    *,
    service_number: Callable[[balance.FrontendKey], int],
    backend_number: Callable[[balance.BackendKey], int],
    redirects: Mapping[balance.FrontendKey, Redirect] | None = None,
) -> ServiceRows:
    """mycel_services, mycel_service_slots, mycel_backends. Frontends of one group share slots.

    Slot 0 of a service that has a listener is its ClusterIP: that is where the node's own processes dial it, whichever
    frontend they name.
    """
    services: dict[ServiceKey, ServiceValue] = {}
    slots: dict[SlotKey, SlotValue] = {}
    backends: dict[BackendKey, BackendValue] = {}
    for key in sorted(frontends):
        frontend = frontends[key]
        number = service_number(frontend.group)
        port, port_outside = (redirects or {}).get(key, _NO_REDIRECT)
        services[ServiceKey(key.address, key.port, key.protocol)] = ServiceValue(
            service_id=number,
            backend_count=len(frontend.backends),
            flags=frontend.flags,
            affinity_s=frontend.affinity_s,
            local_count=frontend.local_count,
            proxy_port=port,
            proxy_port_outside=port_outside,
        )
        own = _cluster_ip(frontend, frontends) if port else None
        for slot, backend in enumerate((own, *(each.key for each in frontend.backends))):
            if backend is not None:
                backend_id = backend_number(backend)
                slots[SlotKey(number, slot)] = SlotValue(backend_id)
                backends[BackendKey(backend_id)] = BackendValue(
                    addr=backend.address, port=backend.port, protocol=backend.protocol, flags=0
                )
    return ServiceRows(services, slots, backends)


def _cluster_ip(
    frontend: balance.Frontend, frontends: Mapping[balance.FrontendKey, balance.Frontend]
) -> balance.BackendKey | None:
    first = frontends[frontend.group]
    own = first.service == frontend.service and first.flags & ServiceFlags.CLUSTER_IP
    return balance.BackendKey(*first.key) if own else None
