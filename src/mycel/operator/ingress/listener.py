"""An Ingress's listener, routes and clusters as Envoy's resources. Pure.

What every listener of a CiliumEnvoyConfig gets (address, transparency, where routes and endpoints come from) is left to
the agents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mycel.operator.ingress.model import Backend, Ingress
from mycel.operator.ingress.routes import Json, https_redirects, virtual_hosts

LISTENER = "listener"
INSECURE, SECURE = "listener-insecure", "listener-secure"
_TYPE = "type.googleapis.com/envoy"
_HTTP = f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_IDLE = "60s"

Numbers = Mapping[Backend, int]
"""Backends that exist, with the number of their port."""


def plain_resources(ingress: Ingress, numbers: Numbers, http2: Iterable[Backend], *, force_https: bool) -> list[Json]:
    """Listener, RouteConfiguration and Clusters of port 80. A backend that is not among `numbers` answers 503."""
    certificates = _certificates(ingress)
    hosts = virtual_hosts(
        ingress, lambda backend: _to(ingress, numbers.get(backend), backend), names=_names(certificates)
    )
    if certificates and ingress.forces_https(default=force_https):
        hosts = https_redirects(hosts, lambda host: _covered(certificates, host))
    return [plain_listener(), _routes(INSECURE, hosts), *_clusters(ingress, numbers, http2)]


def secure_resources(ingress: Ingress, numbers: Numbers, http2: Iterable[Backend]) -> list[Json]:
    """The same of port 443, for names that have a certificate. Empty without any."""
    certificates = _certificates(ingress)
    if not certificates:
        return []
    hosts = virtual_hosts(
        ingress,
        lambda backend: _to(ingress, numbers.get(backend), backend),
        names=_names(certificates),
        serves=lambda host: _covered(certificates, host),
    )
    return [_secure_listener(ingress, certificates), _routes(SECURE, hosts), *_clusters(ingress, numbers, http2)]


def _clusters(ingress: Ingress, numbers: Numbers, http2: Iterable[Backend]) -> list[Json]:
    wanted = {cluster_name(ingress, each, numbers[each]): each for each in numbers}
    http2 = set(http2)
    return [
        _cluster(ingress, name, backend, numbers[backend], http2=backend in http2)
        for name, backend in sorted(wanted.items())
    ]


def cluster_name(ingress: Ingress, backend: Backend, number: int) -> str:
    """The name of a backend's cluster."""
    return f"{ingress.namespace}:{backend.service}:{number}"


def _to(ingress: Ingress, number: int | None, backend: Backend) -> Mapping[str, Any]:
    if number is None:
        return {"directResponse": {"status": 503}}
    return {"route": {"cluster": cluster_name(ingress, backend, number), "timeout": ingress.timeout}}


def _certificates(ingress: Ingress) -> dict[str, tuple[str, ...]]:
    """Secrets with the names they are for ("": every name); of two for one name the first counts."""
    taken: set[str] = set()
    found: dict[str, list[str]] = {}
    for tls in ingress.tls:
        for host in tls.hosts or ("",):
            if host not in taken:
                taken.add(host)
                found.setdefault(tls.secret, []).append(host)
    return {secret: tuple(hosts) for secret, hosts in found.items()}


def _covered(certificates: Mapping[str, tuple[str, ...]], host: str) -> bool:
    """Whether there is a certificate for a host of a rule; "": for those of no host."""
    return bool(_names(certificates) & {"", host, f"*.{host.partition('.')[2]}"})


def _names(certificates: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {name for names in certificates.values() for name in names}


def plain_listener() -> Json:
    """The listener of plain HTTP."""
    return _listener([_chain(INSECURE)])


def _secure_listener(ingress: Ingress, certificates: Mapping[str, tuple[str, ...]]) -> Json:
    """A chain for each certificate, chosen by the name the client asks for."""
    chains: list[Json] = []
    for secret, names in sorted(certificates.items()):
        named = [name for name in names if name]
        if named:
            chains.append(_secure(ingress, secret, {"transportProtocol": "tls", "serverNames": named}))
        if "" in names:
            chains.append(_secure(ingress, secret, {"transportProtocol": "tls"}))
    inspector = {
        "name": "envoy.filters.listener.tls_inspector",
        "typedConfig": {"@type": f"{_TYPE}.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
    }
    return _listener(chains) | {"listenerFilters": [inspector]}


def _listener(chains: list[Json]) -> Json:
    return {"@type": f"{_TYPE}.config.listener.v3.Listener", "name": LISTENER, "filterChains": chains}


def _secure(ingress: Ingress, secret: str, match: Json) -> Json:
    context = {
        "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "commonTlsContext": {
            "alpnProtocols": ["h2", "http/1.1"],
            "tlsCertificateSdsSecretConfigs": [{"name": f"{ingress.namespace}/{secret}"}],
        },
    }
    socket = {"name": "envoy.transport_sockets.tls", "typedConfig": context}
    return _chain(SECURE) | {"filterChainMatch": match, "transportSocket": socket}


def _chain(routes: str) -> Json:
    manager = {
        "@type": _HTTP,
        "statPrefix": routes,
        "rds": {"routeConfigName": routes},
        "useRemoteAddress": True,
        "normalizePath": True,
        "mergeSlashes": True,
        "stripTrailingHostDot": True,
        "upgradeConfigs": [{"upgradeType": "websocket"}],
        "commonHttpProtocolOptions": {"idleTimeout": _IDLE, "headersWithUnderscoresAction": "ALLOW"},
        "httpProtocolOptions": {"acceptHttp10": True},
        "httpFilters": [
            {
                "name": "envoy.filters.http.router",
                # As in policies' listeners (envoy.parts.router).
                "typedConfig": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router", "dynamicStats": False},
            }
        ],
    }
    return {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typedConfig": manager}]}


def _routes(name: str, hosts: list[Json]) -> Json:
    return {
        "@type": f"{_TYPE}.config.route.v3.RouteConfiguration",
        "name": name,
        "ignorePortInHostMatching": True,
        "virtualHosts": hosts,
    }


def _cluster(ingress: Ingress, name: str, backend: Backend, number: int, *, http2: bool) -> Json:
    protocol = {"http2ProtocolOptions": {}} if http2 else {"httpProtocolOptions": {}}
    options = {
        "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "commonHttpProtocolOptions": {"idleTimeout": _IDLE},
        "explicitHttpConfig": protocol,
    }
    return {
        "@type": f"{_TYPE}.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connectTimeout": "5s",
        "lbPolicy": "ROUND_ROBIN",
        "edsClusterConfig": {"serviceName": f"{ingress.namespace}/{backend.service}:{number}"},
        "outlierDetection": {"splitExternalLocalOriginErrors": True},
        "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }
