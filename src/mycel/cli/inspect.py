"""`mycel endpoint|identity|service list`: what should be, as objects say, beside what each node made of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import click

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.bpf import read_rows
from mycel.cli.errors import Failure
from mycel.cli.mesh.agents import agent_pods, ask_all
from mycel.cli.output import bad, good, output_option, print_json, print_table
from mycel.k8s.errors import NotFound
from mycel.k8s.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES

_HOST = 1  # the reserved identity of the node itself
_node_option = click.option("--node", metavar="NAME", default="", help="One node only.")


@click.group()
def endpoint() -> None:
    """Show the workloads of every node."""


@click.group()
def identity() -> None:
    """Show security identities."""


@click.group()
def service() -> None:
    """Show services and their backends."""


@endpoint.command("list")
@_node_option
@cluster_options
@output_option
@asynchronous
async def list_endpoints(*, node: str, target: Target, output: str) -> None:
    """Print every node's pods: state and identity as the agent wants them, and as the kernel has them."""
    async with target.client() as client:
        pods = await agent_pods(client, target.namespace, node)
        answers = await ask_all(client, pods, ["cilium", "endpoint", "list", "-o", "json"])
        kernel = {
            (row.node, str(row.key.get("address", ""))): row.realized
            for row in await read_rows(client, target, "endpoint", node)
        }
    rows: list[dict[str, Any]] = []
    for pod in pods:
        name, answer = str(pod["spec"]["nodeName"]), answers[pod["metadata"]["name"]]
        if isinstance(answer, str):
            raise Failure(f"the agent on node {name} does not answer: {answer}", hint="See mycel status.")
        rows += [_endpoint_row(name, item, kernel) for item in answer]
    if output == "json":
        print_json(rows)
        return
    print_table(
        ("NODE", "ENDPOINT", "POD", "IPV4", "IDENTITY", "STATE", "REALIZED"),
        [
            (
                row["node"],
                row["id"],
                row["pod"] or "(the node itself)",
                row["ipv4"],
                row["identity"],
                row["state"],
                _realized(row),
            )
            for row in rows
        ],
    )


def _endpoint_row(node: str, item: dict[str, Any], kernel: dict[tuple[str, str], Any]) -> dict[str, Any]:
    """One endpoint of models.Endpoint, with the kernel's row of its address."""
    status: dict[str, Any] = item.get("status") or {}
    outside: dict[str, Any] = status.get("external-identifiers") or {}
    addressing = (status.get("networking") or {}).get("addressing") or [{}]
    ipv4 = str(addressing[0].get("ipv4", ""))
    names = [outside.get("k8s-namespace"), outside.get("k8s-pod-name")]
    identity = (status.get("identity") or {}).get("id")
    realized = kernel.get((node, ipv4))
    if identity == _HOST:  # the node itself: it has several addresses
        own = [row for (where, _), row in kernel.items() if where == node and row and row.get("identity") == _HOST]
        realized = own[0] if own else None
    return {
        "node": node,
        "id": item.get("id"),
        "pod": outside.get("pod-name") or "/".join(str(name) for name in names if name),
        "ipv4": ipv4,
        "identity": identity,
        "state": status.get("state"),
        "realized": realized,
    }


def _realized(row: dict[str, Any]) -> str:
    realized: dict[str, Any] | None = row["realized"]
    if realized is None:
        return bad("not in the kernel")
    if str(realized.get("identity")) != str(row["identity"]):
        return bad(f"identity {realized.get('identity')}")
    return good("yes")


@identity.command("list")
@cluster_options
@output_option
@asynchronous
async def list_identities(*, target: Target, output: str) -> None:
    """Print the identities there are, how many pods carry each, and on how many nodes it is known."""
    async with target.client() as client:
        try:
            objects = (await client.list(CILIUM_IDENTITIES)).items
            endpoints = (await client.list(CILIUM_ENDPOINTS)).items
        except NotFound:
            raise Failure("the mesh is not installed", hint="mycel install installs it.") from None
        nodes = await agent_pods(client, target.namespace)
        known: defaultdict[str, set[str]] = defaultdict(set)
        for row in await read_rows(client, target, "ipcache", ""):
            known[str((row.realized or {}).get("identity"))].add(row.node)
    carried = Counter(str(((item.get("status") or {}).get("identity") or {}).get("id")) for item in endpoints)
    rows: list[dict[str, Any]] = [
        {
            "id": int(item["metadata"]["name"]),
            "labels": sorted(f"{key}={value}" for key, value in item.get("security-labels", {}).items()),
            "pods": carried[item["metadata"]["name"]],
            "nodes": sorted(known[item["metadata"]["name"]]),
        }
        for item in objects
    ]
    rows.sort(key=lambda row: row["id"])
    if output == "json":
        print_json(rows)
        return
    print_table(
        ("IDENTITY", "PODS", "REALIZED", "LABELS"),
        [(row["id"], row["pods"], f"{len(row['nodes'])}/{len(nodes)} nodes", ", ".join(row["labels"])) for row in rows],
    )


def _frontend(key: Mapping[str, Any]) -> str:
    """`address:port/protocol`; a NodePort answers at every address of a node."""
    address = str(key.get("address", ""))
    address = "*" if address in {"0.0.0.0", "::"} else f"[{address}]" if ":" in address else address  # noqa: S104
    return f"{address}:{key.get('port')}/{key.get('protocol')}"


@service.command("list")
@_node_option
@cluster_options
@output_option
@asynchronous
async def list_services(*, node: str, target: Target, output: str) -> None:
    """Print every frontend with its backends, and on how many nodes the kernel has it just so."""
    async with target.client() as client:
        pods = await agent_pods(client, target.namespace, node)
        rows = await read_rows(client, target, "lb", node)
    merged: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        merged[_frontend(row.key)].append(row)
    listed: list[dict[str, Any]] = [
        {
            "frontend": frontend,
            "type": str((group[0].desired or group[0].realized or {}).get("type", "")),
            "backends": list((group[0].desired or group[0].realized or {}).get("backends") or []),
            "nodes": {row.node: row.sync.value for row in group},
        }
        for frontend, group in sorted(merged.items())
    ]
    if output == "json":
        print_json(listed)
        return
    print_table(
        ("FRONTEND", "TYPE", "BACKENDS", "REALIZED"),
        [
            (
                item["frontend"],
                item["type"],
                ", ".join(str(backend) for backend in item["backends"]),
                f"{sum(state == 'same' for state in item['nodes'].values())}/{len(pods)} nodes",
            )
            for item in listed
        ],
    )
