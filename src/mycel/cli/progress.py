"""Telling what is being done: a spinner that turns into a tick on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

import click

from mycel.cli.output import bad, dim, good


class Step(Protocol):
    """One thing being done."""

    def update(self, text: str) -> None:
        """Say how far it is; a repeated text is said once."""
        ...


class _Plain:
    """Every new text is a line of its own."""

    def __init__(self) -> None:
        self._last = ""

    def update(self, text: str) -> None:
        if text != self._last:
            self._last = text
            click.echo(f"  {text}", err=True)


@contextmanager
def step(title: str) -> Generator[Step]:
    """`with step("Creating objects") as doing: doing.update("3 of 9")`. Progress goes to stderr."""
    started = time.monotonic()
    if not sys.stderr.isatty():
        click.echo(title, err=True)
        yield _Plain()
        return
    from rich.console import Console  # 60 ms, so only where it draws

    console = Console(stderr=True, highlight=False)
    try:
        with console.status(title) as status:

            class Spinner:
                def update(self, text: str) -> None:
                    status.update(f"{title}: {text}")

            yield Spinner()
    except BaseException:
        click.echo(f" {bad('✗')} {title}", err=True)
        raise
    took_s = time.monotonic() - started
    click.echo(f" {good('✓')} {title}{dim(f' ({took_s:.0f} s)') if took_s >= 1 else ''}", err=True)
