"""A CiliumEnvoyConfig as agents use it: frozen, with Envoy's resources ready to be sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mycel.envoy.resources import CLUSTER, LISTENER, ROUTES, Resource, TypeUrl
from mycel.model.service import ServiceRef
from mycel.policy.labels import Selector

OUTSIDE = "@outside"
NAMESPACED, CLUSTERWIDE = "CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"


class ConfigRef(NamedTuple):
    """Which object; a clusterwide one has no namespace."""

    namespace: str
    name: str

    @property
    def kind(self) -> str:
        """The object's kind."""
        return NAMESPACED if self.namespace else CLUSTERWIDE

    def qualify(self, resource: str) -> str:
        """A resource's name among all objects' (`/name/resource` when clusterwide: no namespace is empty)."""
        return f"{self.namespace}/{self.name}/{resource}"

    @property
    def outside(self) -> ConfigRef:
        """What the resources for clients of the outside are named after: no object has such a name."""
        return ConfigRef(self.namespace, f"{self.name}{OUTSIDE}")

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class ListenerKey(NamedTuple):
    """What a listener's port stands for."""

    config: ConfigRef
    listener: str  # as the object names it


class Backends(NamedTuple):
    """Ready endpoints of a service; `ports`: of these service ports (numbers or names), empty: of all."""

    service: ServiceRef
    ports: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.service}:{','.join(self.ports)}" if self.ports else str(self.service)


class Served(NamedTuple):
    """A service whose connections go to a listener; `ports`: of these service ports, empty: of all."""

    service: ServiceRef
    ports: frozenset[int]
    port: int  # the listener's


class SecretUse(NamedTuple):
    """A Kubernetes Secret a TLS context names: its certificate and key, or (`authority`) the CA in it."""

    namespace: str
    name: str
    authority: bool

    @property
    def resource(self) -> str:
        """The name it has for Envoy: no Secret of an object itself has one with so few slashes."""
        return f"{self.namespace}/{self.name}{':ca' if self.authority else ''}"


@dataclass(frozen=True, slots=True)
class EnvoyConfig:
    """An object that is accepted. What it names in other namespaces is told in `unresolved`, and not used."""

    ref: ConfigRef
    resources: Mapping[TypeUrl, Mapping[str, Resource]]  # by qualified name
    listeners: Mapping[str, int]  # name in the object → port
    twins: Mapping[int, int]  # listener's port → that for clients of the outside, where that is another
    services: tuple[Served, ...]
    clusters: Mapping[str, Backends | None]  # name in the object → whose endpoints; None: none it may have
    secrets: frozenset[SecretUse]
    unresolved: tuple[str, ...]
    nodes: Selector
    routes: frozenset[str] = frozenset()  # qualified names of those a listener uses: Envoy asks for no others

    @property
    def answered(self) -> Iterator[tuple[TypeUrl, str]]:
        """The resources Envoy says something of."""
        for kind in (CLUSTER, LISTENER):
            yield from ((kind, name) for name in self.resources.get(kind, {}))
        yield from ((ROUTES, name) for name in sorted(self.routes))
