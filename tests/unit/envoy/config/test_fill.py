"""What is filled in, what things are called, and which services an object is about."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.envoy.config.model import Backends, ConfigRef, SecretUse, Served
from mycel.envoy.config.read import read
from mycel.envoy.resources import CLUSTER, LISTENER, ROUTES, SECRET
from mycel.model.service import ServiceRef
from mycel.operator.ingress.model import parse_ingress, service_ports
from mycel.operator.ingress.translate import translate
from mycel.policy.labels import kubernetes_labels

from .objects import TYPE, Json, cluster, config, listener, manager, message, routes, unpack, walkthrough

TLS = TYPE + "extensions.transport_sockets.tls.v3."


def the(item: Json, kind: Any, name: str = "") -> Any:
    """The message of a resource, by its qualified name or as the only one."""
    found = read(item, lambda _name: 20777).resources[kind]
    return message(kind, found[name] if name else next(iter(found.values())))


def manager_of(item: Json) -> Any:
    return unpack(the(item, LISTENER).filter_chains[0].filters[0].typed_config)


def test_the_walkthroughs_listener_as_it_stands():
    item = walkthrough("envoy-lb-listener.yaml")
    found = read(item, lambda _name: 20777)
    prefix = "cilium-test/envoy-lb-listener/"
    assert {kind: set(names) for kind, names in found.resources.items()} == {
        LISTENER: {prefix + "envoy-lb-listener"},
        ROUTES: {prefix + "lb_route"},
        CLUSTER: {prefix + "cilium-test/echo-same-node", prefix + "cilium-test/echo-other-node"},
    }
    services = [ServiceRef("cilium-test", "echo-other-node"), ServiceRef("cilium-test", "echo-same-node")]
    assert found.services == tuple(Served(each, frozenset(), 20777) for each in services)
    assert set(found.clusters.values()) == {Backends(each) for each in services}
    assert not found.unresolved
    route = the(item, ROUTES).virtual_hosts[0].routes[0].route
    assert [each.name for each in route.weighted_clusters.clusters] == [
        prefix + "cilium-test/echo-same-node",
        prefix + "cilium-test/echo-other-node",
    ]
    assert not route.regex_rewrite.pattern.HasField("google_re2")
    assert route.regex_rewrite.pattern.regex == "^/foo.*$"
    assert route.retry_policy.num_retries.value == 3


def test_the_walkthroughs_listener_without_a_namespace_is_accepted_and_serves_nobody():
    item = walkthrough("envoy-lb-listener.yaml")
    del item["metadata"]["namespace"]
    found = read(item)
    assert found.ref == ConfigRef("default", "envoy-lb-listener")
    assert not found.services
    assert set(found.clusters.values()) == {None}
    assert len(found.unresolved) == 2
    assert "cilium-test/echo-same-node" in found.unresolved[1]
    assert "kubectl -n cilium-test" in found.unresolved[1]
    assert "CiliumClusterwideEnvoyConfig" in found.unresolved[1]


def test_a_listener_gets_its_place_and_keeps_the_client():
    made = the(config(), LISTENER)
    place = made.address.socket_address
    assert (place.address, place.port_value, made.transparent.value) == ("192.0.0.8", 20777, True)
    mark, *keepalive = [(each.level, each.name, each.int_value) for each in made.socket_options]
    assert (mark, len(keepalive)) == ((1, 36, 0xA00), 4)
    assert [each.name for each in made.listener_filters] == ["original_dst", "original_src"]
    assert unpack(made.listener_filters[1].typed_config).mark == 20777 << 16 | 0xB00


def test_a_users_transparency_is_replaced_and_its_other_filters_stay_behind_it():
    mine = [
        {"name": "mine", "typed_config": {"@type": TYPE + "extensions.filters.listener.original_src.v3.OriginalSrc"}},
        {"name": "envoy.filters.listener.original_dst"},
        {"name": "envoy.filters.listener.tls_inspector"},
    ]
    made = the(config(listener(listener_filters=mine, transparent=False), routes(), cluster()), LISTENER)
    names = [each.typed_config.type_url.rpartition(".")[2] for each in made.listener_filters]
    assert names == ["OriginalDst", "OriginalSrc", "TlsInspector"]
    assert unpack(made.listener_filters[1].typed_config).mark == 20777 << 16 | 0xB00
    assert made.transparent.value


def test_http_is_filled_in_and_logged():
    made = manager_of(config())
    assert made.rds.route_config_name == "shop/mesh/routes"
    assert made.rds.config_source.HasField("ads")
    assert made.http_filters[0].typed_config.type_url == TYPE + "extensions.filters.http.router.v3.Router"
    assert (made.normalize_path.value, made.merge_slashes, made.use_remote_address.value) == (True, True, True)
    assert made.stat_prefix == "shop/mesh/listener"
    (log,) = made.access_log
    assert made.access_log_options.flush_log_on_tunnel_successfully_established  # else WebSockets were never logged
    assert unpack(log.typed_config).common_config.grpc_service.envoy_grpc.cluster_name == "agent"


def test_what_people_say_of_http_stays():
    said = manager(normalize_path=False, use_remote_address=False, stat_prefix="mine", server_name="shop")
    made = manager_of(config(listener(filters=[said]), routes(), cluster()))
    assert (made.normalize_path.value, made.merge_slashes, made.use_remote_address.value) == (False, False, False)
    assert (made.stat_prefix, made.server_name) == ("mine", "shop")


def test_a_cluster_is_bound_to_a_services_endpoints():
    made = the(config(), CLUSTER)
    assert (made.name, made.eds_cluster_config.service_name) == ("shop/mesh/shop/api", "shop/mesh/shop/api")
    assert made.eds_cluster_config.eds_config.HasField("ads")
    (option,) = made.upstream_bind_config.socket_options
    assert (option.level, option.name, option.int_value) == (0, 51, 29999 << 16 | 16384)
    assert not made.upstream_bind_config.HasField("source_address")
    (options,) = made.typed_extension_protocol_options.values()
    assert unpack(options).HasField("use_downstream_protocol_config")


@pytest.mark.parametrize(
    ("fields", "spec", "wanted"),
    [
        ({"name": "shop/api:8080"}, {}, "shop/api:8080"),
        ({"name": "shop/api:http"}, {}, "shop/api:http"),
        ({"name": "web", "edsClusterConfig": {"serviceName": "shop/api:80"}}, {}, "shop/api:80"),
        ({}, {"backendServices": [{"name": "api", "number": ["80", "http"]}]}, "shop/api:80,http"),
        ({"name": "shop/api:81"}, {"backendServices": [{"name": "api", "number": ["80"]}]}, "shop/api:81"),
        ({}, {"backendServices": [{"name": "api", "namespace": "shop"}]}, "shop/api"),
    ],
)
def test_whose_endpoints(fields: Json, spec: Json, wanted: str):
    resource = cluster() | fields
    item = config(listener(), routes(cluster=resource["name"]), resource, **spec)
    assert str(read(item).clusters[resource["name"]]) == wanted


@pytest.mark.parametrize("field", ["http2_protocol_options", "typed_extension_protocol_options"])
def test_a_protocol_people_chose_stays(field: str):
    options = TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions"
    typed = {"@type": options, "explicit_http_config": {"http2_protocol_options": {}}}
    value = {options.partition("/")[2]: typed} if field.startswith("typed") else {}
    made = the(config(listener(), routes(), cluster() | {field: value}), CLUSTER)
    assert all(unpack(each).HasField("explicit_http_config") for each in made.typed_extension_protocol_options.values())
    assert bool(made.typed_extension_protocol_options) == field.startswith("typed")


def test_clusters_of_a_tcp_proxy_are_named():
    kind = TYPE + "extensions.filters.network.tcp_proxy.v3.TcpProxy"
    proxy = {"@type": kind, "weighted_clusters": {"clusters": [{"name": "shop/api", "weight": 1}]}}
    item = config(listener(filters=[{"name": "tcp", "typed_config": proxy}]), cluster())
    made = unpack(the(item, LISTENER).filter_chains[0].filters[0].typed_config)
    assert [each.name for each in made.weighted_clusters.clusters] == ["shop/mesh/shop/api"]
    assert made.stat_prefix == "shop/mesh/listener"


def secured(*names: str, authority: str = "") -> Json:
    """A config whose listener has TLS by these Secrets."""
    common: Json = {"tls_certificate_sds_secret_configs": [{"name": name} for name in names]}
    if authority:
        common["validation_context_sds_secret_config"] = {"name": authority}
    socket = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": TLS + "DownstreamTlsContext", "common_tls_context": common},
    }
    made = listener()
    made["filter_chains"][0]["transport_socket"] = socket
    return config(made, routes(), cluster())


def test_secrets_of_the_objects_own_namespace_are_used():
    item = secured("shop/web", "plain", authority="shop/ca")
    assert read(item).secrets == {
        SecretUse("shop", "web", authority=False),
        SecretUse("shop", "plain", authority=False),
        SecretUse("shop", "ca", authority=True),
    }
    common = unpack(the(item, LISTENER).filter_chains[0].transport_socket.typed_config).common_tls_context
    names = [each.name for each in common.tls_certificate_sds_secret_configs]
    assert names == ["shop/web", "shop/plain"]
    assert common.validation_context_sds_secret_config.name == "shop/ca:ca"
    assert all(each.sds_config.HasField("ads") for each in common.tls_certificate_sds_secret_configs)


def test_secrets_of_other_namespaces_are_not():
    found = read(secured("bank/web"))
    assert not found.secrets
    assert found.unresolved == ("Secret bank/web is in another namespace than this object (shop)",)


def test_a_secret_among_the_resources_is_the_objects_own():
    secret = {"@type": TLS + "Secret", "name": "own", "tls_certificate": {"certificate_chain": {"inline_string": "x"}}}
    item = secured("own")
    item["spec"]["resources"].append(secret)
    assert set(read(item).resources[SECRET]) == {"shop/mesh/own"}
    assert not read(item).secrets


def test_a_clusterwide_object_names_what_it_wants_and_collides_with_nobody():
    item = config(namespace="", services=[{"name": "api", "namespace": "shop", "ports": [80]}])
    found = read(item, lambda _name: 20001)
    assert found.ref == ConfigRef("", "mesh")
    assert set(found.resources[CLUSTER]) == {"/mesh/shop/api"}
    assert found.services == (Served(ServiceRef("shop", "api"), frozenset({80}), 20001),)
    assert not found.unresolved


def test_services_choose_among_listeners():
    item = config(
        listener("first"),
        listener("second"),
        routes(),
        cluster(),
        services=[{"name": "api"}, {"name": "web", "listener": "second", "ports": [80, 81]}],
    )
    found = read(item, {"first": 20001, "second": 20002}.__getitem__)
    assert found.listeners == {"first": 20001, "second": 20002}
    assert found.services == (
        Served(ServiceRef("shop", "api"), frozenset(), 20001),
        Served(ServiceRef("shop", "web"), frozenset({80, 81}), 20002),
    )


def test_nodes_are_selected_by_their_labels():
    found = read(config(nodeSelector={"matchLabels": {"zone": "a"}}))
    assert found.nodes.matches(kubernetes_labels({"zone": "a"}))
    assert not found.nodes.matches(kubernetes_labels({"zone": "b"}))
    assert read(config()).nodes.matches(kubernetes_labels({}))


def test_what_the_operator_makes_of_an_ingress_is_understood():
    backend = {"service": {"name": "foo", "port": {"number": 80}}}
    item = {
        "metadata": {"namespace": "shop", "name": "web", "uid": "u"},
        "spec": {
            "tls": [{"hosts": ["a.example"], "secretName": "cert"}],
            "rules": [
                {"host": "a.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
            ],
        },
    }
    made = translate(parse_ingress(item), {"foo": service_ports({"ports": [{"port": 80}]})})
    for body, secrets in ((made.config, set[SecretUse]()), (made.secure, {SecretUse("shop", "cert", authority=False)})):
        assert body is not None
        found = read({"kind": "CiliumEnvoyConfig"} | body)
        assert found.clusters == {"shop:foo:80": Backends(ServiceRef("shop", "foo"), ("80",))}
        assert found.secrets == secrets
        assert len(found.services) == len(found.resources[ROUTES]) == 1


def test_clients_of_the_outside_have_resources_of_their_own():
    """They are dialled for from the node's ingress address, unjudged; nobody else is, and nothing else differs."""
    item = config()
    item["metadata"]["labels"] = {"cilium.io/use-original-source-address": "false"}
    ports = {"listener": 20001, "listener@outside": 20002}
    found = read(item, ports.__getitem__, ingress="10.244.1.254")
    assert (found.listeners, found.twins) == ({"listener": 20001}, {20001: 20002})
    plain = read(config(), ports.__getitem__, ingress="10.244.1.254").resources
    assert {kind: {name for name in names if "@" not in name} for kind, names in found.resources.items()} == {
        kind: set(names) for kind, names in plain.items()
    }
    assert all(names.items() >= plain[kind].items() for kind, names in found.resources.items())
    prefix = "shop/mesh@outside/"
    assert {kind: names.keys() - plain[kind].keys() for kind, names in found.resources.items()} == {
        LISTENER: {prefix + "listener"},
        ROUTES: {prefix + "routes"},
        CLUSTER: {prefix + "shop/api"},
    }
    outer = message(LISTENER, found.resources[LISTENER][prefix + "listener"])
    assert outer.address.socket_address.port_value == 20002
    assert [each.name for each in outer.listener_filters] == ["original_dst"]
    manager = unpack(outer.filter_chains[0].filters[0].typed_config)
    assert manager.rds.route_config_name == prefix + "routes"
    route = message(ROUTES, found.resources[ROUTES][prefix + "routes"])
    assert route.virtual_hosts[0].routes[0].route.cluster == prefix + "shop/api"
    there = message(CLUSTER, found.resources[CLUSTER][prefix + "shop/api"])
    assert there.eds_cluster_config.service_name == prefix + "shop/api"
    assert there.upstream_bind_config.source_address.address == "10.244.1.254"
    marks = [each.int_value for each in there.upstream_bind_config.socket_options if (each.level, each.name) == (1, 36)]
    assert marks == [0xB00]
    assert read(item, ports.__getitem__).twins == read(config(), ports.__getitem__, ingress="10.244.1.254").twins == {}


def test_equal_objects_make_equal_resources():
    assert read(config()) == read(config())
