"""`mycel hubble`: the verbs of the stock hubble client over every node's agent, or over one server.

Without `--server` (or HUBBLE_SERVER) the agents are found through the Kubernetes API and reached by exec; their flows
are merged in the order of time, as a relay would.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import click

from mycel.api import flow_pb2, health_pb2, observer_pb2, peer_pb2
from mycel.cli import flow_sources as sources
from mycel.cli.errors import BadInput, Failure
from mycel.cli.flow_options import FlowCommand, filter_options, typed_flags
from mycel.cli.flow_sources import Source, source_options
from mycel.observe.arguments import BadFlag, build_filters
from mycel.observe.printer import Output, Printer, Style
from mycel.observe.status import connected_text, namespaces_text, nodes_text, status_text, total
from mycel.observe.times import parse_time_ns

_DEFAULT_LAST = 20
_ALL = 2**64 - 1
_FORMS = {
    "compact": Output.COMPACT,
    "dict": Output.DICT,
    "tab": Output.TABLE,
    "table": Output.TABLE,
    "json": Output.JSON,
    "JSON": Output.JSON,
    "jsonpb": Output.JSON,
}


def run_until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end; Ctrl-C is how one leaves a stream, not an error."""
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        return


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def hubble() -> None:
    """Observe flows."""


@hubble.command(cls=FlowCommand)
@click.option("--all", "all_flows", is_flag=True, help="All flows that are held.")
@click.option("--last", type=click.IntRange(0, _ALL), default=0, help="The last N flows of each node (20).")
@click.option("--first", type=click.IntRange(0, _ALL), default=0, help="The first N flows of each node.")
@click.option("--follow", "-f", is_flag=True, help="Stay for what comes.")
@click.option("--since", default="", metavar="TIME", help="From a time on: 5m, 1h30m, 2006-01-02T15:04:05Z.")
@click.option("--until", default="", metavar="TIME", help="Up to a time.")
@filter_options
@click.option("--allowlist", multiple=True, metavar="JSON", help="A FlowFilter as JSON.")
@click.option("--denylist", multiple=True, metavar="JSON", help="A FlowFilter as JSON, turned around.")
@click.option(
    "--output",
    "-o",
    default="compact",
    show_default=True,
    metavar="FORMAT",
    help="compact, dict, table, json or jsonpb.",
)
@click.option("--print-node-name", is_flag=True, help="Say which node saw the flow.")
@click.option("--print-policy-names", is_flag=True, help="Say which policies decided.")
@click.option("--time-format", default="StampMilli", metavar="LAYOUT", help="RFC3339, RFC3339Nano, YearMonthDay, …")
@click.option("--numeric", is_flag=True, help="Addresses instead of names.")
@click.option("--ip-translation", type=bool, default=True, hidden=True)
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
@click.option("--silent-errors", "-s", is_flag=True, help="Say nothing of nodes that fail.")
@click.option("--print-raw-filters", is_flag=True, help="Print the filters and exit.")
@click.option("--input-file", default="", metavar="FILE", help="Read flows (jsonpb) from a file, - for stdin.")
@click.option("--field-mask", multiple=True, hidden=True)
@click.option("--use-default-field-masks", type=bool, default=True, hidden=True)
@click.option("--debug", "-D", is_flag=True, help="Say also which nodes are connected.")
@source_options
@click.pass_context
def observe(ctx: click.Context, *, source: Source, **options: Any) -> None:
    """Show flows: the last 20 of every node, or those the selectors and filters choose.

    Filters of one kind add up (any value matches), filters of different kinds all have to match. `--not` turns the
    next filter around.
    """
    style = _style(options)
    try:
        request = build_request(options, typed_flags(ctx), now_ns=sources.now_ns())
    except BadFlag as problem:
        raise BadInput(str(problem)) from problem
    if options["print_raw_filters"]:
        click.echo(raw_filters(request), nl=False)
        return
    path: str = options["input_file"]
    flows = sources.file_flows(sources.read_lines(path), request) if path else sources.flows(source, request)
    run_until_interrupted(_show(flows, style, follow=request.follow, silent=options["silent_errors"]))


async def _show(flows: sources.Flows, style: Style, *, follow: bool, silent: bool) -> None:
    def out(text: str) -> None:
        sys.stdout.write(text)
        if follow:
            sys.stdout.flush()

    def error(text: str) -> None:
        if not silent:
            sys.stderr.write(text)

    printer = Printer(style, out=out, error=error)
    try:
        async with aclosing(flows):
            async for response in flows:
                printer.write(response)
    finally:
        printer.finish()
        sys.stdout.flush()


def _style(options: dict[str, Any]) -> Style:
    """How to print. Raises BadInput for combinations that cannot be."""
    output = _FORMS.get(options["output"])
    if output is None:
        raise BadInput(f"invalid output format: {options['output']}: one of compact, dict, table, json, jsonpb")
    if output is Output.TABLE and options["follow"]:
        raise BadInput("table output format is not compatible with follow mode")
    if options["field_mask"] and output is not Output.JSON:
        raise BadInput(f"{options['output']} output format is not compatible with custom field mask")
    if options["output"] in ("json", "JSON") and "legacy-json-output" in os.environ.get("HUBBLE_COMPAT", ""):
        output = Output.LEGACY_JSON
    wants_color = {"always": True, "never": False}.get(options["color"])
    if wants_color is None:
        wants_color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(
        output=output,
        time_format=options["time_format"],
        translate_addresses=options["ip_translation"] and not options["numeric"],
        node_name=options["print_node_name"],
        policy_names=options["print_policy_names"],
        color=wants_color,
        debug=options["debug"],
    )


def build_request(
    options: dict[str, Any], flags: list[tuple[str, str]], *, now_ns: int
) -> observer_pb2.GetFlowsRequest:
    """The request that options mean. Raises BadFlag."""
    first, last, follow = options["first"], options["last"], options["follow"]
    for one, other in (("first", "last"), ("first", "all"), ("first", "follow"), ("last", "all")):
        if options[one] and options["all_flows" if other == "all" else other]:
            raise BadFlag(f"cannot set both --{one} and --{other}")
    request = observer_pb2.GetFlowsRequest(follow=follow, first=first > 0)
    for name, message in (("since", request.since), ("until", request.until)):
        if options[name] and not (name == "until" and follow):
            try:
                message.FromNanoseconds(parse_time_ns(options[name], now_ns=now_ns))
            except ValueError as problem:
                raise BadFlag(f"failed to parse the {name} time: {problem}") from problem
    bounded = request.HasField("since") or request.HasField("until")
    if not bounded and not first:
        if options["all_flows"]:
            last = _ALL
        elif not last and not follow and not options["input_file"]:
            last = _DEFAULT_LAST
    request.number = first or last
    whitelist, blacklist = build_filters(flags)
    request.whitelist.extend([*whitelist, *_json_filters("allowlist", options["allowlist"])])
    request.blacklist.extend([*blacklist, *_json_filters("denylist", options["denylist"])])
    if options["field_mask"]:
        paths = [path for value in options["field_mask"] for path in value.split(",")]
        request.field_mask.paths.extend(paths)
    return request


def _json_filters(option: str, texts: tuple[str, ...]) -> list[flow_pb2.FlowFilter]:
    from google.protobuf import json_format

    found: list[flow_pb2.FlowFilter] = []
    for text in texts:
        decoder, rest = json.JSONDecoder(), text.strip()
        while rest:
            try:
                value, end = decoder.raw_decode(rest)
                found.append(json_format.ParseDict(value, flow_pb2.FlowFilter()))
            except (ValueError, json_format.ParseError) as problem:
                raise BadFlag(f"invalid --{option} flag: failed to decode {text!r}: {problem}") from problem
            rest = rest[end:].lstrip()
    return found


def raw_filters(request: observer_pb2.GetFlowsRequest) -> str:
    """Filters as the YAML that the stock client prints, and takes in its configuration file."""
    from mycel.observe.protojson import to_json

    lines: list[str] = []
    for name, filters in (("allowlist", request.whitelist), ("denylist", request.blacklist)):
        if filters:
            lines.append(f"{name}:")
            lines += ["    - '" + to_json(each).replace("'", "''") + "'" for each in filters]
    return "\n".join(lines) + "\n" if lines else "{}\n"


_output = click.option("--output", "-o", default="compact", show_default=True, help="compact, dict, json or table.")
_list_output = click.option("--output", "-o", default="table", show_default=True, help="json, table or wide.")


def _complain(problems: sources.Answers) -> None:
    for node, problem in sorted(problems.problems.items()):
        click.echo(f"{node}: {problem}", err=True)


@hubble.command()
@_output
@source_options
def status(*, source: Source, output: str) -> None:
    """Say whether flows can be observed, and how many there are."""

    async def question(client: Any) -> observer_pb2.ServerStatusResponse:
        check = health_pb2.HealthCheckRequest(service="hubble.server.Observer")
        health = await client.health.Check(check)
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            raise Failure("not healthy: the server answers but does not serve")
        answer: observer_pb2.ServerStatusResponse = await client.observer.ServerStatus(
            observer_pb2.ServerStatusRequest()
        )
        return answer

    asked = asyncio.run(sources.ask(source, question))
    whole = total(asked.answers, asked.problems)
    if output == "compact":
        via = source.server.removeprefix("tls://") or f"{len(asked.answers)} agents"
        click.echo(f"Healthcheck (via {via}): Ok")
    text = status_text(whole, output=output)
    if text is None:
        raise BadInput(f"invalid output format: {output}")
    click.echo(text, nl=False)
    _complain(asked)


@hubble.group(name="list")
def list_() -> None:
    """List nodes and namespaces."""


@list_.command(name="nodes")
@_list_output
@source_options
def list_nodes(*, source: Source, output: str) -> None:
    """List nodes that observe flows."""

    async def question(client: Any) -> list[observer_pb2.Node]:
        answer = await client.observer.GetNodes(observer_pb2.GetNodesRequest())
        return list(answer.nodes)

    asked = asyncio.run(sources.ask(source, question))
    found = [node for nodes in asked.answers.values() for node in nodes]
    click.echo(_known_form(nodes_text(found, asked.problems, output=output), output), nl=False)
    _complain(asked)


@list_.command(name="namespaces")
@_list_output
@source_options
def list_namespaces(*, source: Source, output: str) -> None:
    """List namespaces with flows within the last hour."""

    async def question(client: Any) -> list[tuple[str, str]]:
        answer = await client.observer.GetNamespaces(observer_pb2.GetNamespacesRequest())
        return [(each.cluster, each.namespace) for each in answer.namespaces]

    asked = asyncio.run(sources.ask(source, question))
    found = sorted({each for namespaces in asked.answers.values() for each in namespaces})
    click.echo(_known_form(namespaces_text(found, output=output), output), nl=False)
    _complain(asked)


def _known_form(text: str | None, output: str) -> str:
    if text is None:
        raise BadInput(f"unknown output format: {output}: one of json, table, wide")
    return text


@hubble.group()
def watch() -> None:
    """Watch peers."""


@watch.command(name="peers")
@source_options
def watch_peers(*, source: Source) -> None:
    """Show nodes as they come and go."""

    async def show() -> None:
        async def question(client: Any) -> None:
            async with client.peer.Notify.open() as stream:
                await stream.send_message(peer_pb2.NotifyRequest(), end=True)
                async for change in stream:
                    click.echo(connected_text(change))

        await sources.first_answer(source, question)

    run_until_interrupted(show())
