"""The names an object's resources have among all objects', and what its clusters are the endpoints of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mycel.envoy.config.model import Backends, ConfigRef, SecretUse
from mycel.envoy.resources import CLUSTER, LISTENER, ROUTES, SECRET, TypeUrl
from mycel.model.references import foreign
from mycel.model.service import ServiceRef
from mycel.policy.errors import PolicyInvalid

_KINDS = {LISTENER: "Listener", ROUTES: "RouteConfiguration", CLUSTER: "Cluster", SECRET: "Secret"}


@dataclass
class Names:
    """What an object's resources may refer to, and what they turned out to."""

    ref: ConfigRef
    own: Mapping[TypeUrl, frozenset[str]]
    filters: Mapping[ServiceRef, tuple[str, ...]]  # backendServices with `number`
    clusters: dict[str, Backends | None] = field(default_factory=dict[str, Backends | None])
    secrets: set[SecretUse] = field(default_factory=set[SecretUse])
    routes: set[str] = field(default_factory=set[str])
    unresolved: dict[str, None] = field(default_factory=dict[str, None])  # ordered

    def refer(self, kind: TypeUrl, name: str, path: str) -> str:
        """The qualified name of a resource of this object. Raises PolicyInvalid when it has no such."""
        if name not in self.own.get(kind, frozenset()):
            raise PolicyInvalid(path, f"names {name!r}: among resources there is no {_KINDS[kind]} of that name")
        if kind == ROUTES:
            self.routes.add(self.ref.qualify(name))
        return self.ref.qualify(name)

    def backends(self, cluster: str, text: str, path: str) -> Backends | None:
        """Whose endpoints a cluster has, of `namespace/service` or `namespace/service:port`.

        None when it may not have them. Raises PolicyInvalid.
        """
        place, _, port = text.partition(":")
        namespace, slash, name = place.partition("/")
        if not (slash and namespace and name) or "/" in name or (":" in text and not port):
            raise PolicyInvalid(
                path, f"is {text!r}: endpoints come from Services: say namespace/service or namespace/service:port"
            )
        service = ServiceRef(namespace, name)
        found = None
        if not self.foreign(service):
            found = Backends(service, (port,) if port else self.filters.get(service, ()))
        self.clusters[cluster] = found
        return found

    def secret(self, name: str, path: str, *, authority: bool) -> str:
        """The name Envoy asks for, of a Secret among resources, or a Kubernetes Secret. Raises PolicyInvalid."""
        if name in self.own.get(SECRET, frozenset()):
            return self.ref.qualify(name)
        namespace, slash, secret = name.partition("/")
        if not slash:
            namespace, secret = self.ref.namespace, name
        if not namespace or not secret or "/" in secret or ":" in secret:
            raise PolicyInvalid(path, f"is {name!r}: name a Secret as namespace/name")
        use = SecretUse(namespace, secret, authority)
        if foreign(self.ref.namespace, namespace):
            self.unresolved[f"Secret {namespace}/{secret} is {self._elsewhere}"] = None
        else:
            self.secrets.add(use)
        return use.resource

    def foreign(self, service: ServiceRef) -> bool:
        """Whether a service is one this object may not name; it is told then."""
        if not foreign(self.ref.namespace, service.namespace):
            return False
        hint = (
            f"create this object in {service.namespace} (kubectl -n {service.namespace}), "
            f"or use a CiliumClusterwideEnvoyConfig"
        )
        self.unresolved[f"Service {service} is {self._elsewhere}: {hint}"] = None
        return True

    @property
    def _elsewhere(self) -> str:
        return f"in another namespace than this object ({self.ref.namespace})"
