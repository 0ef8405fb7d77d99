"""The agent's parts, each made of what it needs: nothing is connected afterwards.

The planner is made first and gets its sources last, when they are all filled: what it plans for touches it from the
beginning. `main.run_agent` says in which order parts are made, filled with what an earlier agent left, and started.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self

from mycel.abi import ProxyKind
from mycel.agent.directory import StoreDirectory
from mycel.agent.dns_names import DnsNames, connection_ends
from mycel.agent.endpoints import Endpoints
from mycel.agent.envoy_configs import EnvoyConfigs
from mycel.agent.identities import Identities
from mycel.agent.ipam import Pool
from mycel.agent.l2.announcer import Announcer
from mycel.agent.learnt import Learnt
from mycel.agent.named_secrets import NamedSecrets
from mycel.agent.node_network import OwnNode
from mycel.agent.owners import PodOwners
from mycel.agent.planner import Part, Planner
from mycel.agent.pods import PodFacts
from mycel.agent.policies import Policies
from mycel.agent.policy_files import PolicyFiles
from mycel.agent.policy_objects import PolicyObjects
from mycel.agent.policy_status import PolicyStatus
from mycel.agent.proxy.header_secrets import HeaderSecrets
from mycel.agent.proxy.policy_listeners import PolicyListeners
from mycel.agent.proxy.port_file import PortFile
from mycel.agent.proxy.proxy import Proxy
from mycel.agent.readback import Readback
from mycel.agent.referents import Referents
from mycel.agent.relabel import Relabeller
from mycel.agent.rule_names import RuleNames
from mycel.agent.secrets import Secrets
from mycel.agent.settings import Settings
from mycel.agent.sources import StoreSources
from mycel.agent.state import EndpointFiles
from mycel.agent.statuses import is_first
from mycel.agent.visibility import Visibility
from mycel.agent.watches import Watches
from mycel.agent.wiring import KernelWiring
from mycel.k8s.client import ApiClient
from mycel.plan.rows import Underlay
from mycel.policy.engine import Engine
from mycel.policy.resolve import Resolution


@dataclass(frozen=True, slots=True)
class Base:
    """What every part may need."""

    settings: Settings
    client: ApiClient
    watches: Watches
    node: OwnNode
    planner: Planner


@dataclass(frozen=True, slots=True)
class Pods:
    """This node's pods: wired, and known by their labels."""

    wiring: KernelWiring
    identities: Identities
    endpoints: Endpoints
    relabeller: Relabeller

    @classmethod
    def make(cls, base: Base) -> Self:
        """See the module."""
        datapath, watches, settings = base.node.datapath, base.watches, base.settings
        wiring = KernelWiring(attach=datapath.attach_pod, forget=datapath.forget_pod, mtu=datapath.devices.pod_mtu)
        identities = Identities(base.client, watches.identities)
        facts = PodFacts(base.client, watches, cluster=settings.cluster_name)
        endpoints = Endpoints(
            files=EndpointFiles(settings.state_dir / "state" / "endpoints"),
            pools=[Pool(network) for network in base.node.networks],
            routers=base.node.routers,
            wiring=wiring,
            pods=facts,
            resolve=identities.resolve,
            realize=lambda: base.planner.realize(Part.ENDPOINTS),
        )
        return cls(wiring, identities, endpoints, Relabeller(watches, endpoints, identities=identities, facts=facts))


def make_proxy(base: Base) -> Proxy:
    """The driver of this node's proxies."""
    settings, planner = base.settings, base.planner
    return Proxy(
        settings.envoy_dir,
        groups={
            ProxyKind.ENVOY: settings.envoy_dir / "group",
            ProxyKind.DNS: settings.state_dir / "dns-proxy" / "group",
        },
        changed=lambda: planner.touch(Part.SERVICES),
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """Policies in force, with the listeners and names their rows need."""

    policies: Policies
    listeners: PolicyListeners
    names: DnsNames
    ports: PortFile
    header_values: Secrets
    readback: Readback
    status: PolicyStatus

    @classmethod
    def make(cls, base: Base, endpoints: Endpoints, proxy: Proxy) -> Self:
        """See the module."""
        settings, watches, planner, maps = base.settings, base.watches, base.planner, base.node.datapath.maps
        resolution, named = Resolution(), NamedSecrets()
        engine = Engine(
            resolve=resolution.resolve,
            cidr_modes=settings.policy_cidr_match_mode,
            enforcement=settings.enforcement,
        )
        ports = PortFile(settings.state_dir / "state" / "proxy-ports.json", engine.ports)
        header_values = Secrets(base.client)
        header_secrets = HeaderSecrets(
            header_values, judged=lambda: named.all() if is_first(watches, settings.node_name) else ()
        )
        listeners = PolicyListeners(
            engine,
            header_secrets,
            connected=lambda: proxy.connected,
            envoy=settings.l7_proxy,
            dns_proxy=settings.dns_proxy,
            shown=settings.shown_headers,
            remember=ports.save,
        )

        def touch() -> None:
            planner.touch(Part.POLICY)

        objects = PolicyObjects(
            engine,
            watches,
            secrets=named,
            files=PolicyFiles(settings.state_dir / "state" / "policies"),
            cluster=settings.cluster_name,
            touch=touch,
        )
        policies = Policies(
            engine,
            objects,
            Referents(engine, resolution, watches, touch=touch),
            watches=watches,
            endpoints=endpoints,
            listeners=listeners,
            visible=Visibility(watches, touch).of,
            touch=touch,
        )
        names = DnsNames(settings.state_dir / "dns-proxy", engine, connections=lambda: connection_ends(maps.ct.dump()))
        status = PolicyStatus(
            base.client,
            watches,
            objects,
            node=settings.node_name,
            secrets=named,
            refusal=policies.refusal,
            unresolved=header_secrets.problems,
        )
        readback = Readback(engine, objects, endpoints, maps.interfaces.get)
        return cls(policies, listeners, names, ports, header_values, readback, status)


def make_announcer(base: Base) -> Announcer:
    """Who answers for addresses of services."""
    return Announcer(
        base.client,
        base.watches,
        node=base.settings.node_name,
        namespace=base.settings.namespace,
        devices=tuple(link.name for link in base.node.datapath.devices.underlays),
        times=base.settings.announce_times,
    )


def make_sources(
    base: Base,
    endpoints: Endpoints,
    *,
    policies: Policies,
    proxy: Proxy,
    envoy_configs: EnvoyConfigs,
    announcer: Announcer,
) -> StoreSources:
    """Where the planner looks."""
    return StoreSources(
        base.watches,
        endpoints,
        base.node.this,
        policy=policies.plan,
        apiservers=lambda: policies.apiservers,
        announced=lambda: announcer.addresses.value,
        underlays=[Underlay(link.ifindex, link.mac) for link in base.node.datapath.devices.underlays],
        redirects=envoy_configs.configs.redirects,
        proxies=lambda: proxy.groups,
    )


def make_directory(base: Base, pods: Pods, policies: Policies, learnt: Learnt) -> StoreDirectory:
    """Names for flows. When the pods that are there are known."""
    watches, cluster, node = base.watches, base.settings.cluster_name, base.node
    directory = StoreDirectory(
        watches,
        pods=PodOwners(watches, pods.endpoints, here=node.address, cluster=cluster),
        identities=pods.identities,
        planner=base.planner,
        policies=policies,
        rules=RuleNames(policies, pods.endpoints),
        this=lambda: node.this,
        identity=node.datapath.maps.identity,
        names=learnt.names,
        cluster=cluster,
    )
    named = (watches.endpoints, watches.nodes, watches.identities, watches.pods, watches.services)
    watches.on_any(named, directory.changed)
    pods.endpoints.subscribe(lambda _old, _new: directory.changed())
    return directory


async def adopt(base: Base, pods: Pods, policy: Policy, proxy: Proxy, envoy_configs: EnvoyConfigs) -> None:
    """Go on with what an earlier agent left in files and in the kernel. Before anything is planned."""
    maps = base.node.datapath.maps
    await asyncio.to_thread(policy.ports.load)
    await asyncio.to_thread(policy.names.adopt)
    await pods.endpoints.restore()
    proxy.adopt(await asyncio.to_thread(maps.proxies.dump))
    policy.policies.adopt(await asyncio.to_thread(maps.interfaces.dump), await asyncio.to_thread(maps.ipcache_lpm.dump))
    services = await asyncio.to_thread(maps.services.dump)
    base.planner.adopt(services, await asyncio.to_thread(maps.backends.dump))
    envoy_configs.adopt(services)
