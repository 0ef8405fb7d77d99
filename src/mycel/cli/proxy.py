"""`mycel proxy list`: listeners of every node's proxies, why they are there, and what the proxy says of each."""

from __future__ import annotations

from typing import Any

import click

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.errors import Failure
from mycel.cli.mesh.agents import agent_pods, ask_all
from mycel.cli.output import bad, good, output_option, print_json, print_table, warn

_COLOURS = {"acknowledged": good, "waiting": warn, "refused": bad}


@click.group()
def proxy() -> None:
    """Show what the nodes' proxies listen on, and why."""


@proxy.command("list")
@click.option("--node", metavar="NAME", default="", help="One node only.")
@cluster_options
@output_option
@asynchronous
async def list_listeners(*, node: str, target: Target, output: str) -> None:
    """Print listeners: port, direction, the rules and objects that want each, what it lets through, and its state.

    Connections to a listener that is not acknowledged are dropped.
    """
    async with target.client() as client:
        pods = await agent_pods(client, target.namespace, node)
        answers = await ask_all(client, pods, ["cilium", "proxy", "list", "-o", "json"])
    rows: list[dict[str, Any]] = []
    for pod in pods:
        name, answer = str(pod["spec"]["nodeName"]), answers[pod["metadata"]["name"]]
        if isinstance(answer, str):
            raise Failure(f"the agent on node {name} does not answer: {answer}", hint="See mycel status.")
        rows += [{"node": name} | item for item in answer]
    if output == "json":
        print_json(rows)
        return
    print_table(
        ("NODE", "PORT", "PROXY", "DIRECTION", "ORIGIN", "STATE", "LETS THROUGH"),
        [
            (
                row["node"],
                row["port"],
                row["proxy"],
                row["direction"],
                ", ".join(row["origins"]),
                _COLOURS[row["state"]](row["message"] or row["state"]),
                "; ".join(row["rules"]),
            )
            for row in rows
        ],
    )
