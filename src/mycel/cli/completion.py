"""`mycel completion`: the script a shell sources to complete verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from mycel.cli.errors import BadInput


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script for your shell.

    For bash: mycel completion bash > /etc/bash_completion.d/mycel
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise BadInput(f"there is no completion for {shell}", hint="Use bash, zsh or fish.")
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "mycel", "_MYCEL_COMPLETE").source())
