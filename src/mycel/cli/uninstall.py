"""`mycel uninstall`: take the mesh off its nodes, through its agents, then its objects out of the cluster.

Nodes keep no program, map, route, device or CNI configuration of it. Pods that exist are cut off, and work again
when the mesh is installed again; under another network they have to be made anew. Definitions and the policies
people wrote stay, unless they are asked for.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.chart.load import load_crds
from mycel.cli.errors import Failure
from mycel.cli.mesh import agents, objects, release
from mycel.cli.output import good, warn
from mycel.cli.progress import step
from mycel.k8s.errors import NotFound
from mycel.k8s.resources import (
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_NODES,
    CRDS,
    DEPLOYMENTS,
    LEASES,
    PODS,
    SECRETS,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
)
from mycel.kit.deploy import crds_dir
from mycel.operator.settings import ADMISSION, ADMISSION_SECRET, OPERATOR_LEASE
from mycel.policy.announce import is_lease_name

if TYPE_CHECKING:
    from mycel.k8s.client import ApiClient

_OPERATOR_PODS = "io.cilium/app=operator"
_OPERATOR_ENDS_S, _TELL_S = 60.0, 1.0
_CLEAN_UP = ["cilium-cleanup", "--force"]


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
        with step("Ending validation") as doing:
            doing.update(await _end_admission(client, target.namespace))
        with step("Cleaning nodes") as doing:
            doing.update(await _clean_nodes(client, target.namespace))
        with step("Removing objects") as doing:
            for kind, namespace, name in sorted(record.objects):
                if kind in objects.RESOURCES and await objects.remove(
                    client, objects.RESOURCES[kind], name, namespace=namespace
                ):
                    doing.update(f"{kind} {name}")
            for secret in secrets:
                await objects.remove(client, SECRETS, secret["metadata"]["name"], namespace=target.namespace)
        with step("Removing what agents wrote") as doing:
            doing.update(await _remove_written(client, target.namespace))
        if crds:
            with step("Removing definitions"):
                for item in load_crds(crds_dir()):
                    await objects.remove(client, CRDS, item["metadata"]["name"])
        if wait:
            await _wait_gone(client, target.namespace)
    click.echo(f"{good('Mycel is removed')}. Nodes have no network for new pods until one is installed.")


async def _end_admission(client: ApiClient, namespace: str) -> str:
    """Before anything else, so that no API server asks who is gone. The operator ends first: it would put it back."""
    await objects.remove(client, DEPLOYMENTS, "cilium-operator", namespace=namespace)
    left = await _gone(client, namespace, _OPERATOR_PODS, limit_s=_OPERATOR_ENDS_S)
    await objects.remove(client, VALIDATING_WEBHOOK_CONFIGURATIONS, ADMISSION)
    await objects.remove(client, SECRETS, ADMISSION_SECRET, namespace=namespace)
    return "its operator does not end" if left else ""


async def _clean_nodes(client: ApiClient, namespace: str) -> str:
    """Let each agent take what it made off its node. What cannot be cleaned is named, and no reason to stop."""
    try:
        pods = await agents.agent_pods(client, namespace)
    except Failure:
        return "no agent is running: what the mesh made on the nodes stays there"
    answers = await agents.run_all(client, pods, _CLEAN_UP)
    nodes = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods}
    for pod, error in answers.items():
        if error:
            click.echo(warn(f"node {nodes[pod]} keeps what the mesh made there: {error}"), err=True)
    return f"{sum(not error for error in answers.values())} of {len(pods)} nodes"


async def _remove_written(client: ApiClient, namespace: str) -> str:
    removed = 0
    for lease in (await client.list(LEASES, namespace=namespace)).items:
        name = lease["metadata"]["name"]
        if name == OPERATOR_LEASE or is_lease_name(name):
            removed += await objects.remove(client, LEASES, name, namespace=namespace)
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
        for selector in ("k8s-app=cilium", _OPERATOR_PODS):
            while left := await _gone(client, namespace, selector, limit_s=_TELL_S):
                doing.update(f"{left} left")


async def _gone(client: ApiClient, namespace: str, selector: str, *, limit_s: float) -> int:
    """How many of these pods are still there after waiting for them to end."""
    deadline_s = time.monotonic() + limit_s
    while left := (await client.list(PODS, namespace=namespace, label_selector=selector)).items:
        if time.monotonic() > deadline_s:
            break
        await asyncio.sleep(0.2)
    return len(left)
