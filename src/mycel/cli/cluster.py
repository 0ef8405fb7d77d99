"""`mycel cluster …`: the embedded Kubernetes of this machine."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click

from mycel.cli.errors import EXIT_INTERRUPTED, BadInput, Failure
from mycel.cli.output import dim, output_option, print_json, print_table
from mycel.cli.progress import step

_name_option = click.option("--name", default=None, help="The cluster's name (default: kind, or the file's).")


@click.group()
def cluster() -> None:
    """Create, list and delete clusters on this machine."""


@cluster.command()
@_name_option
@click.option(
    "--config", "config_file", type=click.Path(), help="A kind v1alpha4 cluster file; - reads standard input."
)
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Where the context goes (default: as kubectl).")
@click.option("--recreate", is_flag=True, help="Delete a cluster of that name first.")
def create(*, name: str | None, config_file: str | None, kubeconfig: Path | None, recreate: bool) -> None:
    """Create a cluster. Its nodes stay NotReady until a network is installed (`mycel install`)."""
    from mycel.cluster.lifecycle import config as cluster_config
    from mycel.cluster.lifecycle.create import create as create_cluster
    from mycel.cluster.lifecycle.delete import delete as delete_cluster
    from mycel.cluster.lifecycle.errors import ConfigInvalid, LifecycleError, Refused

    try:
        text = _text(config_file)
        wanted = cluster_config.default(name or "kind") if text is None else cluster_config.parse(text, name=name)
    except ConfigInvalid as exc:
        raise BadInput(f"{config_file or 'cluster'}: {exc}") from exc
    click.echo(f'Creating cluster "{wanted.name}" ...', err=True)
    try:
        if recreate:
            delete_cluster(wanted.name, report=_report)
        made = create_cluster(wanted, report=_report, kubeconfig_file=kubeconfig)
    except KeyboardInterrupt as exc:
        removal = f"mycel cluster delete --name {wanted.name} removes what was made so far."
        raise Failure("interrupted", hint=removal, code=EXIT_INTERRUPTED) from exc
    except Refused as exc:
        raise Failure(str(exc)) from exc
    except LifecycleError as exc:
        raise Failure(str(exc), hint=f"mycel cluster delete --name {wanted.name} removes what was made.") from exc
    click.echo(f'kubectl context is now "{made.context}" ({made.kubeconfigs[0]}).')
    if not wanted.disable_default_cni:
        click.echo(
            "No default network is installed, whatever networking.disableDefaultCNI says: the mesh is the network."
        )
    click.echo("Next:")
    click.echo("  kubectl get nodes -o wide      " + dim("# NotReady until there is a network"))
    click.echo("  mycel install --wait           " + dim("# the network: nodes turn Ready"))
    suffix = "" if made.name == "kind" else f" --name {made.name}"
    click.echo(f"  mycel cluster delete{suffix} ".ljust(33) + dim("# remove everything again"))


@cluster.command()
@_name_option
def delete(*, name: str | None) -> None:
    """Delete a cluster: every process, namespace, interface, mount and file of it. Repeating it is fine."""
    from mycel.cluster.lifecycle.delete import delete as delete_cluster
    from mycel.cluster.lifecycle.errors import LifecycleError

    chosen = name or "kind"
    try:
        existed = delete_cluster(chosen, report=_report)
    except LifecycleError as exc:
        raise Failure(str(exc)) from exc
    click.echo(f'Deleted cluster "{chosen}".' if existed else f'There is no cluster "{chosen}".')


@cluster.command()
@_name_option
def start(*, name: str | None) -> None:
    """Start a cluster again: after a reboot, `stop`, or when its supervisor died."""
    from mycel.cluster.lifecycle.create import start as start_cluster
    from mycel.cluster.lifecycle.errors import LifecycleError

    try:
        start_cluster(name or "kind", report=_report)
    except LifecycleError as exc:
        raise Failure(str(exc)) from exc


@cluster.command()
@_name_option
def stop(*, name: str | None) -> None:
    """Stop a cluster; its objects stay on disk for `start`."""
    from mycel.cluster.lifecycle.delete import stop as stop_cluster
    from mycel.cluster.lifecycle.errors import LifecycleError

    try:
        stop_cluster(name or "kind", report=_report)
    except LifecycleError as exc:
        raise Failure(str(exc)) from exc


@cluster.command(name="load-image")
@click.argument("archives", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_name_option
def load_image(*, archives: tuple[Path, ...], name: str | None) -> None:
    """Make the images of ARCHIVES (docker save, or an OCI archive) known to every node of a cluster."""
    from mycel.cluster.images.archive import ArchiveInvalid, load
    from mycel.cluster.images.store import ImageStore
    from mycel.cluster.lifecycle import record
    from mycel.cluster.lifecycle.paths import ClusterPaths

    paths = ClusterPaths.of(name or "kind")
    if record.read(paths) is None:
        raise Failure(f"there is no cluster {paths.name}", hint="mycel cluster list shows those there are.")
    for archive in archives:
        with step(f"Loading {archive.name}"):
            try:
                references = load(archive, ImageStore(paths.images))
            except (ArchiveInvalid, OSError) as exc:
                raise BadInput(f"{archive}: {exc}") from exc
        for reference in references:
            click.echo(f"loaded {reference}")


@cluster.command(name="list")
@output_option
def list_(*, output: str) -> None:
    """List the clusters of this machine."""
    from mycel.cluster.lifecycle.status import summaries

    found = summaries()
    if output == "json":
        print_json([summary.as_dict() for summary in found])
    elif not found:
        click.echo("No clusters. mycel cluster create makes one.", err=True)
    else:
        headers = ["NAME", "STATE", "NODES", "NETWORK", "API SERVER", "CONTEXT"]
        print_table(headers, [summary.row() for summary in found])


def _text(config_file: str | None) -> str | None:
    if config_file is None:
        return None
    if config_file == "-":
        return sys.stdin.read()
    try:
        return Path(config_file).read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadInput(f"cannot read {config_file}: {exc}") from exc


@contextmanager
def _report(title: str) -> Generator[object]:
    with step(title) as doing:
        yield doing
