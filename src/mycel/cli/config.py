"""`mycel config`: the ConfigMap `cilium-config`, read and changed; agents start anew to see a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.errors import Failure
from mycel.cli.mesh.settings import check_config_key
from mycel.cli.output import output_option, print_json
from mycel.k8s.client import Patch
from mycel.k8s.errors import NotFound
from mycel.k8s.resources import CONFIG_MAPS, PODS

if TYPE_CHECKING:
    from mycel.k8s.client import ApiClient

NAME = "cilium-config"
_RESTARTED = ("k8s-app=cilium", "io.cilium/app=operator")


@click.group()
def config() -> None:
    """View and change the settings of an installed mesh."""


@config.command()
@cluster_options
@output_option
@asynchronous
async def view(*, target: Target, output: str) -> None:
    """Print every setting."""
    async with target.client() as client:
        data = await _read(client, target.namespace)
    if output == "json":
        print_json(data)
        return
    width = max((len(key) for key in data), default=0)
    for key in sorted(data):
        click.echo(f"{key:<{width}}  {data[key]}".rstrip())


@config.command("set")
@click.argument("key")
@click.argument("value")
@click.option("--restart/--no-restart", default=True, help="Start agents and operator anew.")
@cluster_options
@asynchronous
async def set_(*, key: str, value: str, restart: bool, target: Target) -> None:
    """Change one setting."""
    check_config_key(key)
    async with target.client() as client:
        before = await _read(client, target.namespace)
        if before.get(key) == value:
            click.echo(f"{key} is {value} already.")
            return
        await client.patch(CONFIG_MAPS, NAME, {"data": {key: value}}, namespace=target.namespace, kind=Patch.STRATEGIC)
        click.echo(f"{key} is now {value}.")
        await _restart(client, target.namespace, wanted=restart)


@config.command()
@click.argument("key")
@click.option("--restart/--no-restart", default=True, help="Start agents and operator anew.")
@cluster_options
@asynchronous
async def delete(*, key: str, restart: bool, target: Target) -> None:
    """Remove one setting, so that its default holds."""
    check_config_key(key)
    async with target.client() as client:
        if key not in await _read(client, target.namespace):
            raise Failure(f"there is no setting {key}", hint="mycel config view lists them.")
        path = f"/data/{key.replace('~', '~0').replace('/', '~1')}"
        await client.patch(
            CONFIG_MAPS, NAME, [{"op": "remove", "path": path}], namespace=target.namespace, kind=Patch.JSON
        )
        click.echo(f"{key} is removed.")
        await _restart(client, target.namespace, wanted=restart)


async def _read(client: ApiClient, namespace: str) -> dict[str, str]:
    try:
        return (await client.get(CONFIG_MAPS, NAME, namespace=namespace)).get("data") or {}
    except NotFound:
        raise Failure(
            f"there is no ConfigMap {NAME} in namespace {namespace}: the mesh is not installed there",
            hint="mycel install installs it; -n names another namespace.",
        ) from None


async def _restart(client: ApiClient, namespace: str, *, wanted: bool) -> None:
    if not wanted:
        click.echo("Agents see it when they start anew.")
        return
    for selector in _RESTARTED:
        await client.request("DELETE", PODS.path(namespace), params={"labelSelector": selector})
    click.echo("Agents and operator start anew; connections keep running. Next: mycel status --wait")
