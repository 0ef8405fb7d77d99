"""CiliumEnvoyConfigs in the real Envoy: what is filled in is what it needs, and one bad object hurts nobody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mycel.agent.proxy.access_log import records_of
from mycel.agent.proxy.envoy_drops import read_dropped
from mycel.cluster.apiserver.pki import Pki
from mycel.envoy.config.endpoints import Dialled, assignment, wanted
from mycel.envoy.config.model import EnvoyConfig
from mycel.envoy.config.read import read
from mycel.envoy.messages import from_json, to_resource
from mycel.envoy.parts import CERTIFICATE_ADS
from mycel.envoy.request_log import Outcome
from mycel.envoy.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource, Snapshot, TypeUrl
from mycel.flow.redact import Redaction
from tests.envoy.bed import Bed
from tests.unit.envoy.config.objects import TYPE, cluster, config, listener, manager, router, routes, walkthrough

LISTEN = "http://192.0.0.8"


@pytest_asyncio.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with Bed(tmp_path).running() as found:
        yield found


def snapshot(configs: Iterable[EnvoyConfig], endpoints: Mapping[str, Dialled]) -> dict[TypeUrl, dict[str, Resource]]:
    found: dict[TypeUrl, dict[str, Resource]] = {}
    for each in configs:
        for kind, by_name in each.resources.items():
            found.setdefault(kind, {}).update(by_name)
    found[ENDPOINTS] = {
        name: assignment(name, endpoints.get(str(backends), ())) for name, backends in wanted(configs).items()
    }
    return found


async def test_the_walkthroughs_listener(bed: Bed):
    await bed.backend("same", "127.0.0.2", 8080)
    await bed.backend("other", "127.0.0.3", 8080)
    found = read(walkthrough("envoy-lb-listener.yaml"))
    endpoints = {
        "cilium-test/echo-same-node": (("127.0.0.2", 8080),),
        "cilium-test/echo-other-node": (("127.0.0.3", 8080),),
    }
    bed.offer(snapshot([found], endpoints))
    await bed.settled(found.resources)
    assert not [each for each in bed.outcomes.values() if each.error]
    head = (await bed.curl("-i", f"{LISTEN}:20000/")).lower()
    assert head.startswith("http/1.1 200")
    assert "server: envoy" in head
    assert "x-envoy-upstream-service-time" in head
    answers = [(await bed.curl(f"{LISTEN}:20000/foo/bar")).split() for _ in range(60)]
    assert {answer[1] for answer in answers} == {"/"}  # rewritten
    assert {answer[2] for answer in answers} == {"192.0.0.8"}  # the client's address, not Envoy's own choice
    assert all(16384 <= int(answer[3]) <= 29999 for answer in answers)
    counts = Counter(answer[0] for answer in answers)
    assert set(counts) == {"same", "other"}
    # a cluster without endpoints answers 503, the other goes on
    bed.offer(snapshot([found], {"cilium-test/echo-same-node": (("127.0.0.2", 8080),)}))
    await bed.settled({ENDPOINTS: ["cilium-test/envoy-lb-listener/cilium-test/echo-other-node"]})
    codes = Counter([await bed.curl("-o", "/dev/null", "-w", "%{http_code}", f"{LISTEN}:20000/") for _ in range(40)])
    assert set(codes) == {"200", "503"}


async def test_one_refused_of_fifty(bed: Bed):
    await bed.backend("api", "127.0.0.2", 8080)
    good = [read(config(name=f"c{i}"), lambda _name, i=i: 20100 + i) for i in range(50)]
    # RBAC without rules is fine for the schema; a name twice among virtual hosts is not for Envoy.
    bad_routes = routes()
    bad_routes["virtual_hosts"] *= 2
    bad = [
        read(config(listener(), bad_routes, cluster(), name="bad"), lambda _name: 20200),
        read(config(listener(filter_chains=[{}, {}]), cluster(), name="worse"), lambda _name: 20201),
    ]
    endpoints = {"shop/api": (("127.0.0.2", 8080),)}
    everything: dict[TypeUrl, Any] = snapshot([*good, *bad], endpoints)
    bed.offer(everything)
    await bed.settled(everything)
    refused = {each.name: each.error for each in bed.outcomes.values() if each.error}
    assert set(refused) == {"shop/bad/routes", "shop/worse/listener"}
    assert "wildcard domain" in (refused["shop/bad/routes"] or "")
    for port in (20100, 20149):
        assert (await bed.curl(f"{LISTEN}:{port}/x")).startswith("api /x")
    # what was good stays when it is replaced by something bad
    worse = routes()
    worse["virtual_hosts"] *= 2
    changed = read(config(listener(), worse, cluster(), name="c0"), lambda _name: 20100)
    after = snapshot([changed, *good[1:]], endpoints)
    bed.offer(after)
    await bed.settled({kind: {n for n in names if "/c0/" in n} for kind, names in after.items() if kind != ENDPOINTS})
    assert (await bed.curl(f"{LISTEN}:20100/x")).startswith("api /x")


async def test_a_service_that_two_objects_dial(bed: Bed):
    """The second object's cluster gets endpoints too, though Envoy has those of the service; so does a changed one."""
    await bed.backend("api", "127.0.0.2", 8080)
    endpoints = {"shop/api": (("127.0.0.2", 8080),)}
    first, second = (read(config(name=f"c{i}"), lambda _name, i=i: 20100 + i) for i in range(2))
    changed = read(config(listener(), routes(), cluster(connect_timeout="3s"), name="c0"), lambda _name: 20100)
    for configs in ([first], [first, second], [changed, second]):
        offered = snapshot(configs, endpoints)
        bed.offer(offered)
        await bed.settled(offered)
        for each in configs:
            (port,) = each.listeners.values()
            assert (await bed.curl(f"{LISTEN}:{port}/x")).startswith("api /x")
    dump = await bed.curl("--unix-socket", str(bed.folder / "admin.sock"), "http://envoy/config_dump")
    assert '"connect_timeout": "3s"' in dump
    assert "warming" not in dump


@pytest.mark.parametrize(
    "filters",
    [
        [{"name": "envoy.filters.http.router"}],
        [{"name": "envoy.router"}],
        [
            {
                "name": "limit",
                "typed_config": {
                    "@type": TYPE + "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                    "stat_prefix": "x",
                },
            },
            router(),
        ],
    ],
)
async def test_filters_people_write(bed: Bed, filters: list[dict[str, Any]]):
    await bed.backend("api", "127.0.0.2", 8080)
    found = read(config(listener(filters=[manager(http_filters=filters)]), routes(), cluster()))
    bed.offer(snapshot([found], {"shop/api": (("127.0.0.2", 8080),)}))
    await bed.settled(found.resources)
    assert not [each for each in bed.outcomes.values() if each.error]
    assert bed.outcomes[(LISTENER, "shop/mesh/listener")].version
    assert (await bed.curl(f"{LISTEN}:20000/")).startswith("api /")


async def test_only_headers_that_may_be_shown_leave_envoy(bed: Bed):
    """Credentials and cookies do not, whatever a client sends; without flows there is no log at all."""
    await bed.backend("api", "127.0.0.2", 8080)
    redaction = Redaction(allow=frozenset({"x-team", "content-length"}))
    item = config(listener(filters=[manager(http_filters=[router()])]), routes(), cluster())
    endpoints = {"shop/api": (("127.0.0.2", 8080),)}
    found = read(item, shown=None)
    bed.offer(snapshot([found], endpoints))
    await bed.settled(found.resources)
    assert (await bed.curl(f"{LISTEN}:20000/")).startswith("api /")
    found = read(item, shown=redaction.asked)
    bed.offer(snapshot([found], endpoints))
    await bed.settled(found.resources)
    secrets = ("Authorization", "Cookie", "Proxy-Authorization", "X-Api-Key")
    words = [word for name in secrets for word in ("-H", f"{name}: secret")]
    await bed.curl(*words, "-H", "X-Team: a", "-A", "tool/1", f"{LISTEN}:20000/x?a=1")
    (logged,) = await bed.logged(1)
    assert "secret" not in str(logged)
    assert await read_dropped(bed.folder / "admin.sock") == 0  # it has such a counter, and answers
    asked, answered = records_of(logged, 1, redaction=redaction)
    assert asked.http is not None
    assert answered.http is not None
    assert asked.http.url == "http://192.0.0.8:20000/x?a=1"  # the first that was logged
    assert dict(asked.http.headers).keys() == {"User-Agent", "X-Request-Id", "X-Team"}
    assert dict(answered.http.headers).keys() == {"Content-Length"}


EXTENSIONS = TYPE + "extensions."


@pytest.mark.parametrize(
    "kind",
    [
        "cors.v3.Cors",
        "fault.v3.HTTPFault",
        "grpc_stats.v3.FilterConfig",
        "grpc_web.v3.GrpcWeb",
        "header_mutation.v3.HeaderMutation",
        "rbac.v3.RBAC",
    ],
)
async def test_filters_that_are_allowed_are_there(bed: Bed, kind: str):
    await bed.backend("api", "127.0.0.2", 8080)
    filters = [{"name": "x", "typed_config": {"@type": EXTENSIONS + "filters.http." + kind}}, router()]
    found = read(config(listener(filters=[manager(http_filters=filters)]), routes(), cluster()))
    bed.offer(snapshot([found], {"shop/api": (("127.0.0.2", 8080),)}))
    await bed.settled(found.resources)
    assert not [each for each in bed.outcomes.values() if each.error]
    assert (await bed.curl(f"{LISTEN}:20000/")).startswith("api /")


@pytest.mark.parametrize(
    "kind",
    [
        "least_request.v3.LeastRequest",
        "maglev.v3.Maglev",
        "random.v3.Random",
        "ring_hash.v3.RingHash",
        "round_robin.v3.RoundRobin",
    ],
)
async def test_balancing_that_is_allowed_is_there(bed: Bed, kind: str):
    await bed.backend("api", "127.0.0.2", 8080)
    typed = {"@type": EXTENSIONS + "load_balancing_policies." + kind}
    policy = {"policies": [{"typed_extension_config": {"name": "x", "typed_config": typed}}]}
    previous = {
        "name": "x",
        "typed_config": {"@type": EXTENSIONS + "retry.host.previous_hosts.v3.PreviousHostsPredicate"},
    }
    route = {"cluster": "shop/api", "retry_policy": {"retry_on": "5xx", "retry_host_predicate": [previous]}}
    found = read(config(listener(), routes(route=route), cluster(load_balancing_policy=policy)))
    bed.offer(snapshot([found], {"shop/api": (("127.0.0.2", 8080),)}))
    await bed.settled(found.resources)
    assert not [each for each in bed.outcomes.values() if each.error]
    assert (await bed.curl(f"{LISTEN}:20000/")).startswith("api /")


async def test_a_dead_endpoint_is_left_for_a_living_one(bed: Bed):
    """Retries and outlier detection: nobody listens at one of two endpoints."""
    await bed.backend("same", "127.0.0.2", 8080)
    await bed.backend("other", "127.0.0.3", 8080)
    found = read(walkthrough("envoy-lb-listener.yaml"))
    endpoints = {
        "cilium-test/echo-same-node": (("127.0.0.2", 8080), ("127.0.0.4", 8080)),
        "cilium-test/echo-other-node": (("127.0.0.3", 8080),),
    }
    bed.offer(snapshot([found], endpoints))
    await bed.settled(found.resources)
    code = ("-o", "/dev/null", "-w", "%{http_code}")
    assert {await bed.curl(*code, f"{LISTEN}:20000/") for _ in range(200)} == {"200"}


async def test_clients_that_vanish_are_found(bed: Bed):
    """What is accepted asks its client for a sign of life: no timer of HTTP ends a silent stream."""
    await bed.backend("api", "127.0.0.2", 8080)
    found = read(config())
    bed.offer(snapshot([found], {"shop/api": (("127.0.0.2", 8080),)}))
    await bed.settled(found.resources)
    seen = await bed.prints("bash", "-c", "exec 3<>/dev/tcp/192.0.0.8/20000; ss -Htno state established sport = :20000")
    assert "timer:(keepalive," in seen


async def test_requests_are_logged_as_clients_asked(bed: Bed):
    await bed.backend("api", "127.0.0.2", 8080)
    found = read(config())
    bed.offer(snapshot([found], {"shop/api": (("127.0.0.2", 8080),)}))
    await bed.settled(found.resources)
    own = ("-H", "traceparent: 00-1-2-01", "-H", "x-envoy-original-path: /elsewhere")
    await bed.curl(*own, f"{LISTEN}:20000/a")
    (entry,) = await bed.logged(1)
    assert (entry.path, entry.traceparent, entry.code) == (b"/a", b"00-1-2-01", b"200")
    assert (entry.listener, entry.rule) == (b"", b"")
    assert entry.server.endswith(b":20000")
    assert int(entry.duration_ns) > 0


async def test_what_a_filter_of_users_denies_is_logged_as_denied(bed: Bed):
    """By no rule of ours, whatever its policies are called."""
    everyone = {"principals": [{"any": True}], "permissions": [{"any": True}]}
    rules = {"rules": {"action": "DENY", "policies": {"0/0": everyone}}, "rules_stat_prefix": "mine."}
    rbac = {"name": "x", "typed_config": {"@type": EXTENSIONS + "filters.http.rbac.v3.RBAC", **rules}}
    found = read(config(listener(filters=[manager(http_filters=[rbac, router()])]), routes(), cluster()))
    bed.offer(snapshot([found], {"shop/api": ()}))
    await bed.settled(found.resources)
    assert "RBAC" in await bed.curl(f"{LISTEN}:20000/")
    (entry,) = await bed.logged(1)
    assert (entry.code, entry.outcome, entry.rule) == (b"403", Outcome.DENIED, b"")


async def test_formats_that_are_refused_would_tell_of_the_node(bed: Bed):
    """Why %ENVIRONMENT(…)% is refused: Envoy does it."""
    found = read(config())
    name = "shop/mesh/routes"
    header = {"header": {"key": "x-path", "value": "%ENVIRONMENT(PATH)%"}}
    host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}
    reading = from_json(ROUTES, {"name": name, "virtual_hosts": [host], "response_headers_to_add": [header]})
    everything: dict[TypeUrl, Any] = snapshot([found], {})
    everything[ROUTES] = {name: to_resource(reading)}
    bed.offer(everything)
    await bed.settled({ROUTES: [name]})
    assert not bed.outcomes[(ROUTES, name)].error
    assert "x-path: /" in await bed.curl("-i", f"{LISTEN}:20000/")


def certificate(name: str, chain: str, key: str) -> Resource:
    """A Secret as Envoy gets it."""
    parts = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
    return to_resource(from_json(SECRET, {"name": name, "tls_certificate": parts}))


async def test_a_broken_certificate_is_told_whatever_comes_with_it(bed: Bed, tmp_path: Path):
    pki = Pki(tmp_path / "pki")
    pki.ensure()
    good = pki.pair("admin")
    chains = [
        {"filter_chain_match": {"server_names": [f"{name}.test"]}, **tls_chain(name)} for name in ("broken", "good")
    ]
    listens = {"name": "l", "address": {"pipe": {"path": str(tmp_path / "l")}}, "filter_chains": chains}
    everything: Snapshot = {
        SECRET: {
            "good": certificate("good", good.certificate.read_text(), good.key.read_text()),
            "broken": certificate("broken", "junk", "junk"),
        },
        CLUSTER: {"none": to_resource(from_json(CLUSTER, {"name": "none", "connect_timeout": "1s"}))},
        LISTENER: {"l": to_resource(from_json(LISTENER, listens))},
    }
    bed.offer(everything)
    await bed.settled(everything)
    assert "certificate" in (bed.outcomes[(SECRET, "broken")].error or "")
    assert not bed.outcomes[(SECRET, "good")].error


def tls_chain(secret: str) -> dict[str, Any]:
    """A filter chain that ends TLS with a certificate by SDS, and goes nowhere."""
    named = {"tls_certificate_sds_secret_configs": [{"name": secret, "sds_config": CERTIFICATE_ADS}]}
    context = {"@type": EXTENSIONS + "transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": named}
    proxy = {"@type": EXTENSIONS + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "x", "cluster": "none"}
    return {
        "transport_socket": {"name": "tls", "typed_config": context},
        "filters": [{"name": "tcp", "typed_config": proxy}],
    }
