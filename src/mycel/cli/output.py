"""Printing: tables as kubectl prints them, JSON, and colours that vanish in a pipe (click strips them)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def output_option(function: _F) -> _F:
    """`-o json|table`, as argument `output`."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        help="A table for people, or JSON.",
    )
    return option(function)


def print_json(value: Any) -> None:
    """Indented JSON with sorted keys, so that two answers can be compared."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, default=str))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Left-aligned columns, three spaces apart. Absent values are `<none>`."""
    lines = list(table_lines(headers, rows))
    click.echo(click.style(lines[0], bold=True))
    for line in lines[1:]:
        click.echo(line)


def table_lines(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    """The lines of a table, the header first, without trailing spaces. Cells may be styled."""
    cells = [list(headers)]
    cells += [["<none>" if cell in (None, "") else str(cell) for cell in row] for row in rows]
    widths = [max(len(click.unstyle(row[column])) for row in cells) for column in range(len(headers))]
    for row in cells:
        yield "   ".join(
            cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)
        ).rstrip()


def good(text: str) -> str:
    """Green."""
    return click.style(text, fg="green")


def warn(text: str) -> str:
    """Yellow."""
    return click.style(text, fg="yellow")


def bad(text: str) -> str:
    """Red."""
    return click.style(text, fg="red")


def dim(text: str) -> str:
    """Grey: said by the way."""
    return click.style(text, dim=True)
