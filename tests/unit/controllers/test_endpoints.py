"""Who serves a Service, in EndpointSlices and Endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cluster.controllers import endpoints
from mycel.cluster.controllers.objects import Obj, evolve, labels
from mycel.k8s.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES

from .sandbox import Sandbox, node, pod

RULES = ((endpoints.decide, SERVICES),)


def service(**fields: Any) -> Obj:
    """A Service with one port that pods name."""
    return {
        "metadata": {"name": "web", "namespace": "shop", "labels": {"team": "a"}},
        "spec": {
            "clusterIP": "10.96.0.9",
            "ipFamilies": ["IPv4"],
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            **fields,
        },
    }


def backend(pod_name: str, *, port: int = 8080, **fields: Any) -> Obj:
    """A pod that serves."""
    containers = [{"name": "main", "ports": [{"name": "http", "containerPort": port}]}]
    return pod(pod_name, labels={"app": "web"}, containers=containers, nodeName="w1", **fields)


@pytest.fixture
def box() -> Sandbox:
    """A node in a zone."""
    found = Sandbox()
    found.add(NODES, node("w1", **{"topology.kubernetes.io/zone": "z1"}))
    return found


def entries(box: Sandbox) -> list[Obj]:
    """All endpoints of all slices."""
    return [entry for one in box.all(ENDPOINT_SLICES) for entry in one.get("endpoints") or []]


def test_a_service_without_pods_has_one_empty_slice(box: Sandbox) -> None:
    """And Endpoints without subsets."""
    box.add(SERVICES, service())
    box.settle(RULES)
    (only,) = box.all(ENDPOINT_SLICES)
    assert only.get("endpoints") in ([], None)
    assert labels(only) == {
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    (whole,) = box.all(ENDPOINTS)
    assert not whole.get("subsets")


def test_ready_and_unready_pods(box: Sandbox) -> None:
    """Conditions, node, zone, target and the named port's number."""
    box.add(SERVICES, service())
    box.add(PODS, backend("a"))
    box.add(PODS, backend("b"))
    box.run_pods(lambda one: one["metadata"]["name"] == "a")
    box.settle(RULES)
    (only,) = box.all(ENDPOINT_SLICES)
    assert only["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    by_name = {entry["targetRef"]["name"]: entry for entry in entries(box)}
    assert by_name["a"]["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert by_name["b"]["conditions"] == {"ready": False, "serving": False, "terminating": False}
    assert (by_name["a"]["nodeName"], by_name["a"]["zone"]) == ("w1", "z1")
    (whole,) = box.all(ENDPOINTS)
    (subset,) = whole["subsets"]
    assert [one["targetRef"]["name"] for one in subset["addresses"]] == ["a"]
    assert [one["targetRef"]["name"] for one in subset["notReadyAddresses"]] == ["b"]


def test_a_terminating_pod_serves_on_but_is_not_ready(box: Sandbox) -> None:
    """ready false, serving true, terminating true; gone from Endpoints."""
    box.add(SERVICES, service())
    made = box.add(PODS, backend("a"))
    box.run_pods()
    running = box.world[PODS].get(("shop", "a"))
    assert running is not None
    box.change(PODS, evolve(running, "metadata", "deletionTimestamp", value="2026-01-01T00:00:00Z"))
    box.settle(RULES)
    assert [entry["conditions"] for entry in entries(box)] == [{"ready": False, "serving": True, "terminating": True}]
    assert not box.all(ENDPOINTS)[0].get("subsets")
    box.remove(PODS, made)
    box.settle(RULES)
    assert entries(box) == []


def test_publish_not_ready_addresses(box: Sandbox) -> None:
    """Every address counts as ready."""
    box.add(SERVICES, service(publishNotReadyAddresses=True))
    box.add(PODS, backend("a"))
    box.run_pods(lambda _one: False)
    box.settle(RULES)
    assert [entry["conditions"]["ready"] for entry in entries(box)] == [True]


def test_pods_with_other_numbers_for_a_named_port_get_a_slice_of_their_own(box: Sandbox) -> None:
    """Slices have one set of ports each."""
    box.add(SERVICES, service())
    box.add(PODS, backend("a", port=8080))
    box.add(PODS, backend("b", port=9090))
    box.run_pods()
    box.settle(RULES)
    ports = sorted(one["ports"][0]["port"] for one in box.all(ENDPOINT_SLICES))
    assert ports == [8080, 9090]
    assert sorted(subset["ports"][0]["port"] for subset in box.all(ENDPOINTS)[0]["subsets"]) == [8080, 9090]


def test_slices_hold_a_hundred_and_change_little(box: Sandbox) -> None:
    """250 pods make 3 slices; one pod less is one slice written, the others untouched."""
    box.add(SERVICES, service())
    made = [box.add(PODS, backend(f"p{number:03d}")) for number in range(250)]
    box.run_pods()
    box.settle(RULES)
    assert sorted(len(one["endpoints"]) for one in box.all(ENDPOINT_SLICES)) == [50, 100, 100]
    box.remove(PODS, made[7])
    before = len(box.log)
    box.settle(RULES)
    assert [line.split()[1] for line in box.log[before:]] == ["endpointslices", "endpoints"]
    assert len(entries(box)) == 249


def test_hostnames_of_headless_services(box: Sandbox) -> None:
    """A pod whose subdomain is the service has its hostname in the slice."""
    box.add(SERVICES, service(clusterIP="None"))
    box.add(PODS, backend("a", hostname="db-0", subdomain="web"))
    box.run_pods()
    box.settle(RULES)
    assert entries(box)[0]["hostname"] == "db-0"
    assert labels(box.all(ENDPOINT_SLICES)[0])["service.kubernetes.io/headless"] == ""


def test_hand_written_endpoints_are_mirrored(box: Sandbox) -> None:
    """A Service without selector: its Endpoints become a slice, and go with it."""
    box.add(SERVICES, service(selector=None))
    subset = {"addresses": [{"ip": "192.0.2.5"}], "ports": [{"name": "http", "port": 8000}]}
    written = box.add(ENDPOINTS, {"metadata": {"name": "web", "namespace": "shop"}, "subsets": [subset]})
    box.settle(RULES)
    assert [entry["addresses"] for entry in entries(box)] == [["192.0.2.5"]]
    box.remove(ENDPOINTS, written)
    box.settle(RULES)
    assert box.all(ENDPOINT_SLICES) == []


def test_slices_of_others_are_left_alone(box: Sandbox) -> None:
    """Without our managed-by label a slice is somebody else's, whatever the Service says."""
    theirs = {
        "metadata": {"name": "web-own", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.9"]}],
    }
    box.add(ENDPOINT_SLICES, theirs)
    box.add(SERVICES, service(selector=None))
    box.settle(RULES)
    assert [entry["addresses"] for entry in entries(box)] == [["192.0.2.9"]]


def test_rest(box: Sandbox) -> None:
    """Nothing changed, nothing written."""
    box.add(SERVICES, service())
    box.add(PODS, backend("a"))
    box.run_pods()
    box.settle(RULES)
    assert endpoints.decide(box.world, ("shop", "web"), box.now_s).writes == ()
