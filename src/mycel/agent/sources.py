"""The stores as the planner sees them: this node, other nodes, pods, services.

Parsed addresses are remembered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mycel.abi import IpcacheKey, IpcacheValue, ProxyKey, ProxyValue
from mycel.agent.endpoints import Endpoints
from mycel.agent.ipam import ingress_address, router_address
from mycel.agent.planner import Part, Planner, PolicyPlan, Sources
from mycel.agent.watches import Watches
from mycel.k8s.informer import Informer
from mycel.model.address import Address, parse_address, parse_prefix
from mycel.model.node import Node
from mycel.model.service import EndpointSlice, Service, ServiceRef
from mycel.model.workload import LocalEndpoint, PublishedEndpoint, Workload
from mycel.plan.rows import OtherNode, Redirect, ThisNode, Underlay
from mycel.service.balance import Frontend, FrontendKey

_KUBERNETES = ServiceRef("default", "kubernetes")


class StoreSources(Sources):
    """Sources over the agent's informers and endpoints."""

    def __init__(
        self,
        watches: Watches,
        endpoints: Endpoints,
        this: ThisNode,
        *,
        policy: Callable[[Mapping[IpcacheKey, IpcacheValue]], PolicyPlan],
        apiservers: Callable[[], Iterable[Address]],
        announced: Callable[[], Iterable[Address]],
        underlays: Iterable[Underlay],
        redirects: Callable[[Mapping[FrontendKey, Frontend]], Mapping[FrontendKey, Redirect]],
        proxies: Callable[[], Mapping[ProxyKey, ProxyValue]],
    ) -> None:
        self._watches = watches
        self._policy = policy
        self._apiservers = apiservers
        self._announced = announced
        self._underlays = tuple(underlays)
        self._redirects = redirects
        self._proxies = proxies
        self._endpoints = endpoints
        self._this = this
        self._addresses: dict[str, Address] = {}

    def node(self) -> ThisNode:
        """This node, with what its object says meanwhile (further addresses)."""
        return self._this

    def others(self) -> list[OtherNode]:
        """Other nodes: their CiliumNode, or their node object while its agent has not published one."""
        found: list[OtherNode] = []
        for node in self._watches.nodes.store.values():
            if node.name == self._this.name:
                continue
            published = self._watches.published_nodes.get(node.name)
            networks = published.pod_networks if published and published.pod_networks else node.pod_networks
            routers = tuple(map(self.parse, published.router_addresses)) if published else ()
            found.append(
                OtherNode(
                    name=node.name,
                    addresses=tuple(map(self.parse, (*node.internal_addresses, *node.other_addresses))),
                    router_addresses=routers or tuple(router_address(network) for network in networks),
                    pod_networks=tuple(map(_prefix, networks)),
                    ingress_addresses=tuple(map(ingress_address, networks)),
                )
            )
        return sorted(found, key=lambda other: other.name)

    def local(self) -> Iterable[LocalEndpoint]:
        """This node's pods."""
        return self._endpoints.all().values()

    def published(self) -> Iterable[PublishedEndpoint]:
        """Other nodes' pods (ours are among them and have no tunnel, so the plan leaves them out)."""
        return self._watches.endpoints.store.values()

    def services(self) -> Iterable[Service]:
        """All services."""
        return self._watches.services.store.values()

    def own_pods(self) -> Iterable[Workload]:
        """This node's pods."""
        return self._watches.pods.store.values()

    def announced(self) -> Iterable[Address]:
        """Addresses of services this node answers for."""
        return self._announced()

    def underlays(self) -> Iterable[Underlay]:
        """The devices that lead to other nodes."""
        return self._underlays

    def slices(self) -> Iterable[EndpointSlice]:
        """Slices that belong to a service."""
        return (each for each in self._watches.slices.store.values() if each.ref.name)

    def apiserver(self) -> Iterable[Address]:
        """Where the API servers are."""
        return self._apiservers()

    def proxies(self) -> Mapping[ProxyKey, ProxyValue]:
        """Envoy's and the DNS proxy's."""
        return self._proxies()

    def redirects(self, frontends: Mapping[FrontendKey, Frontend]) -> Mapping[FrontendKey, Redirect]:
        """Frontends whose connections go to listeners."""
        return self._redirects(frontends)

    def policy(self, ipcache: Mapping[IpcacheKey, IpcacheValue]) -> PolicyPlan:
        """What this node's pods enforce."""
        return self._policy(ipcache)

    def parse(self, text: str) -> Address:
        """An address of the API's."""
        found = self._addresses.get(text)
        if found is None:
            if len(self._addresses) > 100_000:
                self._addresses.clear()
            found = self._addresses[text] = parse_address(text)
        return found


def touch_on_change(planner: Planner, watches: Watches, endpoints: Endpoints) -> None:
    """Whatever of the stores changes touches the parts of the plan that are made of it; policies see to theirs."""

    def touch(part: Part, *informers: Informer[Any]) -> None:
        for informer in informers:
            informer.subscribe(lambda _key, _old, _new: planner.touch(part))

    touch(Part.CLUSTER, watches.endpoints, watches.nodes, watches.published_nodes)
    touch(Part.SERVICES, watches.services, watches.slices)
    watches.slices.subscribe(
        lambda _key, old, new: (
            planner.touch(Part.CLUSTER) if any(each and each.ref == _KUBERNETES for each in (old, new)) else None
        )
    )
    watches.pods.subscribe(
        lambda _key, old, new: (
            planner.touch(Part.SERVICES) if (old and old.host_ports) or (new and new.host_ports) else None
        )
    )
    endpoints.subscribe(lambda _old, _new: planner.touch(Part.ENDPOINTS))


def this_node(node: Node, *, address: str, service_range: str) -> ThisNode:
    """This node of its object; `address` (of the environment) goes first when it is given."""
    addresses = dict.fromkeys(text for text in (address, *node.internal_addresses, *node.other_addresses) if text)
    return ThisNode(
        name=node.name,
        addresses=tuple(map(parse_address, addresses)),
        router_addresses=tuple(router_address(network) for network in node.pod_networks),
        pod_networks=tuple(map(_prefix, node.pod_networks)),
        service_networks=(_prefix(service_range),) if service_range else (),
        ingress_addresses=tuple(map(ingress_address, node.pod_networks)),
    )


@functools.lru_cache(maxsize=4096)
def _prefix(network: str) -> tuple[Address, int]:
    return parse_prefix(network)
