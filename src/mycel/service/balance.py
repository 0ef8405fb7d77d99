"""One service and its slices → what a node balances.

Order matters to the datapath: a node's own backends come first, so "local only" is a smaller count of the
same slots. A backend serves when it is ready; terminating ones that still serve stand in when no ready one is
left (KEP-1669), so that a rollout loses no connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mycel.abi import ServiceFlags
from mycel.model.address import ANY_IPV4, ANY_IPV6, Address, is_ipv4, parse_address
from mycel.model.service import EndpointSlice, Protocol, Service, ServicePort, ServiceRef


class BackendKey(NamedTuple):
    """What makes a backend the same."""

    address: Address
    port: int
    protocol: int


class BackendState(Enum):
    """Whether new connections go there."""

    ACTIVE = "active"
    TERMINATING = "terminating"


class Backend(NamedTuple):
    """A target of a frontend."""

    key: BackendKey
    node: str
    state: BackendState


class FrontendKey(NamedTuple):
    """What a client dials. A NodePort has the unspecified address of its family."""

    address: Address
    port: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Frontend:
    """A frontend with its backends, local ones first (`local_count` of them)."""

    key: FrontendKey
    service: ServiceRef
    port_name: str
    group: FrontendKey  # frontends of one group share a service number: the first of the service port and family
    flags: ServiceFlags
    affinity_s: int
    backends: tuple[Backend, ...]
    local_count: int


def balance(services: Iterable[Service], slices: Iterable[EndpointSlice], node: str) -> dict[FrontendKey, Frontend]:
    """Every frontend this node answers for.

    Where two services claim one, the first in order of names has it.
    """
    by_service: dict[ServiceRef, list[EndpointSlice]] = {}
    for each in slices:
        by_service.setdefault(each.ref, []).append(each)
    found: dict[FrontendKey, Frontend] = {}
    for service in sorted(services, key=lambda service: service.ref):
        for frontend in frontends(service, by_service.get(service.ref, []), node):
            found.setdefault(frontend.key, frontend)
    return found


def frontends(service: Service, slices: Iterable[EndpointSlice], node: str) -> list[Frontend]:
    """The frontends of one service; none when it is headless."""
    if not service.cluster_addresses:
        return []  # external addresses of a headless one are nobody's, either
    slices = sorted(slices, key=lambda each: each.name)
    found: list[Frontend] = []
    for port in service.ports:
        for family in _families(service):
            keys = _keys(service, port, family)
            if not keys:
                continue
            local, remote = _backends(slices, port, node, ipv4=family == 4, keep_local=service.local_external)
            group = next(iter(keys))
            for key, kind in keys.items():
                found.append(
                    Frontend(
                        key,
                        service.ref,
                        port.name,
                        group,
                        _flags(service, kind),
                        service.affinity_s,
                        (*local, *remote),
                        len(local),
                    )
                )
    return found


def ready(service: Service, slices: Iterable[EndpointSlice], node: str) -> dict[ServicePort, tuple[Backend, ...]]:
    """Ready TCP backends of each port, also of a headless service: where a proxy may dial. Terminating ones never.

    Only this node's where the service keeps the cluster's traffic local.
    """
    slices = sorted(slices, key=lambda each: each.name)
    found: dict[ServicePort, tuple[Backend, ...]] = {}
    for port in service.ports:
        if port.protocol is not Protocol.TCP:
            continue
        backends: list[Backend] = []
        for ipv4 in (True, False):
            local, remote = _backends(slices, port, node, ipv4=ipv4, keep_local=False)
            backends += local if service.local_internal else [*local, *remote]
        found[port] = tuple(each for each in backends if each.state is BackendState.ACTIVE)
    return found


def _families(service: Service) -> tuple[int, ...]:
    if service.ip_families:
        return service.ip_families
    return tuple(sorted({4 if is_ipv4(parse_address(text)) else 6 for text in service.cluster_addresses}))


def _keys(service: Service, port: ServicePort, family: int) -> Mapping[FrontendKey, ServiceFlags]:
    """The frontends of one port and family, ClusterIP first."""
    keys: dict[FrontendKey, ServiceFlags] = {}
    for texts, kind in (
        (service.cluster_addresses, ServiceFlags.CLUSTER_IP),
        (service.external_addresses, ServiceFlags.EXTERNAL_IP),
        (service.ingress_addresses, ServiceFlags.LOAD_BALANCER),
    ):
        for text in texts:
            address = parse_address(text)
            if is_ipv4(address) == (family == 4):
                keys.setdefault(FrontendKey(address, port.port, port.protocol.number), kind)
    if port.node_port:
        anywhere = ANY_IPV4 if family == 4 else ANY_IPV6
        keys[FrontendKey(anywhere, port.node_port, port.protocol.number)] = ServiceFlags.NODE_PORT
    return keys


def _flags(service: Service, kind: ServiceFlags) -> ServiceFlags:
    flags = kind
    if service.affinity_s:
        flags |= ServiceFlags.AFFINITY
    if service.local_external and kind is not ServiceFlags.CLUSTER_IP:
        flags |= ServiceFlags.LOCAL_EXTERNAL
    if service.local_internal and kind is ServiceFlags.CLUSTER_IP:
        flags |= ServiceFlags.LOCAL_INTERNAL
    return flags


def _backends(
    slices: list[EndpointSlice], port: ServicePort, node: str, *, ipv4: bool, keep_local: bool
) -> tuple[list[Backend], list[Backend]]:
    """Local and remote backends, each in order of address."""
    ready: dict[BackendKey, Backend] = {}
    draining: dict[BackendKey, Backend] = {}
    for each in slices:
        numbers = _target_ports(each, port)
        for endpoint in each.endpoints:
            address = parse_address(endpoint.address)
            if is_ipv4(address) != ipv4:
                continue
            for number, protocol in numbers:
                key = BackendKey(address, number, protocol.number)
                if endpoint.ready:
                    ready[key] = Backend(key, endpoint.node, BackendState.ACTIVE)
                elif endpoint.serving and endpoint.terminating:
                    draining[key] = Backend(key, endpoint.node, BackendState.TERMINATING)
    chosen = dict(ready or draining)
    if keep_local and not any(backend.node == node for backend in chosen.values()):
        chosen |= {key: backend for key, backend in draining.items() if backend.node == node}
    ordered = [chosen[key] for key in sorted(chosen)]
    return [each for each in ordered if each.node == node], [each for each in ordered if each.node != node]


def _target_ports(each: EndpointSlice, port: ServicePort) -> list[tuple[int, Protocol]]:
    return [
        (target.port, target.protocol)
        for target in each.ports
        if target.name == port.name and target.protocol == port.protocol
    ]
