"""`mycel status`: whether the mesh is healthy, in rows a person can read; exit code 0 only when it is."""

from __future__ import annotations

import click

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.errors import EXIT_FAILED
from mycel.cli.mesh.agents import read_report
from mycel.cli.mesh.health import Component, Report, State
from mycel.cli.mesh.waiting import parse_duration, wait_until_healthy
from mycel.cli.output import bad, good, output_option, print_json, table_lines, warn

_COLOURS = {State.OK: good, State.WARNING: warn, State.ERROR: bad, State.DISABLED: lambda text: text}


@click.command()
@cluster_options
@click.option("--wait", "wait", is_flag=True, help="Wait until it is healthy.")
@click.option("--wait-duration", metavar="TIME", default="5m", show_default=True, help="How long at most.")
@output_option
@click.pass_context
@asynchronous
async def status(ctx: click.Context, *, target: Target, wait: bool, wait_duration: str, output: str) -> None:
    """Say whether the mesh is healthy.

    The exit code is 0 only when it is.
    """
    timeout_s = parse_duration(wait_duration)
    async with target.client() as client:
        if wait:
            report = await wait_until_healthy(client, target.namespace, timeout_s=timeout_s)
        else:
            report = await read_report(client, target.namespace)
    if output == "json":
        print_json(report.as_json())
    else:
        for line in lines(report):
            click.echo(line)
    if not report.healthy:
        ctx.exit(EXIT_FAILED)


def lines(report: Report) -> list[str]:
    """The whole text."""
    written = [
        f"{component.part.title + ':':<15}{_COLOURS[component.state](_summary(component))}"
        for component in report.components
    ]
    written.append("")
    present = [component for component in report.components if component.state is not State.DISABLED]
    rows = [
        (
            component.part.kind,
            component.part.name,
            f"desired {component.desired}, ready {component.ready}/{component.desired}, "
            f"available {component.available}/{component.desired}",
            ", ".join(f"{phase} {count}" for phase, count in sorted(component.phases.items())),
        )
        for component in present
    ]
    written += table_lines(("KIND", "NAME", "STATE", "PODS"), rows)
    written += [
        "",
        f"Nodes:         {report.nodes_ready}/{report.nodes} ready",
        f"Cluster Pods:  {report.managed}/{report.pods} managed by Cilium",
        f"Helm chart:    {report.chart_version or 'unknown'}",
    ]
    images = [
        (component.part.name, f"{image}: {count}")
        for component in present
        for image, count in sorted(component.images.items())
    ]
    written += [
        f"{'Image versions' if index == 0 else '':<15}{name:<18}{text}" for index, (name, text) in enumerate(images)
    ]
    for component in report.components:
        written += [f"{bad('Error:'):<15} {component.part.name}: {text}" for text in component.errors]
        written += [f"{warn('Warning:'):<15} {component.part.name}: {text}" for text in component.warnings]
    return written


def _summary(component: Component) -> str:
    if component.state is State.DISABLED:
        return "disabled"
    text = f"{component.ready}/{component.desired}"
    problems = len(component.errors) + len(component.warnings)
    if component.state is State.OK:
        return f"OK {text}"
    return f"{text}, {problems} {'problem' if problems == 1 else 'problems'}"
