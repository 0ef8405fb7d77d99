"""`mycel fqdn cache|names list`: what every node's DNS proxy learnt, and who addresses with names are."""

from __future__ import annotations

from typing import Any

import click

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.errors import Failure
from mycel.cli.mesh.agents import agent_pods, ask_all
from mycel.cli.output import output_option, print_json, print_table

_node_option = click.option("--node", metavar="NAME", default="", help="One node only.")


@click.group()
def fqdn() -> None:
    """Show names that DNS answered for."""


@fqdn.group()
def cache() -> None:
    """Names and their addresses."""


@fqdn.group()
def names() -> None:
    """Selectors of names, and their identities."""


async def _ask(target: Target, node: str, what: str) -> dict[str, Any]:
    """Every node's answer. Raises Failure for an agent that gives none."""
    async with target.client() as client:
        pods = await agent_pods(client, target.namespace, node)
        answers = await ask_all(client, pods, ["cilium", "fqdn", what, "list", "-o", "json"])
    found: dict[str, Any] = {}
    for pod in pods:
        name, answer = str(pod["spec"]["nodeName"]), answers[pod["metadata"]["name"]]
        if isinstance(answer, str):
            raise Failure(f"the agent on node {name} does not answer: {answer}", hint="See mycel status.")
        found[name] = answer
    return found


@cache.command("list")
@_node_option
@cluster_options
@output_option
@asynchronous
async def list_cache(*, node: str, target: Target, output: str) -> None:
    """Print names with their addresses, the seconds they are still good for, and who asked last."""
    answers = await _ask(target, node, "cache")
    rows = [{"node": name} | item for name, answer in answers.items() for item in answer]
    if output == "json":
        print_json(rows)
        return
    print_table(
        ("NODE", "POD", "NAME", "TTL LEFT", "ADDRESSES"),
        [
            (row["node"], row["pod"] or row["source"], row["fqdn"], row["ttl-left"], ", ".join(row["ips"]))
            for row in rows
        ],
    )


@names.command("list")
@_node_option
@cluster_options
@output_option
@asynchronous
async def list_names(*, node: str, target: Target, output: str) -> None:
    """Print the identities of addresses with names: the selectors their names satisfy, and the prefix they are in."""
    answers = await _ask(target, node, "names")
    rows = [{"node": name} | item for name, answer in answers.items() for item in answer["identities"]]
    if output == "json":
        print_json(rows)
        return
    print_table(
        ("NODE", "IDENTITY", "WITHIN", "SELECTORS"),
        [(row["node"], row["id"], row["network"], ", ".join(row["selectors"])) for row in rows],
    )
