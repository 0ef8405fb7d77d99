"""`mycel bpf <map> list`: every node's rows as planned and as the kernel holds them, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.errors import EXIT_FAILED, Failure
from mycel.cli.mesh.agents import agent_pods, ask_all
from mycel.cli.mesh.rows import Row, Sync, parse_rows, text
from mycel.cli.output import bad, good, output_option, print_json, print_table, warn

if TYPE_CHECKING:
    from mycel.k8s.client import ApiClient

MAPS = {
    "endpoint": "Addresses of this node's pods and of the node.",
    "ipcache": "Addresses: who it is and how to reach it.",
    "ct": "Connections.",
    "lb": "Services and their backends.",
    "nat": "Translations to and from the outside.",
    "metrics": "Packets and bytes, forwarded and dropped by reason.",
    "policy": "Policy rows.",
    "announced": "Addresses of services this node answers for by ARP.",
    "nodes": "Nodes that VXLAN is accepted from.",
    "affinity": "Clients that stay with a backend.",
    "socket_nat": "What was translated when a process dialled.",
    "fragments": "First fragments, for those that follow.",
}
_COLOURS = {
    Sync.SAME: good,
    Sync.KERNEL: lambda word: word,
    Sync.MISSING: bad,
    Sync.LEFT_OVER: warn,
    Sync.DIFFERENT: bad,
}


@click.group()
def bpf() -> None:
    """Show what the kernel's maps hold."""


async def read_rows(client: ApiClient, target: Target, table: str, node: str) -> list[Row]:
    """A map's rows of every node, or of one. Raises Failure when an agent does not answer."""
    pods = await agent_pods(client, target.namespace, node)
    answers = await ask_all(client, pods, ["cilium", "bpf", table, "list", "-o", "json"])
    rows: list[Row] = []
    for pod in pods:
        name, answer = str(pod["spec"]["nodeName"]), answers[pod["metadata"]["name"]]
        if isinstance(answer, str):
            raise Failure(f"the agent on node {name} does not answer: {answer}", hint="See mycel status.")
        try:
            rows += parse_rows(name, table, answer)
        except ValueError as exc:
            raise Failure(str(exc), hint="Is the agent's version this command's? See mycel version.") from exc
    return rows


def _map_group(table: str, says: str) -> click.Group:
    @click.group(table, help=says)
    def group() -> None: ...

    @group.command("list")
    @click.option("--node", metavar="NAME", default="", help="One node only.")
    @click.option("--diff", is_flag=True, help="Only rows whose sides differ; exit code 1 when there are any.")
    @cluster_options
    @output_option
    @click.pass_context
    @asynchronous
    async def list_(ctx: click.Context, *, node: str, diff: bool, target: Target, output: str) -> None:
        """Print the rows."""
        async with target.client() as client:
            rows = await read_rows(client, target, table, node)
        if diff:
            rows = [row for row in rows if row.sync not in {Sync.SAME, Sync.KERNEL}]
        if output == "json":
            print_json([row.as_json() for row in rows])
        else:
            print_rows(rows)
        if diff and rows:
            ctx.exit(EXIT_FAILED)

    return group


def print_rows(rows: list[Row]) -> None:
    """Both sides of what is planned; one side of what only the kernel writes."""
    if not rows:
        click.echo("No rows.")
        return
    if all(row.sync is Sync.KERNEL for row in rows):
        print_table(("NODE", "KEY", "VALUE"), [(row.node, text(row.key), text(row.realized)) for row in rows])
        return
    print_table(
        ("NODE", "KEY", "DESIRED", "REALIZED", "STATE"),
        [
            (
                row.node,
                text(row.key),
                text(row.desired),
                "=" if row.sync is Sync.SAME else text(row.realized),
                _COLOURS[row.sync](row.sync.value),
            )
            for row in rows
        ],
    )


for _name, _says in MAPS.items():
    bpf.add_command(_map_group(_name, _says))
