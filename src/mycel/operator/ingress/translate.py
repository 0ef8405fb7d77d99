"""An Ingress → its Service and its CiliumEnvoyConfig, and what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from mycel.kit.durations import duration_s
from mycel.operator.ingress.listener import LISTENER, Json, plain_resources, secure_resources
from mycel.operator.ingress.model import LABEL, Backend, Ingress, Path, PathType, ServicePorts
from mycel.policy.expressions import expression_problem

# Clients of the outside are no longer told apart behind the proxy: it dials with the node's ingress address.
SOURCE_LABEL = "cilium.io/use-original-source-address"
_COPIED = ("lbipam.cilium.io", "io.cilium/lb-ipam", "service.beta.kubernetes.io", "service.kubernetes.io")
_MODES = ("dedicated",)


class Problem(NamedTuple):
    """What a person should know: an event of the Ingress."""

    reason: str
    message: str


class Translation(NamedTuple):
    """What an Ingress becomes; None: it is not served at all, and a problem says why.

    TLS is another object: a certificate that is missing costs it alone.
    """

    service: Json | None
    config: Json | None
    secure: Json | None  # None also without certificates
    problems: tuple[Problem, ...]


def service_name(ingress: Ingress) -> str:
    """The name of its Service."""
    return f"cilium-ingress-{ingress.name}"


def config_name(ingress: Ingress) -> str:
    """The name of its CiliumEnvoyConfig for plain HTTP."""
    return f"cilium-ingress-{ingress.namespace}-{ingress.name}"


def secure_name(ingress: Ingress) -> str:
    """That for TLS: with a dot before the namespace, so that no Ingress's plain one has it."""
    return f"cilium-ingress-tls.{ingress.namespace}-{ingress.name}"


def translate(ingress: Ingress, services: Mapping[str, ServicePorts], *, force_https: bool = False) -> Translation:
    """`services`: those of its namespace; `force_https`: what holds for Ingresses that do not say.

    What cannot be served is refused alone: a backend that is not there costs its own paths, an annotation that
    cannot be used itself.
    """
    if mode := _mode_problem(ingress):
        return Translation(None, None, None, (mode,))
    numbers, problems = _resolve(ingress, services)
    problems += _annotation_problems(ingress)
    served, refused = _without_bad_patterns(ingress)
    problems += refused
    http2 = [each for each, number in numbers.items() if number in services[each.service].http2]
    plain = plain_resources(served, numbers, http2, force_https=force_https)
    secure = secure_resources(served, numbers, http2)
    return Translation(
        _service(ingress),
        _config(ingress, config_name(ingress), 80, numbers, plain),
        _config(ingress, secure_name(ingress), 443, numbers, secure) if secure else None,
        tuple(problems),
    )


def own_problems(ingress: Ingress) -> tuple[Problem, ...]:
    """What is wrong with an Ingress whatever the cluster has."""
    if mode := _mode_problem(ingress):
        return (mode,)
    return (*_annotation_problems(ingress), *_without_bad_patterns(ingress)[1])


def _mode_problem(ingress: Ingress) -> Problem | None:
    mode = ingress.options.get("loadbalancer-mode", "dedicated")
    if mode in _MODES:
        return None
    text = f"annotation ingress.cilium.io/loadbalancer-mode is {mode!r}: only dedicated is served"
    return Problem("ModeNotSupported", text)


def _config(ingress: Ingress, name: str, port: int, numbers: Mapping[Backend, int], resources: list[Json]) -> Json:
    """The CiliumEnvoyConfig of one port of the Service."""
    place = {"namespace": ingress.namespace}
    spec = {
        "services": [{"name": service_name(ingress), **place, "listener": LISTENER, "ports": [port]}],
        "backendServices": [{"name": name, **place, "number": ports} for name, ports in _backends(numbers)],
        "resources": resources,
    }
    return {"metadata": _metadata(ingress, name, {LABEL: "true", SOURCE_LABEL: "false"}), "spec": spec}


def _resolve(ingress: Ingress, services: Mapping[str, ServicePorts]) -> tuple[dict[Backend, int], list[Problem]]:
    numbers: dict[Backend, int] = {}
    problems: list[Problem] = []
    for backend in sorted(ingress.backends, key=lambda each: (each.service, str(each.port))):
        ports = services.get(backend.service)
        number = ports.number(backend.port) if ports else None
        if number is not None:
            numbers[backend] = number
        elif not backend.service:
            problems.append(Problem("BackendNotSupported", "a backend is a resource: only services are served"))
        elif ports is None:
            text = f"service {ingress.namespace}/{backend.service} is not there: its paths answer 503"
            problems.append(Problem("BackendNotFound", text))
        else:
            text = f"service {ingress.namespace}/{backend.service} has no TCP port {backend.port}: its paths answer 503"
            problems.append(Problem("BackendNotFound", text))
    return numbers, problems


def _backends(numbers: Mapping[Backend, int]) -> list[tuple[str, list[str]]]:
    found: dict[str, set[int]] = {}
    for backend, number in numbers.items():
        found.setdefault(backend.service, set()).add(number)
    return [(name, [str(each) for each in sorted(ports)]) for name, ports in sorted(found.items())]


def _without_bad_patterns(ingress: Ingress) -> tuple[Ingress, list[Problem]]:
    """Without the paths Envoy could not take: one of them would cost all the others."""
    problems: list[Problem] = []

    def usable(path: Path) -> bool:
        if path.type is not PathType.SPECIFIC:
            return True
        problem = expression_problem(path.path)
        if problem:
            problems.append(Problem("PathNotServed", f"path {path.path[:100]!r} is not served: it {problem}"))
        return not problem

    rules = tuple(rule._replace(paths=tuple(filter(usable, rule.paths))) for rule in ingress.rules)
    return replace(ingress, rules=rules), problems


def _annotation_problems(ingress: Ingress) -> list[Problem]:
    found: list[Problem] = []
    if ingress.options.get("tls-passthrough", "") in ("enabled", "true"):
        found.append(_bad(ingress, "tls-passthrough", "TLS always ends here"))
    if duration_s(ingress.options.get("request-timeout", "0s")) is None:
        found.append(_bad(ingress, "request-timeout", "say a duration such as 30s or 5m"))
    for name in ("insecure-node-port", "secure-node-port"):
        if name in ingress.options and not ingress.options[name].isdecimal():
            found.append(_bad(ingress, name, "say a number"))
    if ingress.options.get("service-type", "LoadBalancer") not in ("LoadBalancer", "NodePort"):
        found.append(_bad(ingress, "service-type", "say LoadBalancer or NodePort"))
    if ingress.options.get("service-external-traffic-policy", "Cluster") not in ("Cluster", "Local"):
        found.append(_bad(ingress, "service-external-traffic-policy", "say Cluster or Local"))
    return found


def _bad(ingress: Ingress, name: str, hint: str) -> Problem:
    text = f"annotation ingress.cilium.io/{name} is {ingress.options[name]!r} and is not followed: {hint}"
    return Problem("AnnotationNotFollowed", text)


def _service(ingress: Ingress) -> Json:
    options = ingress.options
    kind = "NodePort" if options.get("service-type") == "NodePort" else "LoadBalancer"
    policy = "Local" if options.get("service-external-traffic-policy") == "Local" else "Cluster"
    ports = [_port("http", 80, options.get("insecure-node-port", ""))]
    if ingress.tls:
        ports.append(_port("https", 443, options.get("secure-node-port", "")))
    spec: Json = {"type": kind, "ports": ports, "externalTrafficPolicy": policy}
    if kind == "LoadBalancer" and options.get("loadbalancer-class"):
        spec["loadBalancerClass"] = options["loadbalancer-class"]
    annotations = {key: value for key, value in ingress.annotations.items() if key.startswith(_COPIED)}
    metadata = _metadata(ingress, service_name(ingress), {LABEL: "true"})
    return {"metadata": metadata | ({"annotations": annotations} if annotations else {}), "spec": spec}


def _port(name: str, number: int, node_port: str) -> dict[str, Any]:
    port: dict[str, Any] = {"name": name, "port": number, "protocol": "TCP"}
    return port | ({"nodePort": int(node_port)} if node_port.isdecimal() else {})


def _metadata(ingress: Ingress, name: str, labels: Mapping[str, str]) -> Json:
    owner = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "name": ingress.name,
        "uid": ingress.uid,
        "controller": True,
    }
    return {"name": name, "namespace": ingress.namespace, "labels": dict(labels), "ownerReferences": [owner]}
