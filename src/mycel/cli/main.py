"""The entry point: the tree of verbs, loaded lazily; the place where errors become sentences.

`--help` must not import a single verb (click alone starts in 70 ms), so the table below carries each verb's
one-line help; a test compares it with the verb's own.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import NamedTuple, NoReturn

import click

from mycel.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, Failure


class Verb(NamedTuple):
    """Where a verb lives (`module:attribute`) and its line in the menu."""

    target: str
    help: str


VERBS = {
    "cluster": Verb("mycel.cli.cluster:cluster", "Create, list and delete clusters on this machine."),
    "install": Verb("mycel.cli.install:install", "Install the mesh into a cluster, or upgrade it in place."),
    "uninstall": Verb("mycel.cli.uninstall:uninstall", "Remove the mesh from a cluster."),
    "status": Verb("mycel.cli.status:status", "Say whether the mesh is healthy."),
    "config": Verb("mycel.cli.config:config", "View and change the settings of an installed mesh."),
    "hubble": Verb("mycel.cli.hubble:hubble", "Observe flows."),
    "endpoint": Verb("mycel.cli.inspect:endpoint", "Show the workloads of every node."),
    "identity": Verb("mycel.cli.inspect:identity", "Show security identities."),
    "service": Verb("mycel.cli.inspect:service", "Show services and their backends."),
    "fqdn": Verb("mycel.cli.fqdn:fqdn", "Show names that DNS answered for."),
    "proxy": Verb("mycel.cli.proxy:proxy", "Show what the nodes' proxies listen on, and why."),
    "bpf": Verb("mycel.cli.bpf:bpf", "Show what the kernel's maps hold."),
    "policy": Verb("mycel.cli.policy:policy", "Judge flows by policies, explain verdicts, find traps."),
    "doctor": Verb("mycel.cli.doctor:doctor", "Say what this machine has and lacks, and how to mend it."),
    "version": Verb("mycel.cli.version:version", "Print the versions of this command and of the mesh."),
    "completion": Verb("mycel.cli.completion:completion", "Print a completion script for your shell."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one verb."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module_name, _, attribute = verb.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module_name), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but what was meant is guessed from the table, which click cannot see."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as exc:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=VERBS, ctx=ctx) from exc

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The menu, without importing what it names."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with `mycel cluster create`, then `mycel install --wait`. Each command has its own --help.",
)
@click.option("--debug", is_flag=True, envvar="MYCEL_DEBUG", help="Show where an error came from.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colours: on a terminal only, unless NO_COLOR is set (auto).",
)
@click.pass_context
def cli(ctx: click.Context, *, debug: bool, color: str) -> None:
    """Mycel: a service mesh without sidecars, for Kubernetes and for one machine alone."""
    ctx.obj = {"debug": debug}
    if color == "auto":
        ctx.color = False if os.environ.get("NO_COLOR") else None
    else:
        ctx.color = color == "always"


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command line; errors are printed on stderr, never raised. Returns the exit code."""
    debug = "--debug" in arguments or bool(os.environ.get("MYCEL_DEBUG"))
    try:
        result = cli.main(args=arguments, prog_name="mycel", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("mycel: interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`mycel … | head`): nothing is wrong, and nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Failure as exc:
        return _report(exc.message, exc.hint, exc.code, debug=debug)
    except Exception as exc:  # the seam where every other failure becomes a sentence
        message, hint = explain(exc)
        return _report(message, hint, EXIT_FAILED, debug=debug)
    return result if isinstance(result, int) else 0


def explain(exc: BaseException) -> tuple[str, str]:
    """A sentence and a next step for a failure of the Kubernetes client or of anything unforeseen."""
    if isinstance(exc, BaseExceptionGroup) and exc.exceptions:
        first = exc.exceptions[0]
        return (first.message, first.hint) if isinstance(first, Failure) else explain(first)
    module = type(exc).__module__
    name = type(exc).__name__
    if module == "mycel.k8s.endpoint":
        return str(exc), "mycel cluster create makes a cluster; --kubeconfig and --context choose one."
    if module == "mycel.k8s.errors" and name == "Unavailable":
        return (
            f"the Kubernetes API does not answer: {exc}",
            "Is the cluster running? See mycel cluster list, or choose another with --context.",
        )
    if module == "mycel.k8s.errors" and name in {"Unauthorized", "Forbidden"}:
        return str(exc), "The kubeconfig's user may not do this; choose another with --context."
    if module == "mycel.k8s.errors":
        return str(exc), ""
    if isinstance(exc, OSError):
        return str(exc), ""
    return f"this should not have happened: {name}: {exc}", "mycel --debug … shows where."


def _report(message: str, hint: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"{click.style('mycel:', fg='red', bold=True)} {message}", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)
    return code


if __name__ == "__main__":
    main()
