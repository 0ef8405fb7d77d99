"""Endpoints of clusters, and when a service's connections go to a listener."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mycel.envoy.config.endpoints import assignment, dialled, redirects, wanted
from mycel.envoy.config.model import Backends, EnvoyConfig
from mycel.envoy.config.read import read
from mycel.envoy.resources import ENDPOINTS
from mycel.model.address import parse_address
from mycel.model.service import EndpointSlice, Protocol, Service, ServicePort, ServiceRef, SliceEndpoint, SlicePort
from mycel.plan.rows import Redirect
from mycel.service.balance import FrontendKey, balance

from .objects import Json, cluster, config, listener, message, routes

REF = ServiceRef("shop", "api")
HTTP, ADMIN, DNS = (
    ServicePort("http", Protocol.TCP, 80, 30080),
    ServicePort("admin", Protocol.TCP, 81, 0),
    ServicePort("dns", Protocol.UDP, 53, 0),
)
SERVICE = Service(
    ref=REF,
    cluster_addresses=("10.96.0.5",),
    external_addresses=(),
    ingress_addresses=("172.18.250.1",),
    ports=(HTTP, ADMIN, DNS),
    ip_families=(4,),
    affinity_s=0,
    local_external=False,
    local_internal=False,
)
ENDS = (
    SliceEndpoint("10.244.1.9", "n1", ready=True, serving=True, terminating=False),
    SliceEndpoint("10.244.2.7", "n2", ready=True, serving=True, terminating=False),
    SliceEndpoint("10.244.2.8", "n2", ready=False, serving=True, terminating=True),
    SliceEndpoint("10.244.2.9", "n2", ready=False, serving=False, terminating=False),
)
PORTS = (
    SlicePort("http", Protocol.TCP, 8080),
    SlicePort("admin", Protocol.TCP, 8081),
    SlicePort("dns", Protocol.UDP, 5353),
)
SLICE = EndpointSlice(REF, "api-1", PORTS, ENDS)


@pytest.mark.parametrize(
    ("ports", "wanted_ports"),
    [((), (8080, 8081)), (("80",), (8080,)), (("admin",), (8081,)), (("53",), ()), (("9",), ())],
)
def test_ready_endpoints_of_the_ports_asked_for(ports: tuple[str, ...], wanted_ports: tuple[int, ...]):
    found = dialled(Backends(REF, ports), SERVICE, [SLICE], "n1")
    assert found == tuple((address, port) for address in ("10.244.1.9", "10.244.2.7") for port in wanted_ports)


def test_terminating_ones_stand_in_for_nobody():
    going = replace(SLICE, endpoints=ENDS[2:])
    assert dialled(Backends(REF), SERVICE, [going], "n1") == ()
    assert len(balance([SERVICE], [going], "n1")[FrontendKey(parse_address("10.96.0.5"), 80, 6)].backends) == 1


def test_a_headless_service_has_endpoints_and_one_that_is_gone_none():
    headless = replace(SERVICE, cluster_addresses=(), ports=(HTTP,))
    assert dialled(Backends(REF), headless, [SLICE], "n1") == (("10.244.1.9", 8080), ("10.244.2.7", 8080))
    assert dialled(Backends(REF), None, [SLICE], "n1") == ()


def test_a_service_that_stays_on_the_node_does():
    assert dialled(Backends(REF, ("80",)), replace(SERVICE, local_internal=True), [SLICE], "n2") == (
        ("10.244.2.7", 8080),
    )


def test_an_assignment():
    made = message(ENDPOINTS, assignment("shop/api", (("10.244.1.9", 8080), ("fd00::1", 80))))
    places = [each.endpoint.address.socket_address for each in made.endpoints[0].lb_endpoints]
    assert made.cluster_name == "shop/api"
    assert [(each.address, each.port_value) for each in places] == [("10.244.1.9", 8080), ("fd00::1", 80)]
    assert not message(ENDPOINTS, assignment("shop/api", ())).endpoints


def test_clusters_that_may_not_have_endpoints_ask_for_an_assignment_of_their_own():
    first = read(config())
    second = read(config(listener(), routes(cluster="bank/api"), cluster("bank/api"), name="other"))
    assert wanted([first, second]) == {"shop/mesh/shop/api": Backends(REF), "shop/other/bank/api": None}


def test_no_two_clusters_share_an_assignment():
    found = wanted([read(config(name=name)) for name in ("a", "b")])
    assert found == {"shop/a/shop/api": Backends(REF), "shop/b/shop/api": Backends(REF)}
    item = config(name="a")
    item["metadata"]["labels"] = {"cilium.io/use-original-source-address": "false"}
    twins = read(item, ingress="10.244.0.254")
    assert wanted([twins]) == {"shop/a/shop/api": Backends(REF), "shop/a@outside/shop/api": Backends(REF)}


FRONTENDS = balance([SERVICE], [SLICE], "n1")
CLUSTER_IP, LOAD_BALANCER, ADMIN_IP = (
    FrontendKey(parse_address("10.96.0.5"), 80, 6),
    FrontendKey(parse_address("172.18.250.1"), 80, 6),
    FrontendKey(parse_address("10.96.0.5"), 81, 6),
)


TO_FIRST, TO_OTHER = Redirect(20001, 20001), Redirect(20009, 20010)


def serving(name: str, port: int, **entry: object) -> EnvoyConfig:
    item: Json = config(name=name, services=[{"name": "api"} | entry])
    return read(item, lambda _name: port)


def test_every_tcp_frontend_of_a_service_goes_to_its_listener():
    found, _ = redirects([serving("a", 20001)], FRONTENDS, listening={20001: True}, before={})
    assert {key for key in FRONTENDS if key.protocol == 6} == set(found)
    assert set(found.values()) == {Redirect(20001, 20001)}


def test_only_the_ports_named_do_whichever_way_they_are_reached():
    found, _ = redirects([serving("a", 20001, ports=[80])], FRONTENDS, listening={20001: True}, before={})
    assert {CLUSTER_IP, LOAD_BALANCER} < set(found)
    assert ADMIN_IP not in found
    assert {key.port for key in found} == {80, 30080}


@pytest.mark.parametrize(
    ("listening", "before", "redirect"),
    [
        ({}, {}, None),  # new: goes on as a plain service until its listener is there
        ({20001: False}, {}, None),
        ({20001: True}, {}, TO_FIRST),
        (
            {},
            {CLUSTER_IP: TO_FIRST},
            TO_FIRST,
        ),  # redirected: never back to the backends, whatever became of the listener
        ({20001: False}, {CLUSTER_IP: TO_OTHER}, TO_OTHER),  # another listener: from one to the other
        ({20001: True}, {CLUSTER_IP: TO_OTHER}, TO_FIRST),
    ],
)
def test_a_service_keeps_what_it_had_until_its_listener_listens(
    listening: dict[int, bool], before: dict[FrontendKey, Redirect], redirect: Redirect | None
):
    found, _ = redirects([serving("a", 20001)], FRONTENDS, listening=listening, before=before)
    assert found.get(CLUSTER_IP) == redirect


def test_a_service_that_is_named_no_more_goes_back_to_its_backends():
    assert redirects([], FRONTENDS, listening={20001: True}, before={CLUSTER_IP: TO_FIRST}) == ({}, {})


def test_of_two_objects_the_first_has_a_service():
    first, second = serving("a", 20001, ports=[80]), serving("b", 20002)
    found, claims = redirects([first, second], FRONTENDS, listening={20001: True, 20002: True}, before={})
    assert (found[CLUSTER_IP].port, found[ADMIN_IP].port) == (20001, 20002)
    assert claims[(REF, 80)] == [first, second]
    assert claims[(REF, 81)] == [second]


def test_clients_of_the_outside_go_to_the_twin():
    item: Json = config(services=[{"name": "api"}])
    item["metadata"]["labels"] = {"cilium.io/use-original-source-address": "false"}
    made = read(item, {"listener": 20001, "listener@outside": 20002}.__getitem__, ingress="10.244.1.254")
    found, _ = redirects([made], FRONTENDS, listening={20001: True}, before={})
    assert found[LOAD_BALANCER] == Redirect(20001, 20002)
