"""What users may not say: each is refused with the field's path, and nothing of it reaches Envoy."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.envoy.config.read import read
from mycel.envoy.config.refuse import ALLOWED
from mycel.envoy.messages import message_class
from mycel.policy.errors import PolicyInvalid

from .objects import MANAGER, ROUTER, TYPE, Json, cluster, config, listener, manager, router, routes

TLS = TYPE + "extensions.transport_sockets.tls.v3."
ADDRESS = {"socket_address": {"address": "0.0.0.0", "port_value": 6443}}
OPTION = {"level": 1, "name": 36, "int_value": 0xD00}
FILE_LOG = {"@type": TYPE + "extensions.access_loggers.file.v3.FileAccessLog", "path": "/x"}
LOG = {"name": "x", "typed_config": FILE_LOG}


def of_listener(**fields: Any) -> Json:
    return config(listener(**fields), routes(), cluster())


def of_manager(**fields: Any) -> Json:
    return config(listener(filters=[manager(**fields)]), routes(), cluster())


def of_filter(typed: Json) -> Json:
    return of_manager(http_filters=[{"name": "x", "typed_config": typed}, router()])


def of_route(**route: Any) -> Json:
    return config(listener(), routes(route=route), cluster())


def of_action(**action: Any) -> Json:
    made = routes()
    made["virtual_hosts"][0]["routes"] = [{"match": {"prefix": "/"}} | action]
    return config(listener(), made, cluster())


def of_cluster(**fields: Any) -> Json:
    return config(listener(), routes(), cluster(**fields))


def of_tls(**common: Any) -> Json:
    typed = {"@type": TLS + "UpstreamTlsContext", "common_tls_context": common}
    return of_cluster(transport_socket={"name": "tls", "typed_config": typed})


def of_resource(kind: str, **fields: Any) -> Json:
    return config(listener(), routes(), cluster(), {"@type": kind} | fields)


def regex(pattern: str) -> Json:
    return of_action(match={"safe_regex": {"regex": pattern}}, route={"cluster": "shop/api"})


REFUSED: tuple[tuple[str, Json, str, str], ...] = (
    # what is no resource of ours
    ("unknown type", of_resource(TYPE + "config.bootstrap.v3.Bootstrap"), "spec.resources[3].@type", "it may be"),
    ("no type", config({"name": "x"}), "spec.resources[0].@type", "string"),
    ("made-up type", of_resource("type.googleapis.com/cilium.L7", name="x"), "spec.resources[3].@type", "it may be"),
    ("endpoints", of_resource(TYPE + "config.endpoint.v3.ClusterLoadAssignment"), "resources[3].@type", "Services"),
    ("a field that is not", of_listener(adress=ADDRESS), "spec.resources[0]", "adress"),
    ("a wrong value", of_cluster(connect_timeout="soon"), "spec.resources[2]", "connect_timeout"),
    ("no name", config(listener("")), "spec.resources[0].name", "printable"),
    ("a long name", config(listener("x" * 300)), "spec.resources[0].name", "256"),
    ("two of a name", config(listener(), listener()), "spec.resources[1].name", "another Listener"),
    ("no resources", {"kind": "CiliumEnvoyConfig", "metadata": {"name": "x"}}, "spec.resources", "missing"),
    ("unknown field", config(resource=[]), "spec.resource", "no such field"),
    ("a list", config() | {"spec": []}, "spec", "mapping"),
    ("too many", config(*[cluster(f"shop/s{i}") for i in range(1001)]), "spec.resources", "1000"),
    # the node's sockets, and what tells the kernel whose connection it is
    ("own address", of_listener(address=ADDRESS), "spec.resources[0].address", "leave it out"),
    ("a pipe", of_listener(address={"pipe": {"path": "/x"}}), "spec.resources[0].address", "leave it out"),
    ("more addresses", of_listener(additional_addresses=[{"address": ADDRESS}]), "additional_addresses", "not for"),
    ("an inner listener", of_listener(internal_listener={}), "internal_listener", "not for users"),
    ("an API listener", of_listener(api_listener={}), "api_listener", "not for users"),
    ("other listeners", of_listener(use_original_dst=True), "use_original_dst", "not for users"),
    ("a mark", of_listener(socket_options=[OPTION]), "spec.resources[0].socket_options", "set by the mesh"),
    ("listener's log", of_listener(access_log=[LOG]), "spec.resources[0].access_log", "not for users"),
    ("a mark upstream", of_cluster(upstream_bind_config={"socket_options": [OPTION]}), "upstream_bind_config", "mesh"),
    ("a source", of_cluster(upstream_bind_config={"source_address": {"address": "1.2.3.4"}}), "upstream_bind", "mesh"),
    # where connections go
    ("static", of_cluster(type="STATIC"), "spec.resources[2].type", "EDS"),
    ("by name", of_cluster(type="STRICT_DNS"), "spec.resources[2].type", "EDS"),
    ("by original", of_cluster(type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED"), "spec.resources[2].type", "EDS"),
    ("own endpoints", of_cluster(load_assignment={"cluster_name": "x"}), "load_assignment", "Services"),
    ("custom", config(cluster() | {"type": None, "cluster_type": {"name": "x"}}), "cluster_type", "not for users"),
    ("no service", config(cluster("api")), "spec.resources[0].name", "namespace/service"),
    ("no service", of_cluster(eds_cluster_config={"service_name": "a/b/c"}), "service_name", "namespace/service"),
    ("no port", config(cluster("shop/api:")), "spec.resources[0].name", "namespace/service:port"),
    ("probes", of_cluster(health_checks=[{"timeout": "1s"}]), "health_checks", "outlier_detection"),
    ("ahead", of_cluster(preconnect_policy={}), "preconnect_policy", "dial as itself"),
    ("another server", of_cluster(lrs_server={"self": {}}), "lrs_server", "not for users"),
    ("another's cluster", of_route(cluster="original-destination"), "route.cluster", "no Cluster of that name"),
    ("agent", of_route(cluster="agent"), "virtual_hosts[0].routes[0].route.cluster", "no Cluster of that name"),
    ("by header", of_route(cluster_header="x"), "route.cluster_header", "name it"),
    ("by plugin", of_route(cluster_specifier_plugin="x"), "cluster_specifier_plugin", "name it"),
    (
        "weighted by header",
        of_route(weighted_clusters={"clusters": [{"cluster_header": "x", "weight": 1}]}),
        "weighted_clusters.clusters[0].cluster_header",
        "name it",
    ),
    (
        "a shadow",
        of_route(cluster="shop/api", request_mirror_policies=[{"cluster": "shop/api"}]),
        "request_mirror_policies[0]",
        "past the client's policy",
    ),
    ("other routes", of_manager(rds={"route_config_name": "other"}), "rds.route_config_name", "no RouteConfiguration"),
    ("scoped", of_manager(rds=None, scoped_routes={"name": "x"}), "scoped_routes", "rds"),
    # other servers and files
    ("files", of_manager(rds={"route_config_name": "routes", "config_source": {"path": "/x"}}), "path", "file"),
    (
        "a server",
        of_manager(rds={"route_config_name": "routes", "config_source": {"api_config_source": {"api_type": "GRPC"}}}),
        "rds.config_source.api_config_source",
        "another server",
    ),
    ("a log", of_manager(access_log=[LOG]), "typed_config.access_log[0]", "mycel hubble observe"),
    (
        "the agent's log",
        of_filter({"@type": ROUTER, "upstream_log": [{"name": "x"}]}),
        "http_filters[0].typed_config.upstream_log[0]",
        "mycel hubble observe",
    ),
    (
        "found at run time",
        of_manager(http_filters=[{"name": "x", "config_discovery": {"config_source": {"ads": {}}}}]),
        "http_filters[0].config_discovery",
        "another server",
    ),
    ("Lua", of_filter({"@type": TYPE + "extensions.filters.http.lua.v3.Lua"}), "spec.resources[0]", "lua"),
    ("Wasm", of_filter({"@type": TYPE + "extensions.filters.http.wasm.v3.Wasm"}), "spec.resources[0]", "wasm"),
    ("a log as a filter", of_filter(FILE_LOG), "http_filters[0].typed_config", "not allowed"),
    ("a bootstrap", of_filter({"@type": TYPE + "config.bootstrap.v3.Bootstrap"}), "typed_config", "not allowed"),
    ("a file's body", of_action(direct_response={"status": 200, "body": {"filename": "/x"}}), "body.filename", "file"),
    (
        "a variable's",
        of_action(direct_response={"status": 200, "body": {"environment_variable": "X"}}),
        "body.environment_variable",
        "file",
    ),
    (
        "a file in a reply",
        of_manager(local_reply_config={"body_format": {"text_format": "%FILE_CONTENT(/etc/shadow)%"}}),
        "local_reply_config.body_format.text_format",
        "%FILE_CONTENT",
    ),
    (
        "a variable in a reply",
        of_manager(local_reply_config={"body_format": {"json_format": {"a": {"b": ["%ENVIRONMENT(X)%"]}}}}),
        "json_format",
        "%ENVIRONMENT",
    ),
    (
        "a file in bytes",
        of_manager(
            local_reply_config={"body_format": {"text_format_source": {"inline_bytes": "JUZJTEVfQ09OVEVOVCgvKSU="}}}
        ),
        "inline_bytes",
        "%FILE_CONTENT",
    ),
    # TLS
    ("a key file", of_tls(tls_certificates=[{"private_key": {"filename": "/x"}}]), "private_key.filename", "file"),
    ("a key log", of_tls(key_log={"path": "/x"}), "common_tls_context.key_log", "keys"),
    ("a watched folder", of_tls(validation_context={"watched_directory": {"path": "/"}}), "watched_directory", "file"),
    ("no secret", of_tls(tls_certificate_sds_secret_configs=[{"name": "a/b/c"}]), "[0].name", "namespace/name"),
    # regular expressions
    ("no expression", regex("("), "match.safe_regex.regex", "not a regular expression"),
    ("a look ahead", regex("(?!x)"), "safe_regex.regex", "not a regular expression"),
    ("a long one", regex("x" * 5000), "safe_regex.regex", "5000 characters"),
    ("a big one", regex("((a{1,30}){1,30})"), "safe_regex.regex", "steps"),
    # services
    ("no listener", config(cluster(), services=[{"name": "api"}]), "spec.services[0]", "no Listener"),
    ("other listener", config(services=[{"name": "api", "listener": "x"}]), "spec.services[0].listener", "no Listener"),
    ("a port", config(services=[{"name": "api", "ports": [0]}]), "spec.services[0].ports[0]", "1 to 65535"),
    ("clusterwide", config(namespace="", services=[{"name": "api"}]), "spec.services[0].namespace", "missing"),
    ("misspelt", config(backendServices=[{"name": "a", "numbers": []}]), "spec.backendServices[0].numbers", "no such"),
    ("a selector", config(nodeSelector={"matchLabel": {}}), "spec.nodeSelector.matchLabel", "no such field"),
)


@pytest.mark.parametrize(("item", "path", "why"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
def test_refused_with_the_field(item: Json, path: str, why: str):
    with pytest.raises(PolicyInvalid) as refused:
        read(item)
    assert path in refused.value.path
    assert refused.value.path.startswith("spec")
    assert why in str(refused.value)


@pytest.mark.parametrize("field", ["request_headers_to_add", "response_headers_to_add"])
def test_headers_do_not_read_files(field: str):
    made = routes() | {field: [{"header": {"key": "x", "value": "%FILE_CONTENT(/etc/shadow)%"}}]}
    with pytest.raises(PolicyInvalid, match=r"header\.value: %FILE_CONTENT"):
        read(config(listener(), made, cluster()))


def test_what_is_packed_in_what_is_packed_is_looked_at():
    inner: Json = {"@type": MANAGER}
    outer = {"@type": ROUTER, "upstream_http_filters": [{"name": "y", "typed_config": inner}]}
    chain: list[Json] = [{"name": "x", "typed_config": outer}]
    assert read(of_manager(http_filters=chain))
    inner["access_log"] = [LOG]
    with pytest.raises(PolicyInvalid, match="mycel hubble observe"):
        read(of_manager(http_filters=chain))


def test_depth_is_bounded():
    rules: Json = {"any": True}
    for _ in range(3000):
        rules = {"not_id": rules}
    policy = {"principals": [rules], "permissions": [{"any": True}]}
    rbac = {"@type": TYPE + "extensions.filters.http.rbac.v3.RBAC", "rules": {"policies": {"x": policy}}}
    with pytest.raises(PolicyInvalid, match=r"spec\.resources\[0\]"):
        read(of_filter(rbac))


def test_what_is_allowed_is_known():
    """Each type on the list is one of Envoy's, and none can be reached that is not on it."""
    assert {message_class(name).DESCRIPTOR.full_name for name in ALLOWED} == ALLOWED
