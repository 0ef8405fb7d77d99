"""`mycel install`: look at the cluster, say what will be made, make it, and on request wait until it works."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from mycel.cli.access import Target, asynchronous, cluster_options
from mycel.cli.chart.load import Chart, Release, Rendered, load_chart
from mycel.cli.chart.template import TemplateError
from mycel.cli.chart.values import Values, ValuesError, merge
from mycel.cli.errors import BadInput, Failure
from mycel.cli.mesh import objects, release, settings
from mycel.cli.mesh.certificates import make_authority, make_hubble_server
from mycel.cli.mesh.detect import Facts, detect
from mycel.cli.output import dim, good
from mycel.cli.progress import step
from mycel.k8s.errors import NotFound
from mycel.k8s.resources import SECRETS
from mycel.kit.certificates import KeyPair
from mycel.kit.deploy import chart_dir

if TYPE_CHECKING:
    from mycel.k8s.client import ApiClient

_HISTORY = 10  # revisions kept, as Helm does


@click.command()
@cluster_options
@click.option("--version", metavar="VERSION", default="", help="Version of the images. Default: the chart's.")
@click.option("--config", metavar="KEY=VALUE", multiple=True, help="A key of ConfigMap cilium-config (repeatable).")
@click.option(
    "--kube-proxy-replacement",
    type=click.Choice(settings.KUBE_PROXY_REPLACEMENT),
    help="The mesh translates services in any case: all but false and disabled mean the same.",
)
@click.option("--agent-image", metavar="IMAGE", default="", help="Image of the agent.")
@click.option("--operator-image", metavar="IMAGE", default="", help="Image of the operator.")
@click.option("--datapath-mode", metavar="MODE", default="", help="How nodes reach each other: vxlan.")
@click.option("--set", "set_values", metavar="NAME=VALUE", multiple=True, help="A setting of the chart (repeatable).")
@click.option("-f", "--values", "files", type=click.Path(), multiple=True, help="A file of settings (repeatable).")
@click.option("--reset-values", is_flag=True, help="Forget what an earlier install was given.")
@click.option("--wait", "wait", is_flag=True, help="Wait until everything works.")
@click.option("--wait-duration", metavar="TIME", default="5m", show_default=True, help="How long at most.")
@click.option("--dry-run", is_flag=True, help="Print the objects as YAML and make none.")
@asynchronous
async def install(
    *,
    target: Target,
    files: tuple[str, ...],
    wait: bool,
    wait_duration: str,
    dry_run: bool,
    reset_values: bool,
    **asked: Any,
) -> None:
    """Install the mesh into a cluster, or upgrade it in place.

    Running it again changes only what differs; what an earlier run was given holds until it is given anew.
    """
    from mycel.cli.mesh.waiting import parse_duration, wait_until_healthy

    asked["kube_proxy_replacement"] = asked["kube_proxy_replacement"] or ""
    request = settings.Request(files=tuple(_read(name) for name in files), **asked)
    wait_s = parse_duration(wait_duration)
    own_values = settings.asked_values(request)
    async with target.client() as client:
        facts = await detect(client)
        _tell(facts)
        previous = await _previous(client, target.namespace)
        if previous and not reset_values:
            own_values = merge(previous.values, own_values)
        chart, values, rendered = await _render(client, target, facts, own_values, previous)
        if dry_run:
            click.echo(_as_yaml(chart, rendered), nl=False)
            return
        changed = await _apply(client, chart, rendered, previous)
        await _record(client, chart, rendered, previous, own_values, target.namespace)
        if wait:
            await wait_until_healthy(client, target.namespace, timeout_s=wait_s, dns=True)
    version = values["image"]["override"] or values["image"]["tag"]
    done = "upgraded" if previous else "installed"
    click.echo(f"{good('Mycel is ' + done)} ({version}){'' if changed else ': nothing had to change'}.")
    if not wait:
        click.echo(f"Next: mycel status --wait   {dim('# until every node is ready')}")


def _read(name: str) -> Values:
    """A file of values. Raises BadInput."""
    try:
        loaded: Any = yaml.load(Path(name).read_text(), Loader=yaml.CSafeLoader)
    except (OSError, yaml.YAMLError) as exc:
        raise BadInput(f"cannot read settings from {name}: {exc}") from exc
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise BadInput(f"{name} does not hold settings: a map is expected at its top")
    return loaded


def _tell(facts: Facts) -> None:
    click.echo("Found:", err=True)
    for name, value in facts.lines():
        click.echo(f"  {name:<11} {value}", err=True)


async def _previous(client: ApiClient, namespace: str) -> release.Record | None:
    found = await client.list(SECRETS, namespace=namespace, label_selector=release.SELECTOR)
    return release.newest(found.items)


async def _render(
    client: ApiClient,
    target: Target,
    facts: Facts,
    own_values: Values,
    previous: release.Record | None,
) -> tuple[Chart, Values, Rendered]:
    """The chart with everything filled in. Raises BadInput for settings that break its schema."""
    chart = load_chart(chart_dir())
    found = settings.found_values(facts)
    revision = previous.revision + 1 if previous else 1
    try:
        values = chart.values(merge(found, own_values))
        values = chart.values(merge(values, await _certificates(client, target.namespace, values)))
        place = Release(release.NAME, target.namespace, revision)
        digest = _config_digest(chart.render(values, place))
        annotation = {"podAnnotations": {"mycel.dev/config-digest": digest}}
        values = merge(values, annotation | {"operator": annotation})
        return chart, values, chart.render(values, place)
    except ValuesError as exc:
        raise BadInput(str(exc)) from exc
    except TemplateError as exc:
        raise Failure(f"the chart in {chart_dir()} cannot be rendered: {exc}") from exc


def _config_digest(rendered: Rendered) -> str:
    """Changes when agents have to start anew to see their settings."""
    config = next(item for item in rendered.objects if item["kind"] == "ConfigMap")
    return hashlib.sha256(json.dumps(config["data"], sort_keys=True).encode()).hexdigest()[:16]


async def _certificates(client: ApiClient, namespace: str, values: Values) -> Values:
    """The mesh's certificates: given as values, else those the cluster has, else new ones."""
    now = datetime.datetime.now(datetime.UTC)
    given: Values = values["tls"]["ca"]
    kept = await _secret(client, "cilium-ca", namespace)
    if given["cert"] and given["key"]:
        authority = KeyPair(given["cert"], given["key"])
    elif "ca.crt" in kept and "ca.key" in kept:
        authority = KeyPair(kept["ca.crt"], kept["ca.key"])
    else:
        authority = make_authority(now)
    kept = await _secret(client, "hubble-server-certs", namespace)
    if kept.get("ca.crt") == authority.certificate and "tls.key" in kept and _still_good(kept["tls.crt"], now):
        server = KeyPair(kept["tls.crt"], kept["tls.key"])
    else:
        server = make_hubble_server(authority, values["cluster"]["name"], now)
    return {
        "tls": {"ca": {"cert": authority.certificate, "key": authority.key}},
        "hubble": {"tls": {"server": {"cert": server.certificate, "key": server.key}}},
    }


def _still_good(certificate: str, now: datetime.datetime) -> bool:
    """For a month at least."""
    from cryptography import x509

    loaded = x509.load_pem_x509_certificate(base64.b64decode(certificate))
    return loaded.not_valid_after_utc > now + datetime.timedelta(days=30)


async def _secret(client: ApiClient, name: str, namespace: str) -> dict[str, str]:
    try:
        return (await client.get(SECRETS, name, namespace=namespace)).get("data") or {}
    except NotFound:
        return {}


def _as_yaml(chart: Chart, rendered: Rendered) -> str:
    """Everything but the keys, which have no place on a screen."""
    shown = [item for item in rendered.objects if item["kind"] != "Secret"]
    hidden = "".join(
        f"# Secret {item['metadata']['name']} is left out: it holds a private key\n"
        for item in rendered.objects
        if item["kind"] == "Secret"
    )
    dumped = yaml.dump_all([*chart.crds, *shown], sort_keys=False, width=2**31, explicit_start=True)
    return hidden + dumped


async def _apply(client: ApiClient, chart: Chart, rendered: Rendered, previous: release.Record | None) -> bool:
    """Make everything; True when anything changed."""
    with step(f"Defining {len(chart.crds)} kinds") as doing:
        applied = await objects.apply_together(client, chart.crds)
        doing.update(_summary(applied))
    with step(f"Creating {len(rendered.objects)} objects") as doing:
        async for one in objects.apply_in_order(client, rendered.objects):
            applied.append(one)
            doing.update(f"{one.kind} {one.name} {one.change.value}")
    if previous:
        await _remove_leftovers(client, rendered, previous)
    return any(one.change is not objects.Change.UNCHANGED for one in applied)


def _summary(applied: list[objects.Applied]) -> str:
    counts = {change: sum(one.change is change for one in applied) for change in objects.Change}
    return ", ".join(f"{count} {change.value}" for change, count in counts.items() if count)


async def _remove_leftovers(client: ApiClient, rendered: Rendered, previous: release.Record) -> None:
    """What an earlier revision made and this one does not."""
    wanted = {
        (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in rendered.objects
    }
    for kind, namespace, name in sorted(previous.objects - wanted):
        if kind in objects.RESOURCES:
            await objects.remove(client, objects.RESOURCES[kind], name, namespace=namespace)
            click.echo(f"  {kind} {name} removed", err=True)


async def _record(
    client: ApiClient,
    chart: Chart,
    rendered: Rendered,
    previous: release.Record | None,
    own_values: Values,
    namespace: str,
) -> None:
    """Keep what was installed; an unchanged install makes no new revision."""
    if previous and previous.manifest == rendered.manifest and previous.values == own_values:
        return
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    revision = previous.revision + 1 if previous else 1
    record = release.Record(
        revision=revision,
        namespace=namespace,
        values=own_values,
        manifest=rendered.manifest,
        chart=chart.metadata,
        first_deployed=previous.first_deployed if previous else now,
        last_deployed=now,
    )
    await client.apply(SECRETS, release.to_secret(record), field_manager=objects.FIELD_MANAGER)
    if previous:
        label = {"metadata": {"labels": {"status": "superseded"}}}
        await client.patch(SECRETS, release.secret_name(previous.revision), label, namespace=namespace)
        await objects.remove(client, SECRETS, release.secret_name(revision - _HISTORY), namespace=namespace)
