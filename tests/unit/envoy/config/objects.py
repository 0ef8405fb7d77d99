"""Objects as people write them, to be changed by a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mycel.envoy.messages import message_class
from mycel.envoy.resources import Resource, TypeUrl

TYPE = "type.googleapis.com/envoy."
MANAGER = TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = TYPE + "extensions.filters.http.router.v3.Router"
Json = dict[str, Any]


def manager(**more: Any) -> Json:
    """A filter: an HTTP connection manager with its routes by name."""
    config = {"@type": MANAGER, "rds": {"route_config_name": "routes"}, "http_filters": [router()]} | more
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def router() -> Json:
    return {"name": "envoy.filters.http.router"}


def listener(name: str = "listener", *, filters: list[Json] | None = None, **more: Any) -> Json:
    chain = {"filters": [manager()] if filters is None else filters}
    return {"@type": TYPE + "config.listener.v3.Listener", "name": name, "filter_chains": [chain]} | more


def routes(name: str = "routes", *, cluster: str = "shop/api", route: Json | None = None, **more: Any) -> Json:
    action = {"match": {"prefix": "/"}, "route": {"cluster": cluster} if route is None else route}
    host = {"name": "all", "domains": ["*"], "routes": [action]}
    return {"@type": TYPE + "config.route.v3.RouteConfiguration", "name": name, "virtual_hosts": [host]} | more


def cluster(name: str = "shop/api", **more: Any) -> Json:
    return {"@type": TYPE + "config.cluster.v3.Cluster", "name": name, "type": "EDS"} | more


def config(*resources: Json, namespace: str = "shop", name: str = "mesh", **spec: Any) -> Json:
    """A CiliumEnvoyConfig; without resources it has a listener, routes and a cluster. No namespace: clusterwide."""
    found = list(resources) or [listener(), routes(), cluster()]
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    kind = "CiliumEnvoyConfig" if namespace else "CiliumClusterwideEnvoyConfig"
    return {"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": {"resources": found} | spec}


def message(kind: TypeUrl, resource: Resource) -> Any:
    """A resource's message."""
    return message_class(kind.rpartition("/")[2]).FromString(resource.body)


def unpack(packed: Any) -> Any:
    """What an Any has in it."""
    return message_class(packed.type_url.rpartition("/")[2]).FromString(packed.value)


def walkthrough(name: str) -> Json:
    """An object of the examples' manifests."""
    import yaml

    return yaml.safe_load((Path(__file__).parents[4] / "examples" / name).read_text())
