"""Services and slices → frontends and backends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mycel.abi import ServiceFlags
from mycel.model.address import ANY_IPV4, format_address, parse_address
from mycel.model.service import (
    EndpointSlice,
    Protocol,
    Service,
    ServicePort,
    ServiceRef,
    SliceEndpoint,
    SlicePort,
)
from mycel.service.balance import BackendState, FrontendKey, balance, frontends

REF = ServiceRef("shop", "web")
SERVICE = Service(
    ref=REF,
    cluster_addresses=("10.96.0.5",),
    external_addresses=(),
    ingress_addresses=(),
    ports=(ServicePort("http", Protocol.TCP, 80, 30080),),
    ip_families=(4,),
    affinity_s=0,
    local_external=False,
    local_internal=False,
)


def target(address: str, node: str = "n1", state: str = "ready") -> SliceEndpoint:
    """`state`: ready, unready, draining (terminating and serving), gone (terminating)."""
    return SliceEndpoint(address, node, state == "ready", state in ("ready", "draining"), state in ("draining", "gone"))


def slice_of(*targets: SliceEndpoint, name: str = "web-1", port: int = 8080) -> EndpointSlice:
    return EndpointSlice(REF, name, (SlicePort("http", Protocol.TCP, port),), targets)


def shown(service: Service, *slices: EndpointSlice, node: str = "n1") -> dict[str, list[str]]:
    """Frontend → backends, as text."""
    return {
        f"{format_address(each.key.address)}:{each.key.port}": [
            f"{format_address(backend.key.address)}:{backend.key.port}" for backend in each.backends
        ]
        for each in frontends(service, slices, node)
    }


def test_cluster_ip_and_node_port_share_backends() -> None:
    """A NodePort is a frontend at the unspecified address, in the same group as the ClusterIP."""
    found = frontends(SERVICE, [slice_of(target("10.0.0.1"))], "n1")
    assert [each.key for each in found] == [
        FrontendKey(parse_address("10.96.0.5"), 80, 6),
        FrontendKey(ANY_IPV4, 30080, 6),
    ]
    assert found[0].group == found[1].group == found[0].key
    assert [each.flags for each in found] == [ServiceFlags.CLUSTER_IP, ServiceFlags.NODE_PORT]


def test_local_backends_come_first() -> None:
    """Then each part in order of addresses, whatever the slices' order."""
    slices = [
        slice_of(target("10.0.1.9", "n2"), target("10.0.0.2"), name="b"),
        slice_of(target("10.0.1.1", "n2"), target("10.0.0.1"), name="a"),
    ]
    found = frontends(SERVICE, slices, "n1")[0]
    assert [format_address(each.key.address) for each in found.backends] == [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.1.1",
        "10.0.1.9",
    ]
    assert found.local_count == 2
    assert frontends(SERVICE, reversed(slices), "n1")[0] == found


@pytest.mark.parametrize(
    ("states", "serving"),
    [
        (("ready", "draining"), ["10.0.0.0:8080"]),
        (("draining", "unready"), ["10.0.0.0:8080"]),
        (("unready", "gone"), []),
        ((), []),
    ],
)
def test_terminating_ones_stand_in_when_none_is_ready(states: tuple[str, ...], serving: list[str]) -> None:
    """KEP-1669; with nobody left the frontend stays, with no backend."""
    targets = [target(f"10.0.0.{number}", state=state) for number, state in enumerate(states)]
    assert shown(SERVICE, slice_of(*targets))["10.96.0.5:80"] == serving


def test_local_traffic_policy_keeps_a_draining_local_backend() -> None:
    """externalTrafficPolicy Local on a node whose last backend drains still serves from it."""
    service = replace(SERVICE, local_external=True)
    each = slice_of(target("10.0.0.1", state="draining"), target("10.0.1.1", "n2"))
    found = {frontend.key.port: frontend for frontend in frontends(service, [each], "n1")}
    assert found[30080].local_count == 1
    assert found[30080].backends[0].state is BackendState.TERMINATING
    assert found[30080].flags == ServiceFlags.NODE_PORT | ServiceFlags.LOCAL_EXTERNAL
    assert found[80].flags == ServiceFlags.CLUSTER_IP


def test_all_kinds_of_frontends() -> None:
    """External IPs and load balancers' addresses answer on the service port."""
    service = replace(
        SERVICE, external_addresses=("192.0.2.1",), ingress_addresses=("192.0.2.2",), affinity_s=60, local_internal=True
    )
    kinds = {format_address(each.key.address): each.flags for each in frontends(service, [], "n1")}
    assert kinds == {
        "10.96.0.5": ServiceFlags.CLUSTER_IP | ServiceFlags.AFFINITY | ServiceFlags.LOCAL_INTERNAL,
        "192.0.2.1": ServiceFlags.EXTERNAL_IP | ServiceFlags.AFFINITY,
        "192.0.2.2": ServiceFlags.LOAD_BALANCER | ServiceFlags.AFFINITY,
        "0.0.0.0": ServiceFlags.NODE_PORT | ServiceFlags.AFFINITY,
    }


def test_headless_services_have_no_frontend() -> None:
    """Nobody dials them, by an external address neither: platforms do not handle them."""
    port = ServicePort("http", Protocol.TCP, 80, 0)
    service = replace(SERVICE, cluster_addresses=(), external_addresses=("192.0.2.1",), ip_families=(4,), ports=(port,))
    assert frontends(service, [slice_of(target("10.0.0.1"))], "n1") == []


def test_ports_match_by_name_and_protocol() -> None:
    """A slice's other ports are other services' business."""
    each = EndpointSlice(
        REF,
        "s",
        (SlicePort("dns", Protocol.UDP, 53), SlicePort("http", Protocol.UDP, 1), SlicePort("http", Protocol.TCP, 2)),
        (target("10.0.0.1"),),
    )
    assert shown(SERVICE, each)["10.96.0.5:80"] == ["10.0.0.1:2"]


def test_families_do_not_mix() -> None:
    """IPv4 frontends have IPv4 backends, IPv6 ones theirs."""
    service = replace(SERVICE, cluster_addresses=("10.96.0.5", "fd00::5"), ip_families=(4, 6))
    each = slice_of(target("10.0.0.1"), target("fd01::1"))
    assert shown(service, each) == {
        "10.96.0.5:80": ["10.0.0.1:8080"],
        "0.0.0.0:30080": ["10.0.0.1:8080"],
        "fd00::5:80": ["fd01::1:8080"],
        ":::30080": ["fd01::1:8080"],
    }


def test_a_frontend_belongs_to_one_service() -> None:
    """Two services that claim an external IP: the first in order of names has it."""
    first = replace(
        SERVICE, ref=ServiceRef("a", "x"), cluster_addresses=("10.96.0.6",), external_addresses=("192.0.2.1",)
    )
    second = replace(
        SERVICE, ref=ServiceRef("b", "x"), cluster_addresses=("10.96.0.7",), external_addresses=("192.0.2.1",)
    )
    found = balance([second, first], [], "n1")
    assert found[FrontendKey(parse_address("192.0.2.1"), 80, 6)].service == ServiceRef("a", "x")
