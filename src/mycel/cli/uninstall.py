"""`mycel uninstall`: take the mesh's objects away, and from nodes the configuration that names it their network.

Kernel programs stay pinned on the nodes, as they do with Cilium: established connections of pods that exist keep
running. Definitions and the policies people wrote stay too, unless they are asked for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.chart.load import load_crds
from mycel.cli.errors import Failure
from mycel.cli.mesh import agents, objects, release
from mycel.cli.output import good
from mycel.cli.progress import step
from mycel.k8s.errors import NotFound
from mycel.k8s.resources import (
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_NODES,
    CRDS,
    PODS,
    SECRETS,
)
from mycel.kit.deploy import crds_dir

if TYPE_CHECKING:
    from mycel.k8s.client import ApiClient

_DISCONNECT = ["sh", "-c", "rm -f /host/etc/cni/net.d/05-cilium.conflist"]


@click.command()
@cluster_options
@click.option("--crds", is_flag=True, help="Also the definitions, and with them every policy.")
@click.option("--wait", "wait", is_flag=True, help="Wait until agents and operator are gone.")
@asynchronous
async def uninstall(*, target: Target, crds: bool, wait: bool) -> None:
    """Remove the mesh from a cluster."""
    async with target.client() as client:
        secrets = (await client.list(SECRETS, namespace=target.namespace, label_selector=release.SELECTOR)).items
        record = release.newest(secrets)
        if record is None:
            raise Failure(
                f"the mesh is not installed in namespace {target.namespace}",
                hint="-n names another namespace; mycel status shows what is there.",
            )
        with step("Disconnecting nodes") as doing:
            doing.update(await _disconnect(client, target.namespace))
        with step("Removing objects") as doing:
            for kind, namespace, name in sorted(record.objects):
                if kind in objects.RESOURCES and await objects.remove(
                    client, objects.RESOURCES[kind], name, namespace=namespace
                ):
                    doing.update(f"{kind} {name}")
            for secret in secrets:
                await objects.remove(client, SECRETS, secret["metadata"]["name"], namespace=target.namespace)
        with step("Removing what agents wrote") as doing:
            doing.update(await _remove_written(client))
        if crds:
            with step("Removing definitions"):
                for item in load_crds(crds_dir()):
                    await objects.remove(client, CRDS, item["metadata"]["name"])
        if wait:
            await _wait_gone(client, target.namespace)
    click.echo(f"{good('Mycel is removed')}. Nodes have no network for new pods until one is installed.")


async def _disconnect(client: ApiClient, namespace: str) -> str:
    """Nodes without the mesh's CNI configuration report NotReady instead of failing every new pod."""
    try:
        pods = await agents.agent_pods(client, namespace)
    except Failure:
        return "no agent is running: /etc/cni/net.d/05-cilium.conflist stays on the nodes"
    answers = await agents.run_all(client, pods, _DISCONNECT)
    failed = [pod for pod, error in answers.items() if error]
    return f"{len(answers) - len(failed)} of {len(pods)} nodes"


async def _remove_written(client: ApiClient) -> str:
    removed = 0
    for resource in (CILIUM_ENDPOINTS, CILIUM_NODES, CILIUM_IDENTITIES):
        try:
            items = (await client.list(resource)).items
        except NotFound:  # its kind is not defined
            continue
        for item in items:
            metadata = item["metadata"]
            removed += await objects.remove(client, resource, metadata["name"], namespace=metadata.get("namespace", ""))
    return f"{removed} objects"


async def _wait_gone(client: ApiClient, namespace: str) -> None:
    with step("Waiting for pods to end") as doing:
        for selector in ("k8s-app=cilium", "io.cilium/app=operator"):
            while left := (await client.list(PODS, namespace=namespace, label_selector=selector)).items:
                doing.update(f"{len(left)} left")
                await asyncio.sleep(0.5)
