"""`mycel policy`: judge flows by manifests, explain a verdict, and say what looks wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.errors import EXIT_FAILED, BadInput
from mycel.cli.output import output_option, print_json, print_table

if TYPE_CHECKING:
    from mycel.cli.policies.files import Manifest
    from mycel.cli.policies.requests import Request
    from mycel.cli.policies.text import Answer
    from mycel.policy.world import World

_files = click.option(
    "-f",
    "--filename",
    "paths",
    multiple=True,
    metavar="PATH",
    help="A YAML or JSON file, a folder of them, or - for stdin. Repeatable.",
)


@click.group()
def policy() -> None:
    """Judge flows by policies, explain verdicts, find traps."""


@policy.command()
@_files
@click.option(
    "--flows",
    "flows_path",
    metavar="FILE",
    help="Flows, one JSON object a line. Default: all pairs of pods on all container ports.",
)
@click.option(
    "--expect", "expect_path", metavar="FILE", help="Verdicts, one JSON object a line; exit with 1 when one differs."
)
@output_option
def evaluate(*, paths: Sequence[str], flows_path: str | None, expect_path: str | None, output: str) -> int:
    """Judge flows by manifests, without a cluster.

    A flow is {"id", "from", "to", "protocol", "port", "type"}; its ends are {"pod": "ns/name"}, {"ip": "1.2.3.4"}
    (with "names": ["a.b"] as DNS answered with that address), {"names": ["a.b"]} or {"entity": "host"}; type is that of
    ICMP. To a service (its address, or its name as a pod's) goes to what is behind it: the strictest verdict counts,
    and its line has "service", "backend" and the verdicts of "others".

    With -o json each verdict is a line. --expect takes lines as they are printed, finds the flow by its id, and
    compares the fields a line has; with -o json what differs goes to stderr.

    Exit codes: 0, 1 when a verdict is not as expected, 2 when a file is wrong.
    """
    from mycel.cli.policies.files import read_lines
    from mycel.cli.policies.text import dialled_text, verdict_text
    from mycel.policy.errors import PolicyInvalid
    from mycel.policy.offline import all_pairs, evaluate_all, parse_flow

    world = _offline_world(paths)
    if flows_path is None:
        flows = all_pairs(world)
    else:
        flows = []
        for number, line in read_lines(flows_path):
            try:
                flows.append(parse_flow(world, line, number))
            except PolicyInvalid as exc:
                raise BadInput(f"{flows_path}, line {number}: {exc}") from exc
    found = evaluate_all(world, flows)
    as_json = output == "json"
    if expect_path is not None:
        verdicts = _Verdicts(flows_path or "all pairs of pods")
        for each in found:
            verdicts.add(each.as_json())
            if as_json:
                click.echo(json.dumps(each.as_json()))
        return verdicts.compare(expect_path, err=as_json)
    if as_json:
        for each in found:
            click.echo(json.dumps(each.as_json()))
        return 0
    print_table(
        ("FLOW", "VERDICT", "EGRESS", "INGRESS"),
        [
            (dialled_text(each.flow), verdict_text(each.outcome), each.egress.reason.value, each.ingress.reason.value)
            for each in found
        ],
    )
    return 0


class _Verdicts:
    """What was found of each flow, to be compared with what is expected."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._by_id: dict[str, dict[str, Any]] = {}
        self._twice: set[str] = set()

    def add(self, verdict: dict[str, Any]) -> None:
        name = str(verdict["id"])
        if name in self._by_id:
            self._twice.add(name)
        self._by_id[name] = verdict

    def compare(self, path: str, *, err: bool) -> int:
        """Print what differs; the exit code. Raises BadInput for expectations about no flow."""
        from mycel.cli.policies.files import read_lines

        expected, differences = read_lines(path), 0
        if not expected:
            raise BadInput(f"{path} expects nothing", hint="Its lines are as -o json prints them.")
        for number, line in expected:
            for name, wanted, have in _differences(line, self._of(line, f"{path}, line {number}"), ""):
                differences += 1
                click.echo(f"{line['id']}: {name} is {json.dumps(have)}, expected {json.dumps(wanted)}", err=err)
        click.echo(f"{_count(len(expected), 'flow')} compared, {_count(differences, 'difference')}", err=err)
        return EXIT_FAILED if differences else 0

    def _of(self, line: dict[str, Any], place: str) -> dict[str, Any]:
        if line.get("id") is None:
            raise BadInput(f"{place}: id: must be there, to say which flow is meant")
        name = str(line["id"])
        if name not in self._by_id:
            raise BadInput(f"{place}: there is no flow {name!r} in {self._source}")
        if name in self._twice:
            raise BadInput(f"{place}: there are several flows {name!r} in {self._source}")
        return self._by_id[name]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _differences(expected: dict[str, Any], found: dict[str, Any], path: str) -> list[tuple[str, Any, Any]]:
    """Fields `expected` has and `found` has not, or not so."""
    different: list[tuple[str, Any, Any]] = []
    for name, wanted in expected.items():
        have = found.get(name)
        if isinstance(wanted, dict) and isinstance(have, dict):
            different += _differences(wanted, have, f"{path}{name}.")
        elif name != "id" and wanted != have:
            different.append((f"{path}{name}", wanted, have))
    return different


@policy.command()
@click.argument("uuid", required=False)
@_files
@click.option("--from", "source", metavar="END", help="Who connects: namespace/pod, an address, or an entity as host.")
@click.option(
    "--to",
    "destination",
    metavar="END:PORT/PROTOCOL",
    help="To whom: shop/db:5432/TCP (pod or service), 1.1.1.1:53/UDP, a.b:443, shop/db:ICMP.",
)
@click.option("--request", "asked", metavar="REQUEST", help="And a request on it: 'GET /public', 'GET http://a.b/x'.")
@cluster_options
@output_option
@asynchronous
async def explain(
    *,
    uuid: str | None,
    paths: Sequence[str],
    source: str | None,
    destination: str | None,
    asked: str | None,
    target: Target,
    output: str,
) -> None:
    """Say why a connection is let through or not: by the UUID of a flow, or by --from and --to.

    The cluster's own objects are asked, or manifests with -f. The destination may be a service, by its name or
    address, and a DNS name. Where a proxy judges requests, its rules are shown, and how a request fares: the flow's, or
    that of --request.
    """
    from mycel.cli.policies.live import as_flow, request_of, seen_flow, seen_text
    from mycel.cli.policies.text import explanation_json, explanation_lines

    if (uuid is None) == (source is None and destination is None):
        raise BadInput("say a flow's UUID, or --from and --to")
    request, seen = parse_request(asked) if asked else None, ""
    if uuid is not None:
        flow = await seen_flow(target, uuid)
        line, request, seen = as_flow(flow), request or request_of(flow), seen_text(flow)
    elif source is None or destination is None:
        raise BadInput("--from and --to belong together")
    else:
        line = parse_ends(source, destination)
    world = _offline_world(paths) if paths else _live(await _live_objects(target))
    answer = _answer(world, line, request=request, seen=seen)
    if output == "json":
        print_json(explanation_json(answer))
        return
    for text in explanation_lines(answer):
        click.echo(text)


def _answer(world: World, line: dict[str, Any], *, request: Request | None, seen: str) -> Answer:
    """Judge a flow; one to a service as the flow to the pod behind it that is the hardest to reach."""
    from mycel.cli.policies.text import Answer
    from mycel.policy.errors import PolicyInvalid
    from mycel.policy.explain import explain as explain_flow
    from mycel.policy.offline import parse_flow

    try:
        flow = parse_flow(world, line)
    except PolicyInvalid as exc:
        gone = seen and "there is no pod" in str(exc)
        raise BadInput(
            str(exc), hint="It may have gone since the flow was seen." if gone else _hint(world, line)
        ) from exc
    return Answer(explain_flow(world, flow), request=request, seen=seen)


def _hint(world: World, line: dict[str, Any]) -> str:
    """What there is, where an end is not there."""
    from mycel.model.workload import PodRef

    ends = (line["from"], line["to"])
    if any("entity" in end for end in ends):
        return "A pod or service is written namespace/name."
    refs = [PodRef(*end["pod"].split("/", 1)) for end in ends if "pod" in end]
    namespaces = {ref.namespace for ref in refs if ref not in world.pods}
    if not namespaces:
        return ""
    pods = [str(ref) for ref in sorted(world.pods) if ref.namespace in namespaces]
    if not pods:
        return f"There are no pods in {' and '.join(sorted(namespaces))}."
    return f"There are {', '.join(pods[:8])}{' …' if len(pods) > 8 else ''}."


def parse_request(text: str) -> Request:
    """`GET /public`. Raises BadInput."""
    from mycel.cli.policies.requests import Request
    from mycel.envoy.http_misses import HttpRequest

    method, _, url = text.strip().partition(" ")
    if not method.isalpha() or not url.strip() or not (url.strip().startswith("/") or "://" in url):
        raise BadInput(f"--request {text!r}: say a method and a path or URL, as 'GET /public'")
    return Request(text.strip(), http=HttpRequest.of(method, url.strip()))


def parse_ends(source: str, destination: str) -> dict[str, Any]:
    """`shop/cart` and `shop/db:5432/TCP` as a flow. Raises BadInput."""
    place, _, service = destination.rpartition(":")
    if not place:
        raise BadInput(f"--to {destination}: say the port and protocol too, as shop/db:5432/TCP, or shop/db:ICMP")
    port, slash, protocol = service.partition("/")
    flow: dict[str, Any] = {"id": f"{source} -> {destination}", "from": _end(source), "to": _end(place.strip("[]"))}
    if port.upper().startswith("ICMP"):
        named: dict[str, Any] = {"protocol": port.upper()}
        if slash and not _is_number(protocol):
            raise BadInput(f"--to {destination}: {protocol!r} is not a type of ICMP, as 8 is")
        return flow | named | ({"type": int(protocol)} if slash else {})
    if not _is_number(port):
        raise BadInput(f"--to {destination}: {port!r} is not a port")
    return flow | {"port": int(port), "protocol": protocol.upper() or "TCP"}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6


def _end(text: str) -> dict[str, Any]:
    if "/" in text:
        return {"pod": text}
    if text.replace(".", "").isdigit() or ":" in text:
        return {"ip": text}
    return {"names": [text]} if "." in text else {"entity": text}


@policy.command()
@_files
@cluster_options
@output_option
@asynchronous
async def lint(*, paths: Sequence[str], target: Target, output: str) -> int:
    """Say what is valid and probably not meant, in manifests (-f) or in the cluster. Exits with 1 when there is any."""
    from mycel.cli.policies.envoy import envoy_findings, unserved
    from mycel.policy.lint import lint as find

    if paths:
        manifests = _manifests(paths)
        objects = [each.object for each in manifests]
        found = find(_world(manifests), objects, unserved=unserved) + envoy_findings(manifests)
    else:
        objects = await _live_objects(target)
        found = find(_live(objects), objects, unserved=unserved)
    if output == "json":
        print_json([each._asdict() for each in found])
    elif found:
        print_table(("OBJECT", "FIELD", "RULE", "FINDING"), found)
    else:
        click.echo("Nothing found.")
    return EXIT_FAILED if found else 0


# ---- worlds


def _manifests(paths: Sequence[str]) -> list[Manifest]:
    from mycel.cli.policies.files import read_manifests

    if not paths:
        raise BadInput("say where the manifests are, with -f")
    return read_manifests(paths)


def _offline_world(paths: Sequence[str]) -> World:
    return _world(_manifests(paths))


def _world(manifests: list[Manifest]) -> World:
    from mycel.policy.errors import ManifestInvalid
    from mycel.policy.world import read_world

    try:
        return read_world([each.object for each in manifests])
    except ManifestInvalid as exc:
        raise BadInput(f"{manifests[exc.index].origin}: {exc}") from exc


async def _live_objects(target: Target) -> list[dict[str, Any]]:
    from mycel.cli.policies.live import cluster_objects

    async with target.client() as client:
        return await cluster_objects(client, target.namespace)


def _live(objects: list[dict[str, Any]]) -> World:
    """The world of a cluster; objects that are not valid are not in force there, and named on stderr."""
    from mycel.policy.errors import ManifestInvalid
    from mycel.policy.world import read_world

    while True:
        try:
            return read_world(objects)
        except ManifestInvalid as exc:
            click.echo(f"not in force: {exc}", err=True)
            del objects[exc.index]
