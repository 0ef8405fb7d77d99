"""What an Ingress becomes: its Service, its listener, routes and clusters, and what is said of its mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.envoy.config.read import read
from mycel.operator.ingress.model import IngressClass, is_ours, parse_class, parse_ingress, service_ports
from mycel.operator.ingress.owned import made_here, owner
from mycel.operator.ingress.telling import Warnings
from mycel.operator.ingress.translate import Problem, Translation, translate
from mycel.operator.owned import DIGEST, holds, with_digest

SERVICES = {
    "foo": service_ports({"ports": [{"port": 80, "name": "http"}, {"port": 81, "name": "admin"}]}),
    "bar": service_ports({"ports": [{"port": 5678}]}),
    "grpc": service_ports({"ports": [{"port": 50051, "appProtocol": "kubernetes.io/h2c"}]}),
    "dns": service_ports({"ports": [{"port": 53, "protocol": "UDP"}]}),
}


def path(text: str, service: str = "foo", port: int | str = 80, kind: str = "Prefix") -> dict[str, Any]:
    """One path."""
    named = {"name": port} if isinstance(port, str) else {"number": port}
    return {"path": text, "pathType": kind, "backend": {"service": {"name": service, "port": named}}}


def made(
    *rules: dict[str, Any], annotations: dict[str, str] | None = None, force: bool = False, **spec: Any
) -> Translation:
    """The translation of an Ingress shop/web."""
    metadata = {"namespace": "shop", "name": "web", "uid": "u1", "annotations": annotations or {}}
    item = {"metadata": metadata, "spec": {"ingressClassName": "cilium", "rules": list(rules), **spec}}
    return translate(parse_ingress(item), SERVICES, force_https=force)


def rule(*paths: dict[str, Any], host: str = "") -> dict[str, Any]:
    """One rule."""
    return {"http": {"paths": list(paths)}} | ({"host": host} if host else {})


def resources(translation: Translation) -> list[dict[str, Any]]:
    """Of both CiliumEnvoyConfigs."""
    return [
        each for config in (translation.config, translation.secure) if config for each in config["spec"]["resources"]
    ]


def hosts(translation: Translation, routes: str = "listener-insecure") -> dict[str, list[dict[str, Any]]]:
    """Routes by domain."""
    (found,) = [each for each in resources(translation) if each["name"] == routes]
    return {each["domains"][0]: each["routes"] for each in found["virtualHosts"]}


def ends(routes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(match, where to) of each route."""
    shown: list[tuple[str, str]] = []
    for route in routes:
        match = {key: value for key, value in route["match"].items() if key != "headers"}
        ((kind, text),) = match.items()
        to = route.get("route", {}).get("cluster") or route.get("redirect") or route["directResponse"]["status"]
        shown.append((f"{kind} {text if isinstance(text, str) else text['regex']}", str(to)))
    return shown


EVERYTHING: list[dict[str, Any]] = [
    rule(path("/foo"), path("/bar", "bar", 5678), path("/a[0-9]+", kind="ImplementationSpecific")),
    rule(path("/", "foo", "admin"), path("/x", "grpc", 50051, "Exact"), host="Shop.example.com"),
    rule(path("/deep/er/", "nowhere"), host="*.example.com"),
]
TLS = [
    {"hosts": ["shop.example.com", "*.example.com"], "secretName": "one"},
    {"hosts": ["shop.example.com", "b.example.com"], "secretName": "two"},
    {"secretName": "rest"},
]


def test_agents_take_every_resource() -> None:
    """As they read any CiliumEnvoyConfig: whose endpoints, which Secrets, nothing left unresolved."""
    translation = made(*EVERYTHING, tls=TLS, defaultBackend=path("/")["backend"], force=True)
    for body, port, secrets in (
        (translation.config, 80, set[str]()),
        (translation.secure, 443, {"one", "two", "rest"}),
    ):
        assert body is not None
        config = read({"kind": "CiliumEnvoyConfig", **body}, ingress="10.244.0.254")
        assert config.unresolved == ()
        assert {(each.namespace, each.name) for each in config.secrets} == {("shop", name) for name in secrets}
        assert [(str(each.service), set(each.ports)) for each in config.services] == [
            ("shop/cilium-ingress-web", {port})
        ]
        assert {name: str(backends) for name, backends in config.clusters.items()} == {
            "shop:bar:5678": "shop/bar:5678",
            "shop:foo:80": "shop/foo:80",
            "shop:foo:81": "shop/foo:81",
            "shop:grpc:50051": "shop/grpc:50051",
        }


def test_the_walkthroughs_ingress() -> None:
    """Names are Cilium's; the Service is the Ingress's own; no certificate, no second port."""
    translation = made(rule(path("/foo"), path("/bar", "bar", 5678)))
    owned = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "web", "uid": "u1", "controller": True}
    assert translation.service == {
        "metadata": {
            "name": "cilium-ingress-web",
            "namespace": "shop",
            "labels": {"cilium.io/ingress": "true"},
            "ownerReferences": [owned],
        },
        "spec": {
            "type": "LoadBalancer",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            "externalTrafficPolicy": "Cluster",
        },
    }
    assert translation.config is not None and translation.problems == ()
    assert translation.config["metadata"]["name"] == "cilium-ingress-shop-web"
    spec = translation.config["spec"]
    assert spec["services"] == [
        {"name": "cilium-ingress-web", "namespace": "shop", "listener": "listener", "ports": [80]}
    ]
    assert translation.secure is None
    assert spec["backendServices"] == [
        {"name": "bar", "namespace": "shop", "number": ["5678"]},
        {"name": "foo", "namespace": "shop", "number": ["80"]},
    ]
    assert ends(hosts(translation)["*"]) == [
        ("pathSeparatedPrefix /bar", "shop:bar:5678"),
        ("pathSeparatedPrefix /foo", "shop:foo:80"),
        ("prefix /", "404"),
    ]
    (cluster,) = [each for each in resources(translation) if each["name"] == "shop:bar:5678"]
    assert cluster["edsClusterConfig"] == {"serviceName": "shop/bar:5678"}


def test_what_wins() -> None:
    """Exact, regular expressions, the longest prefix; its last slash says nothing; the first of two equal ones."""
    paths = [path("/a"), path("/a/b/"), path("/a/b", "bar", 5678), path("/"), path("/a/b", "grpc", 50051, "Exact")]
    paths.append(path("/a.*", "foo", "admin", "ImplementationSpecific"))
    assert ends(hosts(made(rule(*paths)))["*"]) == [
        ("path /a/b", "shop:grpc:50051"),
        ("safeRegex /a.*", "shop:foo:81"),
        ("pathSeparatedPrefix /a/b", "shop:foo:80"),
        ("pathSeparatedPrefix /a", "shop:foo:80"),
        ("prefix /", "shop:foo:80"),
        ("prefix /", "404"),
    ]


def test_a_path_that_is_not_said_is_every_path() -> None:
    """Only ImplementationSpecific may leave it out."""
    silent = path("", kind="ImplementationSpecific")
    del silent["path"]
    for each in (silent, path("", kind="ImplementationSpecific")):
        assert ends(hosts(made(rule(each)))["*"]) == [("prefix /", "shop:foo:80"), ("prefix /", "404")]


def test_names_with_a_certificate_are_served_by_the_rules_that_are_about_them() -> None:
    """Also by those of a wildcard, of no host, and by the default backend; what has no certificate is not."""
    rules = rule(path("/x"), host="*.example.com"), rule(path("/y"))
    tls = [{"hosts": ["a.example.com", "other.org", "*.org"], "secretName": "one"}]
    for translation in (
        made(*rules, tls=tls, defaultBackend=path("/", "bar", 5678)["backend"]),
        made(*rules, tls=tls, defaultBackend=path("/", "bar", 5678)["backend"], force=True),
    ):
        found = hosts(translation, "listener-secure")
        assert list(found) == ["*.org", "a.example.com", "other.org"]
        assert ends(found["a.example.com"]) == [
            ("pathSeparatedPrefix /x", "shop:foo:80"),
            ("prefix /", "shop:bar:5678"),
        ]
        for name in ("other.org", "*.org"):
            assert ends(found[name]) == [("pathSeparatedPrefix /y", "shop:foo:80"), ("prefix /", "shop:bar:5678")]
    plain = hosts(made(*rules, tls=tls, force=True))
    assert {name for name, routes in plain.items() if any("redirect" in route for route in routes)} == set(found)


def test_hosts_and_the_default_backend() -> None:
    """What no rule takes goes to the default backend, also of hosts that have rules."""
    rules = rule(path("/x"), host="a.example.com"), rule(path("/"), host="*.b.example.com")
    translation = made(*rules, defaultBackend=path("/", "bar", 5678)["backend"])
    found = hosts(translation)
    assert list(found) == ["*.b.example.com", "a.example.com", "*"]
    assert ends(found["a.example.com"])[-1] == ends(found["*"])[0] == ("prefix /", "shop:bar:5678")
    guards = [route["match"].get("headers") for route in found["*.b.example.com"]]
    assert guards[0] == guards[1] and guards[0] and guards[2] is None


@pytest.mark.parametrize(
    ("backend", "problem"),
    [
        (path("/", "none"), "service shop/none is not there"),
        (path("/", "foo", 82), "service shop/foo has no TCP port 82"),
        (path("/", "foo", "https"), "service shop/foo has no TCP port https"),
        (path("/", "dns", 53), "service shop/dns has no TCP port 53"),
        ({"path": "/", "pathType": "Prefix", "backend": {"resource": {"kind": "X"}}}, "a backend is a resource"),
    ],
)
def test_a_backend_that_is_not_there_costs_its_own_paths(backend: dict[str, Any], problem: str) -> None:
    translation = made(rule(backend, path("/foo")))
    assert [each.message[: len(problem)] for each in translation.problems] == [problem]
    assert ends(hosts(translation)["*"])[:2] == [("pathSeparatedPrefix /foo", "shop:foo:80"), ("prefix /", "503")]


@pytest.mark.parametrize("pattern", ["/(", "/(a{1,100}b{1,100}){1,9}"])
def test_a_pattern_envoy_would_refuse_is_left_out(pattern: str) -> None:
    translation = made(rule(path(pattern, kind="ImplementationSpecific"), path("/foo")))
    assert [each.reason for each in translation.problems] == ["PathNotServed"]
    assert ends(hosts(translation)["*"]) == [("pathSeparatedPrefix /foo", "shop:foo:80"), ("prefix /", "404")]


def test_certificates() -> None:
    """By name of the server, the first for a name; hosts without one are not served over TLS."""
    translation = made(*EVERYTHING, tls=TLS[:2])
    assert translation.secure is not None
    assert translation.secure["metadata"]["name"] == "cilium-ingress-tls.shop-web"
    chains = translation.secure["spec"]["resources"][0]["filterChains"]
    seen = [
        (
            chain["filterChainMatch"].get("serverNames"),
            chain["transportSocket"]["typedConfig"]["commonTlsContext"]["tlsCertificateSdsSecretConfigs"][0]["name"],
        )
        for chain in chains
    ]
    assert seen == [(["shop.example.com", "*.example.com"], "shop/one"), (["b.example.com"], "shop/two")]
    assert list(hosts(translation, "listener-secure")) == ["*.example.com", "b.example.com", "shop.example.com"]
    assert translation.service is not None
    assert [port["port"] for port in translation.service["spec"]["ports"]] == [80, 443]


@pytest.mark.parametrize(("text", "seconds"), [("30s", "30s"), ("1h30m", "5400s"), ("1500ms", "1.5s"), ("0s", "0s")])
def test_how_long_a_request_may_take(text: str, seconds: str) -> None:
    translation = made(rule(path("/")), annotations={"ingress.cilium.io/request-timeout": text})
    assert not translation.problems
    assert hosts(translation)["*"][0]["route"]["timeout"] == seconds


@pytest.mark.parametrize(
    ("annotation", "default", "forced"),
    [(None, False, False), (None, True, True), ("enabled", False, True), ("disabled", True, False)],
)
def test_plain_requests_are_sent_to_https_when_asked_for(annotation: str | None, default: bool, forced: bool) -> None:
    """Where there is a certificate, and nowhere else."""
    annotations = {} if annotation is None else {"ingress.cilium.io/force-https": annotation}
    translation = made(*EVERYTHING, tls=TLS[1:2], annotations=annotations, force=default)
    for host, routes in hosts(translation).items():
        redirected = {"redirect" in route for route in routes}
        assert redirected == {forced and host in ("shop.example.com", "b.example.com")}, host
    assert all("redirect" not in route for routes in hosts(translation, "listener-secure").values() for route in routes)


def test_annotations() -> None:
    prefix = "ingress.cilium.io/"
    translation = made(
        rule(path("/")),
        annotations={
            f"{prefix}loadbalancer-class": "io.cilium/l2-announcer",
            f"{prefix}service-external-traffic-policy": "Local",
            f"{prefix}insecure-node-port": "30080",
            f"{prefix}request-timeout": "5s",
            "lbipam.cilium.io/ips": "10.0.0.7",
            "example.com/other": "x",
        },
    )
    assert translation.service is not None and translation.problems == ()
    assert translation.service["metadata"]["annotations"] == {"lbipam.cilium.io/ips": "10.0.0.7"}
    assert translation.service["spec"] == {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "loadBalancerClass": "io.cilium/l2-announcer",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}],
    }
    assert hosts(translation)["*"][0]["route"]["timeout"] == "5s"
    node_port = made(annotations={f"{prefix}service-type": "NodePort"})
    assert node_port.service is not None and node_port.service["spec"]["type"] == "NodePort"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request-timeout", "soon"),
        ("insecure-node-port", "x"),
        ("service-type", "ClusterIP"),
        ("service-external-traffic-policy", "local"),
        ("tls-passthrough", "enabled"),
    ],
)
def test_annotations_that_cannot_be_followed_are_told_and_cost_nothing_else(name: str, value: str) -> None:
    translation = made(rule(path("/")), annotations={f"ingress.cilium.io/{name}": value})
    assert [each.reason for each in translation.problems] == ["AnnotationNotFollowed"]
    assert f"ingress.cilium.io/{name} is {value!r}" in translation.problems[0].message
    plain = made(rule(path("/")))
    assert translation[:3] == plain[:3]


def test_shared_load_balancers_are_refused() -> None:
    translation = made(rule(path("/")), annotations={"ingress.cilium.io/loadbalancer-mode": "shared"})
    assert translation[:3] == (None, None, None)
    assert [each.reason for each in translation.problems] == ["ModeNotSupported"]


@pytest.mark.parametrize(
    ("named", "ours"), [("cilium", True), ("edge", True), ("nginx", False), ("gone", False), ("", True)]
)
def test_whose_ingresses_are_ours(named: str, ours: bool) -> None:
    """By the class's controller; without a class by the default's."""
    classes = {
        "cilium": parse_class({"metadata": {"name": "cilium"}, "spec": {"controller": "cilium.io/ingress-controller"}}),
        "edge": IngressClass("edge", ours=True, default=True),
        "nginx": IngressClass("nginx", ours=False, default=False),
    }
    spec = {"ingressClassName": named} if named else {}
    assert is_ours(parse_ingress({"metadata": {"name": "web"}, "spec": spec}), classes) is ours
    annotated = {"metadata": {"name": "web", "annotations": {"kubernetes.io/ingress.class": named}}}
    assert is_ours(parse_ingress(annotated), classes) is ours


def test_what_was_written_is_recognised() -> None:
    """Fields the API server adds do not matter; changed and dropped ones do."""
    body = with_digest({"metadata": {"name": "a", "annotations": {"x": "1"}}, "spec": {"ports": [{"port": 80}]}})
    digest = body["metadata"]["annotations"][DIGEST]
    live: dict[str, Any] = {
        "metadata": {"name": "a", "uid": "1", "annotations": {"x": "1", DIGEST: digest, "y": "2"}},
        "spec": {"ports": [{"port": 80, "nodePort": 30000}], "type": "NodePort"},
    }
    assert holds(live, body)
    assert not holds(live | {"spec": {"ports": [{"port": 80}, {"port": 81}]}}, body)
    assert not holds(live | {"spec": {"ports": [{"port": 81}]}}, body)
    assert not holds(live, with_digest({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}))
    assert owner({"metadata": {"ownerReferences": [{"kind": "Ingress", "uid": "7", "controller": True}]}}) == "7"
    assert owner({"metadata": {}}) == ""


def test_only_what_we_made_is_ours_to_delete() -> None:
    """Other controllers' objects belong to Ingresses too."""
    translation = made(rule(path("/")), tls=TLS)
    for body in translation[:3]:
        assert body is not None and made_here(body)
        assert not made_here({"metadata": body["metadata"] | {"labels": {}}})
        assert not made_here({"metadata": body["metadata"] | {"ownerReferences": []}})


class Written:
    """An API client that notes the events."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    async def create(self, _resource: Any, body: dict[str, Any], *, namespace: str) -> None:
        self.messages.append(f"{namespace}/{body['involvedObject']['name']}: {body['message']}")


async def test_problems_are_told_once_and_again_when_they_come_back() -> None:
    written = Written()
    warnings = Warnings(written)  # type: ignore[arg-type]
    ingress = parse_ingress({"metadata": {"namespace": "shop", "name": "web", "uid": "u1"}})
    problem = Problem("BackendNotFound", "no such service")
    for found in ((problem,), (problem,), (), (problem,)):
        await warnings.tell([(ingress, found)])
    assert written.messages == ["shop/web: no such service"] * 2
