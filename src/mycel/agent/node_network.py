"""The node's datapath as this agent needs it: settings from the node's object, routes to the pod networks."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from mycel.agent.ipam import ingress_address, router_address
from mycel.agent.settings import Settings
from mycel.agent.sources import this_node
from mycel.agent.watches import Watches
from mycel.datapath.node import Datapath
from mycel.datapath.node_setup import cluster_routes
from mycel.datapath.settings import VXLAN_OVERHEAD, DatapathSettings
from mycel.kit.latest import Latest
from mycel.model.address import Address, format_address
from mycel.model.node import Node
from mycel.plan.rows import ThisNode

log = logging.getLogger(__name__)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class OwnNode:
    """This node with its datapath. `networks`: those its pods get addresses of; `routers`: one address for each."""

    this: ThisNode
    datapath: Datapath
    networks: tuple[str, ...]
    routers: tuple[Address, ...]

    @property
    def address(self) -> str:
        """Where other nodes reach it."""
        return format_address(self.this.addresses[0])


async def open_own_node(settings: Settings, watches: Watches) -> OwnNode:
    """Wait for the node's object, then make or adopt its datapath."""
    node = await wait_own_node(watches, settings.node_name)
    this = this_node(node, address=settings.node_address, service_range=settings.service_range)
    datapath = await asyncio.to_thread(Datapath.open, datapath_settings(settings, node, pod_networks(watches)))
    log.info("datapath: %s", datapath.opened)
    networks = tuple(network for network in node.pod_networks if ":" not in network or settings.ipv6)
    return OwnNode(this, datapath, networks, tuple(map(router_address, networks)))


async def wait_own_node(watches: Watches, name: str) -> Node:
    """This node's object, once it has a pod network and an address."""
    changed = asyncio.Event()
    watches.nodes.subscribe(lambda _key, _old, _new: changed.set())
    await watches.nodes.wait_synced()
    told = False
    while True:
        node = watches.nodes.get(name)
        if node is not None and node.pod_networks and node.internal_addresses:
            return node
        if not told:
            log.info("waiting for node %s to have a podCIDR and an InternalIP", name)
            told = True
        changed.clear()
        await changed.wait()


def pod_networks(watches: Watches) -> tuple[Network, ...]:
    """Every node's pod networks."""
    texts = {network for node in watches.nodes.store.values() for network in node.pod_networks}
    return tuple(sorted(map(ipaddress.ip_network, texts), key=str))


def datapath_settings(settings: Settings, node: Node, networks: Iterable[Network]) -> DatapathSettings:
    """What the datapath is told."""
    addresses = [ipaddress.ip_address(text) for text in (settings.node_address, *node.internal_addresses) if text]
    ipv4 = next(each for each in addresses if each.version == 4)
    ipv6 = next((each for each in addresses if each.version == 6), None) if settings.ipv6 else None
    routers = [ipaddress.ip_address(format_address(router_address(network))) for network in node.pod_networks]
    proxies = [ipaddress.ip_address(format_address(ingress_address(network))) for network in node.pod_networks]
    return DatapathSettings(
        node_ipv4=ipaddress.IPv4Address(ipv4),
        router_ipv4=next(each for each in routers if each.version == 4),
        pod_networks=tuple(networks),
        node_ipv6=ipv6,
        router_ipv6=next((each for each in routers if each.version == 6), None) if settings.ipv6 else None,
        service_networks=(ipaddress.ip_network(settings.service_range),) if settings.service_range else (),
        ingress=tuple(each for each in proxies if each.version == 4 or settings.ipv6),
        ipv6=settings.ipv6,
        host_enters=settings.host_enters,
        masquerade=settings.masquerade,
        vxlan_port=settings.tunnel_port,
        pod_mtu=settings.mtu - VXLAN_OVERHEAD if settings.mtu else 0,
        knobs={"config_trace_interval_ns": round(settings.trace_interval_s * 1e9)},
        pins=settings.bpf_root / "mycel",
        cgroup=settings.cgroup_root,
        run_dir=settings.state_dir,
    )


class Routes:
    """Desired routes to every node's pods."""

    def __init__(self, watches: Watches, datapath: Datapath) -> None:
        self._watches = watches
        self._datapath = datapath
        self.desired: Latest[dict[Network, object]] = Latest()
        watches.nodes.subscribe(lambda _key, _old, _new: self.update())

    def update(self) -> None:
        """Make them anew."""
        wanted = cluster_routes(
            pod_networks(self._watches), settings=self._datapath.settings, devices=self._datapath.devices
        )
        self.desired.set(dict(wanted))
