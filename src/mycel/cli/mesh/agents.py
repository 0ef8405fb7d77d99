"""Asking a cluster how the mesh is, and the agents themselves what they know: list, get, exec into their pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mycel.cli.errors import Failure
from mycel.cli.mesh import release
from mycel.cli.mesh.health import PARTS, Object, Part, Report, count_pods, count_ready, judge
from mycel.k8s import exec as k8s_exec
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.resources import CILIUM_ENDPOINTS, DAEMON_SETS, DEPLOYMENTS, NODES, PODS, SECRETS

if TYPE_CHECKING:
    from mycel.k8s.client import ApiClient

AGENT_SELECTOR = "k8s-app=cilium"
CONTAINER = "cilium-agent"
_EXEC_S = 15.0


async def read_report(client: ApiClient, namespace: str) -> Report:
    """Everything about the mesh's health. Agents are asked only when their pods are ready. Raises ApiError."""
    components, pods, endpoints, nodes, version = await asyncio.gather(
        asyncio.gather(*(_component(client, part, namespace) for part in PARTS)),
        client.list(PODS),
        _endpoints(client),
        client.list(NODES),
        _chart_version(client, namespace),
    )
    counted = count_pods(pods.items, endpoints)
    return Report(
        components=tuple(components),
        pods=counted.total,
        managed=counted.managed,
        unmanaged=counted.unmanaged,
        nodes=len(nodes.items),
        nodes_ready=count_ready(nodes.items),
        chart_version=version,
    )


async def _component(client: ApiClient, part: Part, namespace: str) -> Any:
    resource = DAEMON_SETS if part.kind == "DaemonSet" else DEPLOYMENTS
    try:
        workload = await client.get(resource, part.name, namespace=namespace)
    except NotFound:
        return judge(part, None, ())
    pods = (await client.list(PODS, namespace=namespace, label_selector=part.selector)).items
    component = judge(part, workload, pods)
    if part.name != "cilium" or component.errors:
        return component
    answers = await ask_all(client, pods, ["cilium", "status", "-o", "json"])
    return judge(part, workload, pods, {pod["metadata"]["name"]: answers[pod["metadata"]["name"]] for pod in pods})


async def agent_pods(client: ApiClient, namespace: str, node: str = "") -> list[Object]:
    """The running agents, by node name. Raises Failure when there are none."""
    pods = (await client.list(PODS, namespace=namespace, label_selector=AGENT_SELECTOR)).items
    running = [
        pod
        for pod in pods
        if pod.get("status", {}).get("phase") == "Running" and (not node or pod["spec"].get("nodeName") == node)
    ]
    if not running:
        where = f" on node {node}" if node else ""
        raise Failure(
            f"no agent is running{where} in namespace {namespace}",
            hint="mycel install starts them; mycel status says what keeps them.",
        )
    return sorted(running, key=lambda pod: str(pod["spec"].get("nodeName")))


async def ask_all(client: ApiClient, pods: Sequence[Object], command: Sequence[str]) -> dict[str, Any]:
    """Run a command that prints JSON in every agent; by pod: what it printed, or why it did not (a string)."""
    answers = await asyncio.gather(*(_ask(client, pod, command) for pod in pods))
    return {pod["metadata"]["name"]: answer for pod, answer in zip(pods, answers, strict=True)}


async def run_all(client: ApiClient, pods: Sequence[Object], command: Sequence[str]) -> dict[str, str]:
    """Run a command in every agent; by pod: why it failed, or an empty string."""
    results = await asyncio.gather(*(_run(client, pod, command) for pod in pods))
    return {
        pod["metadata"]["name"]: result if isinstance(result, str) else ""
        for pod, result in zip(pods, results, strict=True)
    }


async def _ask(client: ApiClient, pod: Object, command: Sequence[str]) -> Any:
    output = await _run(client, pod, command)
    if isinstance(output, str):
        return output
    try:
        return json.loads(output)
    except ValueError:
        return f"{' '.join(command)} printed something that is not JSON"


async def _run(client: ApiClient, pod: Object, command: Sequence[str]) -> bytes | str:
    """What it wrote (bytes), or why it failed (text)."""
    metadata = pod["metadata"]
    try:
        result = await k8s_exec.run(
            client,
            list(command),
            namespace=metadata["namespace"],
            pod=metadata["name"],
            container=CONTAINER,
            timeout_s=_EXEC_S,
        )
    except (ApiError, TimeoutError) as exc:
        return str(exc) or type(exc).__name__
    if result.exit_code:
        said = result.stderr.decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"{' '.join(command)} exited with {result.exit_code}"
    return result.stdout


async def _endpoints(client: ApiClient) -> list[Object]:
    try:
        return (await client.list(CILIUM_ENDPOINTS)).items
    except NotFound:  # the kind is not defined yet
        return []


async def _chart_version(client: ApiClient, namespace: str) -> str:
    secrets = await client.list(SECRETS, namespace=namespace, label_selector=release.SELECTOR)
    record = release.newest(secrets.items)
    return str(record.chart.get("version", "")) if record else ""
