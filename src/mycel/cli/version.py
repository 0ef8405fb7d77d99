"""`mycel version`: this command's version, the versions it claims compatibility with, and what a cluster runs."""

from __future__ import annotations

from importlib.metadata import version as package_version

import click

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.chart.load import load_chart
from mycel.cli.output import output_option, print_json
from mycel.k8s.client import ConfigError
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.resources import DAEMON_SETS
from mycel.kit.deploy import chart_dir


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Do not ask a cluster.")
@cluster_options
@output_option
@asynchronous
async def version(*, client_only: bool, target: Target, output: str) -> None:
    """Print the versions of this command and of the mesh."""
    chart = load_chart(chart_dir()).metadata
    rows = {
        "mycel": package_version("mycel"),
        "compatible with cilium": str(chart["appVersion"]),
    }
    if not client_only:
        rows["running image"] = await _running(target)
    if output == "json":
        print_json(rows)
        return
    for name, value in rows.items():
        click.echo(f"{name + ':':<24}{value}")


async def _running(target: Target) -> str:
    try:
        async with target.client() as client:
            agents = await client.get(DAEMON_SETS, "cilium", namespace=target.namespace)
    except NotFound:
        return "none: the mesh is not installed"
    except (ApiError, ConfigError) as exc:
        return f"unknown: {exc}"
    return str(agents["spec"]["template"]["spec"]["containers"][0]["image"])
