"""Ingresses and the services they name, as the translation sees them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from mycel.kit.durations import duration_s

PREFIX = "ingress.cilium.io/"
LABEL = "cilium.io/ingress"  # "true" on what Ingresses become
CONTROLLER = "cilium.io/ingress-controller"
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"


class PathType(StrEnum):
    """How a path is meant."""

    EXACT = "Exact"
    PREFIX = "Prefix"
    SPECIFIC = "ImplementationSpecific"


class Backend(NamedTuple):
    """A port, by number or name, of a service of the Ingress's namespace. No service: a resource, served by nobody."""

    service: str
    port: int | str


class Path(NamedTuple):
    """One path of one host."""

    path: str
    type: PathType
    backend: Backend


class Rule(NamedTuple):
    """A host's paths; `host` empty: every host."""

    host: str
    paths: tuple[Path, ...]


class Tls(NamedTuple):
    """A certificate and the names it is for; no hosts: for every name."""

    hosts: tuple[str, ...]
    secret: str


@dataclass(frozen=True, slots=True)
class Ingress:
    """An Ingress. `options` are annotations of ours, without their prefix."""

    namespace: str
    name: str
    uid: str
    class_name: str  # empty: none is named
    annotations: Mapping[str, str]
    options: Mapping[str, str]
    rules: tuple[Rule, ...]
    default: Backend | None
    tls: tuple[Tls, ...]
    addresses: tuple[Mapping[str, Any], ...]  # status.loadBalancer.ingress

    def forces_https(self, *, default: bool) -> bool:
        """Whether plain HTTP is redirected where there is a certificate."""
        said = self.options.get("force-https")
        return default if said is None else said in ("enabled", "true")

    @property
    def timeout(self) -> str:
        """How long a request may take, as Envoy reads it; `0s`: for ever."""
        found = duration_s(self.options.get("request-timeout", ""))
        return f"{found or 0.0:.3f}".rstrip("0").rstrip(".") + "s"

    @property
    def backends(self) -> frozenset[Backend]:
        """All it names."""
        found = {path.backend for rule in self.rules for path in rule.paths}
        return frozenset(found | {self.default} if self.default else found)


class IngressClass(NamedTuple):
    """An IngressClass that is ours, or not."""

    name: str
    ours: bool
    default: bool


class ServicePorts(NamedTuple):
    """A service as a backend: its ports by name and number."""

    by_name: Mapping[str, int]
    http2: frozenset[int]  # ports whose appProtocol is h2c

    def number(self, port: int | str) -> int | None:
        """The number of a port, if the service has it."""
        if isinstance(port, str):
            return self.by_name.get(port)
        return port if port in self.by_name.values() else None


def parse_ingress(item: Mapping[str, Any]) -> Ingress:
    """networking.k8s.io/v1 Ingress."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    default = spec.get("defaultBackend")
    return Ingress(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=str(metadata.get("uid", "")),
        class_name=spec.get("ingressClassName") or annotations.get(CLASS_ANNOTATION, ""),
        annotations=annotations,
        options={key.removeprefix(PREFIX): value for key, value in annotations.items() if key.startswith(PREFIX)},
        rules=tuple(_rule(rule) for rule in spec.get("rules") or ()),
        default=_backend(default) if default else None,
        tls=tuple(
            Tls(tuple(host.lower() for host in each.get("hosts") or ()), each["secretName"])
            for each in spec.get("tls") or ()
            if each.get("secretName")
        ),
        addresses=tuple(((item.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()),
    )


def _rule(rule: Mapping[str, Any]) -> Rule:
    paths = (rule.get("http") or {}).get("paths") or ()
    return Rule(
        (rule.get("host") or "").lower(),
        tuple(_path(each) for each in paths),
    )


def _path(each: Mapping[str, Any]) -> Path:
    """Without a path, which only ImplementationSpecific may be, it is about every path."""
    kind = PathType(each["pathType"])
    text = each.get("path") or ""
    return Path(text or "/", kind if text else PathType.PREFIX, _backend(each["backend"]))


def _backend(backend: Mapping[str, Any]) -> Backend:
    service = backend.get("service") or {}
    port = service.get("port") or {}
    return Backend(service.get("name", ""), port.get("name") or port.get("number") or 0)


def parse_class(item: Mapping[str, Any]) -> IngressClass:
    """networking.k8s.io/v1 IngressClass."""
    metadata = item["metadata"]
    return IngressClass(
        metadata["name"],
        ours=(item.get("spec") or {}).get("controller") == CONTROLLER,
        default=(metadata.get("annotations") or {}).get(_DEFAULT_CLASS) == "true",
    )


def is_ours(ingress: Ingress, classes: Mapping[str, IngressClass]) -> bool:
    """Whether an Ingress is for us to serve. One without a class is, where ours is the default."""
    if ingress.class_name:
        found = classes.get(ingress.class_name)
        return found is not None and found.ours
    return any(each.ours and each.default for each in classes.values())


def service_ports(spec: Mapping[str, Any]) -> ServicePorts:
    """The ports of a v1 Service's spec. A port without a name has its number for one."""
    ports = [each for each in spec.get("ports") or () if each.get("protocol", "TCP") == "TCP"]
    return ServicePorts(
        {each.get("name") or str(each["port"]): each["port"] for each in ports},
        frozenset(each["port"] for each in ports if each.get("appProtocol") in ("kubernetes.io/h2c", "grpc")),
    )
