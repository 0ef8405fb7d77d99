"""`mycel doctor`: what this machine has and lacks, and how to mend it. Exit code 1 when something needed is missing."""

from __future__ import annotations

import click

from mycel.cli.checkup import machine, tools
from mycel.cli.checkup.finding import Finding, Level
from mycel.cli.errors import EXIT_FAILED
from mycel.cli.output import bad, dim, good, output_option, print_json, warn

_MARKS = {Level.OK: good("✓"), Level.NOTE: warn("!"), Level.MISSING: bad("✗")}


@click.command()
@output_option
@click.pass_context
def doctor(ctx: click.Context, *, output: str) -> None:
    """Say what this machine has and lacks, and how to mend it.

    The exit code is 1 when something is missing that Mycel needs.
    """
    found = [*machine.look(), *tools.look()]
    missing = [finding for finding in found if finding.level is Level.MISSING]
    if output == "json":
        print_json([finding._asdict() for finding in found])
    else:
        for line in lines(found):
            click.echo(line)
        click.echo()
        if missing:
            click.echo(bad(f"{len(missing)} things are missing") + ": " + ", ".join(item.what for item in missing))
        else:
            click.echo(good("This machine has all it takes."))
    if missing:
        ctx.exit(EXIT_FAILED)


def lines(found: list[Finding]) -> list[str]:
    """One line per finding, by area; how to mend it below."""
    written: list[str] = []
    area = ""
    width = max(len(finding.what) for finding in found)
    for finding in sorted(found, key=lambda finding: _first(found, finding.area)):
        if finding.area != area:
            area = finding.area
            written += ["", click.style(area, bold=True)] if written else [click.style(area, bold=True)]
        written.append(f" {_MARKS[finding.level]} {finding.what:<{width}}  {finding.seen}")
        if finding.mend:
            written.append(f"   {'':<{width}}  {dim(finding.mend)}")
    return written


def _first(found: list[Finding], area: str) -> int:
    return next(index for index, finding in enumerate(found) if finding.area == area)
