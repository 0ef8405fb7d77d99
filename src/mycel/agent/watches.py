"""The agent's informers: what it follows of the API server, and the names of what it still waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from mycel.k8s import parse
from mycel.k8s.client import ApiClient
from mycel.k8s.informer import Codec, Informer, Key
from mycel.k8s.lease import LEASES_CODEC
from mycel.k8s.resources import (
    CILIUM_CIDR_GROUPS,
    CILIUM_CLUSTERWIDE_ENVOY_CONFIGS,
    CILIUM_CLUSTERWIDE_NETWORK_POLICIES,
    CILIUM_ENDPOINTS,
    CILIUM_ENVOY_CONFIGS,
    CILIUM_IDENTITIES,
    CILIUM_L2_ANNOUNCEMENT_POLICIES,
    CILIUM_NETWORK_POLICIES,
    CILIUM_NODES,
    ENDPOINT_SLICES,
    LEASES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    SERVICES,
)
from mycel.kit.readiness import Readiness
from mycel.kit.tasks import spawn
from mycel.policy.announce import AnnouncementPolicy, parse_policy

T = TypeVar("T")
_ANNOUNCEMENTS: Codec[AnnouncementPolicy] = Codec(dict[str, Any], parse_policy)


class Watches:
    """One informer per kind. Pods are this node's only; other nodes' come as CiliumEndpoints."""

    def __init__(self, client: ApiClient, node_name: str, *, leases_in: str = "", envoy_configs: bool = False) -> None:
        """`leases_in`: the namespace of the leases that elect who announces addresses; empty: nobody does."""
        self.pods = Informer(client, PODS, parse.PODS_CODEC, field_selector=f"spec.nodeName={node_name}")
        self.namespaces = Informer(client, NAMESPACES, parse.NAMESPACES_CODEC)
        self.nodes = Informer(client, NODES, parse.NODES_CODEC)
        self.services = Informer(client, SERVICES, parse.SERVICES_CODEC)
        self.slices = Informer(client, ENDPOINT_SLICES, parse.SLICES_CODEC)
        self.endpoints = Informer(client, CILIUM_ENDPOINTS, parse.ENDPOINTS_CODEC)
        self.identities = Informer(client, CILIUM_IDENTITIES, parse.IDENTITIES_CODEC)
        self.published_nodes = Informer(client, CILIUM_NODES, parse.PUBLISHED_NODES_CODEC)
        # As they were written: what is wrong with one is told by its field's path.
        self.network_policies = Informer(client, NETWORK_POLICIES)
        self.cilium_policies = Informer(client, CILIUM_NETWORK_POLICIES)
        self.clusterwide_policies = Informer(client, CILIUM_CLUSTERWIDE_NETWORK_POLICIES)
        self.cidr_groups = Informer(client, CILIUM_CIDR_GROUPS)
        kinds = (CILIUM_ENVOY_CONFIGS, CILIUM_CLUSTERWIDE_ENVOY_CONFIGS) if envoy_configs else ()
        self.envoy_configs = tuple(Informer(client, kind) for kind in kinds)
        self.announcement_policies = Informer(client, CILIUM_L2_ANNOUNCEMENT_POLICIES, _ANNOUNCEMENTS)
        self.leases = Informer(client, LEASES, LEASES_CODEC, namespace=leases_in or "kube-system")
        self._announcing: tuple[Informer[Any], ...] = (self.announcement_policies, self.leases) if leases_in else ()

    def all(self) -> tuple[Informer[Any], ...]:
        """Every informer."""
        return (
            self.pods,
            self.namespaces,
            self.nodes,
            self.services,
            self.slices,
            self.endpoints,
            self.identities,
            self.published_nodes,
            self.network_policies,
            self.cilium_policies,
            self.clusterwide_policies,
            self.cidr_groups,
            *self.envoy_configs,
            *self._announcing,
        )

    def start(self, group: asyncio.TaskGroup, ready: Readiness) -> None:
        """Run every informer in the process's task group; each blocks readiness until it is synced."""
        for informer in self.all():
            name = f"informer {informer.resource}"
            ready.block(name)
            spawn(group, informer.run(), name)
            spawn(group, _unblock(informer, ready, name), f"{name} synced", finishes=True)

    async def wait_synced(self) -> None:
        """Until every first list has been taken in."""
        await asyncio.gather(*(informer.wait_synced() for informer in self.all()))

    def on_any(self, informers: tuple[Informer[Any], ...], wake: Callable[[], None]) -> None:
        """Call `wake` whenever one of `informers` changes."""
        for informer in informers:
            informer.subscribe(lambda _key, _old, _new: wake())

    @property
    def connected(self) -> bool:
        """Whether every watch is on."""
        return all(informer.connected for informer in self.all())


async def _unblock(informer: Informer[Any], ready: Readiness, name: str) -> None:
    await informer.wait_synced()
    ready.unblock(name)


def follow(informer: Informer[T], listener: Callable[[Key, T | None, T | None], None]) -> None:
    """Hear every change, and what was there before: informers have been running for a while."""
    for key, value in informer.store.items():
        listener(key, None, value)
    informer.subscribe(listener)
