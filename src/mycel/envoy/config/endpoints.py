"""Endpoints of clusters, from the same services and slices as the kernel's rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mycel.envoy.config.model import Backends, EnvoyConfig, Served
from mycel.envoy.messages import from_json, to_resource
from mycel.envoy.resources import CLUSTER, ENDPOINTS, Resource
from mycel.model.address import format_address
from mycel.model.service import EndpointSlice, Service, ServiceRef
from mycel.plan.rows import Redirect
from mycel.service import balance
from mycel.service.balance import Frontend, FrontendKey

_TCP = 6
Dialled = tuple[tuple[str, int], ...]


def dialled(wanted: Backends, service: Service | None, slices: Iterable[EndpointSlice], node: str) -> Dialled:
    """Addresses and ports of the ready endpoints a cluster has on this node, sorted."""
    if service is None:
        return ()
    found = {
        (backend.key.address, backend.key.port)
        for port, backends in balance.ready(service, slices, node).items()
        if not wanted.ports or str(port.port) in wanted.ports or (port.name and port.name in wanted.ports)
        for backend in backends
    }
    return tuple((format_address(address), port) for address, port in sorted(found))


def assignment(name: str, endpoints: Dialled) -> Resource:
    """A ClusterLoadAssignment; one without endpoints is an answer too."""
    addresses = [
        {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}
        for address, port in endpoints
    ]
    return to_resource(
        from_json(ENDPOINTS, {"cluster_name": name, "endpoints": [{"lb_endpoints": addresses}] if addresses else []})
    )


def wanted(configs: Iterable[EnvoyConfig]) -> dict[str, Backends | None]:
    """The assignments that clusters ask for, by name; None: those that stay empty.

    Each cluster has one of its own, of its very name: Envoy tells nobody what it holds already, so a second cluster of
    one assignment would wait for ever.
    """
    return {
        name: backends
        for config in configs
        for cluster, backends in config.clusters.items()
        for name in (config.ref.qualify(cluster), config.ref.outside.qualify(cluster))
        if name in config.resources.get(CLUSTER, {})
    }


def redirects(
    configs: Iterable[EnvoyConfig],
    frontends: Mapping[FrontendKey, Frontend],
    *,
    listening: Mapping[int, bool],
    before: Mapping[FrontendKey, Redirect],
) -> tuple[dict[FrontendKey, Redirect], dict[tuple[ServiceRef, int], list[EnvoyConfig]]]:
    """Frontend → listeners' ports, and which configs want each service port (the first has it).

    `listening`: listeners that were accepted with all they need; `before`: the redirects there are. A service keeps
    what it had, its backends or another listener, until its listener listens; one that was redirected never goes back
    to its backends while an object names it, whatever has become of the listener.
    """
    by_service: dict[ServiceRef, list[tuple[EnvoyConfig, Served]]] = {}
    for config in configs:
        for each in config.services:
            by_service.setdefault(each.service, []).append((config, each))
    found: dict[FrontendKey, Redirect] = {}
    claims: dict[tuple[ServiceRef, int], list[EnvoyConfig]] = {}
    for key, frontend in frontends.items() if by_service else ():
        if key.protocol != _TCP or frontend.service not in by_service:
            continue
        number = frontend.group.port
        matching = [each for each in by_service[frontend.service] if not each[1].ports or number in each[1].ports]
        if not matching:
            continue
        claims[(frontend.service, number)] = [config for config, _served in matching]
        config, served = matching[0]
        redirect = before.get(key)
        if listening.get(served.port):
            redirect = Redirect(served.port, config.twins.get(served.port, served.port))
        if redirect:
            found[key] = redirect
    return found, claims
