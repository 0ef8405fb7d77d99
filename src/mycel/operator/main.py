"""The operator's process: definitions first (agents wait for them), then, as the leader, everything else.

It answers probes and Prometheus on loopback (/healthz, /metrics), and the API server's admission reviews on the node's
address, as the leader or not.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from aiohttp import web

from mycel.k8s.client import ApiClient, ConfigError, Endpoint
from mycel.k8s.errors import ApiError
from mycel.kit.backoff import backoff_s
from mycel.kit.config import SettingsError, read_config_dir
from mycel.kit.logfmt import set_up as set_up_logs
from mycel.kit.reconcile import Report, log_problems
from mycel.kit.tasks import spawn, until_signal
from mycel.operator import crds
from mycel.operator.admission.review import Mesh
from mycel.operator.admission.server import AdmissionServer
from mycel.operator.admission.work import Admission
from mycel.operator.announcements import Announcements
from mycel.operator.collect import Collector
from mycel.operator.ingress.work import Ingresses
from mycel.operator.leader import Leader
from mycel.operator.loadbalancer.work import LoadBalancers
from mycel.operator.settings import OPERATOR_LEASE, Settings, parse_settings

log = logging.getLogger("mycel.operator")


async def run_operator(settings: Settings, endpoint: Endpoint) -> None:
    """The whole operator, until cancelled."""
    async with ApiClient(endpoint, user_agent="cilium-operator") as client:
        await _ensure_definitions(client)
        collector = Collector(
            client,
            interval_s=max(1.0, min(settings.endpoint_gc_s, settings.identity_gc_s) / 5),
            identity_grace_s=settings.identity_gc_s,
        )
        leader = Leader(client, namespace=settings.namespace, name=OPERATOR_LEASE, identity=settings.identity)
        report = Report()
        load_balancers = LoadBalancers(client, report)
        server = _admission_server(settings)
        admission = Admission(client, report, namespace=settings.namespace, server=server)

        async def lead() -> None:
            async with asyncio.TaskGroup() as group:
                spawn(group, collector.run(), "collector")
                spawn(group, load_balancers.run(), "addresses of load balancers")
                spawn(group, admission.lead(), "admission")
                spawn(group, Announcements(client, report).run(), "announcement policies")
                if settings.ingresses:
                    ingresses = Ingresses(client, report, force_https=settings.force_https)
                    spawn(group, ingresses.run(), "ingresses")
                spawn(group, log_problems(report), "report")

        runner = await _serve(settings.serve_port, collector, leader, server)
        try:
            async with asyncio.TaskGroup() as group:
                spawn(group, admission.serve(), "admission server")
                await leader.run(lead)
        finally:
            await leader.release()
            await runner.cleanup()


async def _ensure_definitions(client: ApiClient) -> None:
    failures = 0
    definitions = crds.load()
    while True:
        try:
            written = await crds.ensure(client, definitions)
        except ApiError as exc:
            failures += 1
            log.info("definitions are not there yet: %s", exc)
            await asyncio.sleep(backoff_s(failures, longest_s=5.0))
        else:
            log.info("%d definitions in place, %d written", len(definitions), written)
            return


def _admission_server(settings: Settings) -> AdmissionServer | None:
    if settings.admission is None:
        return None
    return AdmissionServer(*settings.admission, Mesh(settings.envoy_configs, settings.ingresses))


async def _serve(port: int, collector: Collector, leader: Leader, admission: AdmissionServer | None) -> web.AppRunner:
    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def metrics(_request: web.Request) -> web.Response:
        done = collector.collected
        return web.Response(
            text=(
                f"cilium_operator_leading {int(leader.leading)}\n"
                f"cilium_operator_identity_gc_entries_total {done.identities}\n"
                f"cilium_operator_endpoint_gc_objects_total {done.endpoints}\n"
                f"cilium_operator_node_gc_objects_total {done.nodes}\n"
                f"cilium_operator_gc_errors_total {done.errors}\n" + (admission.metrics() if admission else "")
            )
        )

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    return runner


def main(arguments: list[str] | None = None) -> int:
    """`cilium-operator-generic [--config-dir DIR]`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="cilium-operator-generic", description="The mesh's operator.")
    parser.add_argument("--config-dir", type=Path, default=Path("/tmp/cilium/config-map"))  # noqa: S108
    parser.add_argument("--kubeconfig", type=Path, help="for an operator outside of a pod")
    options = parser.parse_args(arguments)
    config = read_config_dir(options.config_dir)
    set_up_logs(debug=config.get("debug") == "true")
    try:
        settings = parse_settings(config, os.environ)
        endpoint = Endpoint.from_kubeconfig(options.kubeconfig) if options.kubeconfig else Endpoint.detect()
    except (SettingsError, ConfigError) as exc:
        log.error("%s", exc)
        return 2
    return asyncio.run(until_signal(run_operator(settings, endpoint), "operator"))


if __name__ == "__main__":
    sys.exit(main())
