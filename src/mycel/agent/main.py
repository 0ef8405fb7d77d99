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
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from mycel.agent import server
from mycel.agent.answers import Answers
from mycel.agent.assembly import (
    Base,
    Pods,
    Policy,
    adopt,
    make_announcer,
    make_directory,
    make_proxy,
    make_sources,
)
from mycel.agent.cni_install import install_configuration, install_plugin
from mycel.agent.envoy_configs import EnvoyConfigs
from mycel.agent.l2.greet import greet
from mycel.agent.learnt import Learnt
from mycel.agent.node_network import Routes, open_own_node
from mycel.agent.own_node import announce_node
from mycel.agent.planner import Planner
from mycel.agent.policy_alarm import tell_overflows
from mycel.agent.proxy.access_log import AccessLogs
from mycel.agent.proxy.records import Records
from mycel.agent.proxy.stale_legs import end_stale_legs
from mycel.agent.publish import EndpointPublisher
from mycel.agent.settings import Settings, parse_settings
from mycel.agent.sources import touch_on_change
from mycel.agent.watches import Watches
from mycel.datapath.node_setup import RouteTarget
from mycel.datapath.rtnetlink import Netlink
from mycel.k8s.client import ApiClient, ConfigError, Endpoint
from mycel.kit.config import SettingsError, read_config_dir
from mycel.kit.logfmt import set_up as set_up_logs
from mycel.kit.readiness import Readiness
from mycel.kit.reconcile import Report, log_problems, reconcile
from mycel.kit.tasks import spawn, until_signal
from mycel.model.address import format_address, is_ipv4
from mycel.plan.node_plan import APPLY_ORDER

log = logging.getLogger("mycel.agent")


async def run_agent(settings: Settings, endpoint: Endpoint) -> None:
    """The whole agent, until cancelled."""
    ready, report = Readiness(), Report()
    ready.block("datapath")
    ready.block("first plan")
    await asyncio.to_thread(_prepare, settings)

    async with (
        ApiClient(endpoint, user_agent="cilium-agent") as client,
        asyncio.TaskGroup() as group,
        AsyncExitStack() as closing,
    ):
        watches = Watches(
            client,
            settings.node_name,
            leases_in=settings.namespace if settings.announce else "",
            envoy_configs=settings.envoy_config or settings.ingress_controller,
        )
        watches.start(group, ready)

        # The node, its datapath, what plans for it, and what is planned: pods, policy, proxies.
        node = await open_own_node(settings, watches)
        datapath = node.datapath
        closing.callback(datapath.close)
        planner = Planner()
        base = Base(settings, client, watches, node, planner)
        pods = Pods.make(base)
        closing.callback(pods.wiring.close)
        endpoints = pods.endpoints
        proxy = make_proxy(base)
        policy = Policy.make(base, endpoints, proxy)
        policies = policy.policies
        envoy_configs = EnvoyConfigs(client, watches, settings, node.this, planner)
        announcer = make_announcer(base)
        routes = Routes(watches, datapath)
        await adopt(base, pods, policy, proxy, envoy_configs)
        ready.unblock("datapath")
        touch_on_change(planner, watches, endpoints)

        # What others are told, and what is answered when they ask.
        publisher = EndpointPublisher(client, watches, endpoints, policies, node_address=node.address)
        records, learnt = Records(), Learnt(settings.state_dir / "dns-proxy" / "names.jsonl")
        directory = make_directory(base, pods, policies, learnt)
        answers = Answers(
            settings,
            this=node.this,
            watches=watches,
            endpoints=endpoints,
            identities=pods.identities,
            planner=planner,
            datapath=datapath,
            policies=policies,
            learnt=learnt,
            records=records,
            listeners=policy.listeners,
            configs=envoy_configs.configs,
            report=report,
            ready=ready,
        )
        routers = {is_ipv4(router): format_address(router) for router in node.routers}
        cni = server.CniHandlers(endpoints, routers=routers, ready=ready)
        app = server.build(cni, answers.views(), texts={"/v1/metrics": answers.metrics_text})
        app.router.add_post("/v1/names", policy.names.handle)
        closing.push_async_callback((await server.serve_socket(app, settings.socket)).cleanup)
        probes = await server.serve_probes(ready, answers.metrics_text, port=settings.health_port)
        closing.push_async_callback(probes.cleanup)

        # Plans, once all is known that they are made of, and the kernel brought there.
        await watches.wait_synced()
        announcer.look()  # what an agent before us announced stays announced
        sources = make_sources(
            base, endpoints, policies=policies, proxy=proxy, envoy_configs=envoy_configs, announcer=announcer
        )
        spawn(group, planner.run(sources), "planner")
        targets = datapath.targets(APPLY_ORDER)
        writing = reconcile(planner.desired, targets, report, realized=planner.realized, settled=targets.settled)
        spawn(group, writing, "datapath")
        routes.update()
        route_target: Any = RouteTarget(Netlink())
        desired_routes: Any = routes.desired
        spawn(group, reconcile(desired_routes, route_target, report), "routes")
        spawn(group, log_problems(report), "report")
        spawn(group, policy.readback.run(planner), "policy revision")
        spawn(group, policy.names.run(planner), "names")
        spawn(group, learnt.run(directory.changed), "learnt names")
        await planner.realized.newer_than(0)
        ready.unblock("first plan")

        # Everything that goes by a plan in force.
        if settings.announce:
            spawn(group, announcer.run(), "announcer")
            spawn(group, greet(announcer, planner, datapath.devices.underlays), "greeter")
        done = await server.replay_deletes(endpoints, settings.state_dir / "state" / "deletes")
        if done:
            log.info("%d pods were taken down while the agent was away", done)
        alarms = tell_overflows(client, policies, planner, endpoints=endpoints, node=settings.node_name)
        spawn(group, alarms, "policy alarms")
        spawn(group, policy.status.run(), "policy status")
        spawn(group, policy.header_values.run(), "Secrets of policies")
        spawn(group, policy.listeners.run(planner), "policy listeners")
        spawn(group, end_stale_legs(planner), "stale legs")
        spawn(group, envoy_configs.run(), "CiliumEnvoyConfigs")
        spawn(group, proxy.watch_groups(), "groups of proxies")
        if settings.l7_proxy:
            makers = [policy.listeners, envoy_configs.configs]
            spawn(group, proxy.run(makers, [AccessLogs(records, settings.redaction)]), "proxy")
        spawn(group, publisher.run(), "endpoint publisher")
        spawn(group, pods.relabeller.run(), "relabeller")
        announcing = announce_node(
            client, watches, settings.node_name, routers=node.routers, ingress=node.this.ingress_addresses
        )
        spawn(group, announcing, "node")
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
