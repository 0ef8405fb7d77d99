"""The agent's process: settings, what it watches, what it writes, in the order things start and stop.

Start: watch nodes → open or adopt the datapath → take wired pods back → all informers synced → plan → the
first plan is in the kernel → ready (CNI configuration, taint, CiliumNode). Nothing of the kernel's state is
deleted before every informer is synced. Stop: whatever is in the kernel stays as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from mycel.abi import ProxyKind
from mycel.agent import server
from mycel.agent.answers import Answers
from mycel.agent.cni_install import install_configuration, install_plugin
from mycel.agent.directory import StoreDirectory
from mycel.agent.dns_names import DnsNames, connection_ends
from mycel.agent.endpoints import Endpoints
from mycel.agent.envoy_configs import EnvoyConfigs
from mycel.agent.identities import Identities
from mycel.agent.ipam import Pool, router_address
from mycel.agent.l2.announcer import Announcer
from mycel.agent.l2.greet import greet
from mycel.agent.learnt import Learnt
from mycel.agent.node_network import Routes, datapath_settings, pod_networks, wait_own_node
from mycel.agent.owners import PodOwners
from mycel.agent.planner import Part, Planner
from mycel.agent.pods import PodFacts
from mycel.agent.policies import Policies
from mycel.agent.policy_alarm import tell_overflows
from mycel.agent.policy_files import PolicyFiles
from mycel.agent.policy_status import PolicyStatus
from mycel.agent.proxy.access_log import AccessLogs
from mycel.agent.proxy.header_secrets import HeaderSecrets
from mycel.agent.proxy.policy_listeners import PolicyListeners
from mycel.agent.proxy.port_file import PortFile
from mycel.agent.proxy.proxy import Proxy
from mycel.agent.proxy.records import Records
from mycel.agent.proxy.stale_legs import end_stale_legs
from mycel.agent.publish import EndpointPublisher, announce_ready, node_object, publish_node
from mycel.agent.relabel import Relabeller
from mycel.agent.secrets import Secrets
from mycel.agent.settings import Settings, SettingsError, parse_settings, read_config_dir
from mycel.agent.sources import StoreSources, node_address_text, this_node, touch_on_change
from mycel.agent.state import EndpointFiles
from mycel.agent.statuses import is_first
from mycel.agent.visibility import Visibility
from mycel.agent.watches import Watches
from mycel.agent.wiring import KernelWiring
from mycel.datapath.node import Datapath
from mycel.datapath.node_setup import RouteTarget
from mycel.datapath.rtnetlink import Netlink
from mycel.k8s.client import ApiClient, ConfigError, Endpoint
from mycel.k8s.errors import ApiError
from mycel.kit.backoff import backoff_s
from mycel.kit.logfmt import set_up as set_up_logs
from mycel.kit.readiness import Readiness
from mycel.kit.reconcile import Report, log_problems, reconcile
from mycel.kit.tasks import spawn, until_signal
from mycel.model.address import Address, format_address, is_ipv4
from mycel.plan.node_plan import APPLY_ORDER
from mycel.plan.rows import Underlay

log = logging.getLogger("mycel.agent")


async def run_agent(settings: Settings, endpoint: Endpoint) -> None:
    """The whole agent, until cancelled."""
    ready, report = Readiness(), Report()
    ready.block("datapath")
    ready.block("first plan")
    await asyncio.to_thread(_prepare, settings)

    async with ApiClient(endpoint, user_agent="cilium-agent") as client, asyncio.TaskGroup() as group:
        watches = Watches(
            client,
            settings.node_name,
            leases_in=settings.namespace if settings.announce else "",
            envoy_configs=settings.envoy_config or settings.ingress_controller,
        )
        watches.start(group, ready)

        # The node, its datapath, and the pods that are wired already.
        node = await wait_own_node(watches, settings.node_name)
        this = this_node(node, address=settings.node_address, service_range=settings.service_range)
        datapath = await asyncio.to_thread(Datapath.open, datapath_settings(settings, node, pod_networks(watches)))
        log.info("datapath: %s", datapath.opened)
        networks = [network for network in node.pod_networks if ":" not in network or settings.ipv6]
        routers = [router_address(network) for network in networks]
        wiring = KernelWiring(attach=datapath.attach_pod, forget=datapath.forget_pod, mtu=datapath.devices.pod_mtu)
        identities = Identities(client, watches.identities)
        facts = PodFacts(client, watches, cluster=settings.cluster_name)
        endpoints = Endpoints(
            files=EndpointFiles(settings.state_dir / "state" / "endpoints"),
            pools=[Pool(network) for network in networks],
            routers=routers,
            wiring=wiring,
            pods=facts,
            resolve=identities.resolve,
            realize=lambda: planner.realize(Part.ENDPOINTS),
        )
        policies = Policies(
            watches,
            endpoints,
            files=PolicyFiles(settings.state_dir / "state" / "policies"),
            cluster=settings.cluster_name,
            cidr_modes=settings.policy_cidr_match_mode,
            enforcement=settings.enforcement,
        )
        names = DnsNames(
            settings.state_dir / "dns-proxy",
            policies.engine,
            connections=lambda: connection_ends(datapath.maps.ct.dump()),
        )
        learnt = Learnt(settings.state_dir / "dns-proxy" / "names.jsonl")
        ports = PortFile(settings.state_dir / "state" / "proxy-ports.json", policies.engine.ports)
        await asyncio.to_thread(ports.load)
        await asyncio.to_thread(names.adopt)
        await endpoints.restore()
        ready.unblock("datapath")

        # Plans: what touches them, where they go.
        underlays = datapath.devices.underlays
        announcer = Announcer(
            client,
            watches,
            node=settings.node_name,
            namespace=settings.namespace,
            devices=tuple(link.name for link in underlays),
            times=settings.announce_times,
        )
        envoy_configs = EnvoyConfigs(client, watches, settings, this)
        sources = StoreSources(
            watches,
            endpoints,
            this,
            policy=policies.plan,
            announced=lambda: announcer.addresses.value,
            underlays=[Underlay(link.ifindex, link.mac) for link in underlays],
            redirects=envoy_configs.configs.redirects,
            proxies=lambda: proxy.groups,
        )
        planner = Planner(sources)
        header_values = Secrets(client)
        header_secrets = HeaderSecrets(
            header_values,
            judged=lambda: (
                frozenset().union(*policies.secrets.values()) if is_first(watches, settings.node_name) else ()
            ),
        )
        listeners = PolicyListeners(
            policies.engine,
            header_secrets,
            connected=lambda: proxy.connected,
            envoy=settings.l7_proxy,
            dns_proxy=settings.dns_proxy,
            shown=settings.shown_headers,
            remember=ports.save,
        )
        records = Records()
        proxy = Proxy(
            settings.envoy_dir,
            [listeners.snapshot, envoy_configs.configs.snapshot],
            groups={
                ProxyKind.ENVOY: settings.envoy_dir / "group",
                ProxyKind.DNS: settings.state_dir / "dns-proxy" / "group",
            },
        )
        proxy.adopt(await asyncio.to_thread(datapath.maps.proxies.dump))
        proxy.changed = lambda: planner.touch(Part.SERVICES)
        proxy.answered = [listeners.answered, envoy_configs.configs.answered]
        policies.pending, policies.planned, policies.refused = listeners.pending, listeners.planned, listeners.refused
        listeners.touch = policies.listeners_answered
        visibility = Visibility(watches)
        policies.visible = visibility.of
        visibility.changed = lambda: planner.touch(Part.POLICY)
        policies.connect(planner.touch)
        policies.adopt(
            await asyncio.to_thread(datapath.maps.interfaces.dump),
            await asyncio.to_thread(datapath.maps.ipcache_lpm.dump),
        )
        held = await asyncio.to_thread(datapath.maps.services.dump)
        planner.adopt(held, await asyncio.to_thread(datapath.maps.backends.dump))
        envoy_configs.adopt(held)
        targets = datapath.targets(APPLY_ORDER)
        routes = Routes(watches, datapath)
        directory = StoreDirectory(
            watches,
            pods=PodOwners(watches, endpoints, here=node_address_text(this), cluster=settings.cluster_name),
            identities=identities,
            planner=planner,
            policies=policies,
            this=lambda: this,
            names=learnt.names,
            cluster=settings.cluster_name,
        )
        learnt.changed = directory.changed
        touch_on_change(planner, watches, endpoints)
        watches.on_any(
            (watches.endpoints, watches.nodes, watches.identities, watches.pods, watches.services),
            directory.changed,
        )
        endpoints.subscribe(lambda _old, _new: directory.changed())

        # What others are told.
        publisher = EndpointPublisher(
            client,
            endpoint=endpoints.of_pod,
            pod=lambda ref: watches.pods.get(ref.name, ref.namespace),
            published=lambda ref: watches.endpoints.get(ref.name, ref.namespace),
            node_address=lambda: node_address_text(this),
            enforced=policies.in_force,
        )
        policies.enforced = lambda endpoint: publisher.touch(endpoint.ref)
        _publish_on_change(publisher, watches, endpoints, here=node_address_text(this))
        relabeller = Relabeller(watches, endpoints, identities=identities, facts=facts)

        answers = Answers(
            settings,
            this=this,
            watches=watches,
            endpoints=endpoints,
            identities=identities,
            planner=planner,
            datapath=datapath,
            policies=policies,
            learnt=learnt,
            records=records,
            listeners=listeners,
            configs=envoy_configs.configs,
            report=report,
            ready=ready,
        )
        cni = server.CniHandlers(
            endpoints,
            routers={is_ipv4(router): format_address(router) for router in routers},
            ready=ready,
        )
        app = server.build(cni, answers.views(), texts={"/v1/metrics": answers.metrics_text})
        app.router.add_post("/v1/names", names.handle)
        socket_runner = await server.serve_socket(app, settings.socket)
        probes = await server.serve_probes(ready, answers.metrics_text, port=settings.health_port)

        try:
            await watches.wait_synced()
            announcer.look()  # what an agent before us announced stays announced
            spawn(group, planner.run(), "planner")
            writing = reconcile(planner.desired, targets, report, realized=planner.realized, settled=targets.settled)
            spawn(group, writing, "datapath")
            routes.update()
            route_target: Any = RouteTarget(Netlink())
            desired_routes: Any = routes.desired
            spawn(group, reconcile(desired_routes, route_target, report), "routes")
            spawn(group, log_problems(report), "report")
            spawn(group, policies.follow(planner, datapath.maps.interfaces.get), "policy revision")
            spawn(group, names.run(planner), "names")
            spawn(group, learnt.run(), "learnt names")
            await planner.realized.newer_than(0)
            ready.unblock("first plan")
            if settings.announce:
                spawn(group, announcer.run(), "announcer")
                spawn(group, greet(announcer, planner, underlays), "greeter")
            done = await server.replay_deletes(endpoints, settings.state_dir / "state" / "deletes")
            if done:
                log.info("%d pods were taken down while the agent was away", done)
            spawn(
                group,
                tell_overflows(client, policies, planner, endpoints=endpoints, node=settings.node_name),
                "policy alarms",
            )
            status = PolicyStatus(
                client, watches, policies, node=settings.node_name, unresolved=header_secrets.problems
            )
            spawn(group, status.run(), "policy status")
            spawn(group, header_values.run(), "Secrets of policies")
            spawn(group, listeners.run(planner), "policy listeners")
            spawn(group, end_stale_legs(planner), "stale legs")
            spawn(group, envoy_configs.run(planner), "CiliumEnvoyConfigs")
            spawn(group, proxy.watch_groups(), "groups of proxies")
            if settings.l7_proxy:
                spawn(group, proxy.run([AccessLogs(records, settings.redaction)]), "proxy")
            spawn(group, publisher.run(), "endpoint publisher")
            spawn(group, relabeller.run(), "relabeller")
            relabeller.check_all()
            for each in endpoints.all().values():
                publisher.touch(each.ref)
            announced = _announce(
                client,
                watches,
                settings,
                routers=[format_address(router) for router in routers],
                ingress=this.ingress_addresses,
            )
            spawn(group, announced, "node")
            await asyncio.to_thread(
                install_configuration,
                settings.cni_conf_dir,
                run_dir="/var/run/cilium",
                exclusive=settings.cni_exclusive,
            )
            log.info("ready: %s", planner.plan)
            gc.collect()
            gc.freeze()
            if settings.hubble:
                # Imported when pods can start already: it costs a third of the start-up.
                from mycel.agent.flows import run_flows

                await run_flows(settings, datapath, directory, answers, watches, records)
            else:
                await asyncio.Event().wait()
        finally:
            await probes.cleanup()
            await socket_runner.cleanup()
            wiring.close()
            datapath.close()


def _prepare(settings: Settings) -> None:
    """Files that do not depend on the cluster."""
    state = settings.state_dir / "state"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    runtime = {
        "MonitorAggregation": settings.monitor_aggregation,
        "EnableICMPRules": True,
        "EnableHealthChecking": False,
        "EnableEndpointHealthChecking": False,
        "EncryptNode": False,
        "EnableK8sNetworkPolicy": True,
        "EnableK8sClusterNetworkPolicy": False,
    }
    path = state / "agent-runtime-config.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(runtime), indent=1))
    temporary.rename(path)
    install_plugin(settings.cni_bin_dir)


def _publish_on_change(publisher: EndpointPublisher, watches: Watches, endpoints: Endpoints, *, here: str) -> None:
    """Connect what may change a CiliumEndpoint of this node to its writer."""

    def endpoint_changed(old: Any, new: Any) -> None:
        publisher.touch((new or old).ref)

    def object_changed(_key: Any, old: Any, new: Any) -> None:
        seen = new or old
        if seen.node_address == here or endpoints.of_pod(seen.ref) is not None:
            publisher.touch(seen.ref)

    endpoints.subscribe(endpoint_changed)
    watches.endpoints.subscribe(object_changed)


async def _announce(
    client: ApiClient, watches: Watches, settings: Settings, *, routers: list[str], ingress: Iterable[Address]
) -> None:
    """Publish the CiliumNode and the node's readiness, again whenever the node's own facts change."""
    changed = asyncio.Event()
    watches.nodes.subscribe(lambda key, _old, _new: changed.set() if key.name == settings.node_name else None)
    told: object = None
    failures = 0
    while True:
        changed.clear()
        node = watches.nodes.get(settings.node_name)
        facts = (node.labels, node.internal_addresses, node.taints, node.uid) if node else None
        if node is not None and facts != told:
            try:
                body = node_object(node, addresses=list(node.internal_addresses), routers=routers, ingress=ingress)
                await publish_node(client, body)
                await announce_ready(client, node)
            except ApiError as exc:
                failures += 1
                log.info("node %s is not announced yet: %s", settings.node_name, exc)
                await asyncio.sleep(backoff_s(failures, jitter=0.2))
                continue
            told, failures = facts, 0
        await changed.wait()


def main(arguments: list[str] | None = None) -> int:
    """`cilium-agent [--config-dir DIR]`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="cilium-agent", description="The mesh's agent of one node.")
    parser.add_argument("--config-dir", type=Path, default=Path("/tmp/cilium/config-map"))  # noqa: S108
    parser.add_argument("--kubeconfig", type=Path, help="for an agent outside of a pod")
    options = parser.parse_args(arguments)
    try:
        settings = parse_settings(read_config_dir(options.config_dir), os.environ)
        set_up_logs(debug=settings.debug)
        endpoint = Endpoint.from_kubeconfig(options.kubeconfig) if options.kubeconfig else Endpoint.detect()
    except (SettingsError, ConfigError) as exc:
        set_up_logs(debug=False)
        log.error("%s", exc)
        return 2
    log.info("agent of node %s, API server %s", settings.node_name, endpoint.server)
    return asyncio.run(until_signal(run_agent(settings, endpoint), "agent", stopped="the datapath stays as it is"))
