"""Flows to services: judged against what is behind them, on its ports."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.policy import evaluate_manifests
from mycel.policy.errors import PolicyInvalid
from tests.unit.policy.worlds import CLUSTER, Object, cnp, into, out_of, pod, pods, to_ports

IP = "10.96.0.9"


def service(name: str = "front", *, space: str = "shop", status: Object | None = None, **spec: Any) -> Object:
    """A Service; without a selector unless one is given."""
    ports = [{"name": "web", "port": 8000, "targetPort": "http"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    metadata = {"name": name, "namespace": space}
    spec = {"clusterIP": IP, "clusterIPs": [IP], "ports": ports} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": status}


def endpoints(*addresses: str, unready: str = "", number: int = 8080, name: str = "front") -> Object:
    """The EndpointSlice of shop/front, its one port `web`."""
    listed: list[Object] = [{"addresses": [each], "conditions": {"ready": True}} for each in addresses]
    listed += [{"addresses": [unready], "conditions": {"ready": False}}] if unready else []
    metadata = {"name": f"{name}-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}}
    ports = [{"name": "web", "port": number, "protocol": "TCP"}]
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
    return head | {"metadata": metadata, "endpoints": listed, "ports": ports}


def ask(*objects: Object, source: str = "bank/web", to: Object | None = None, port: int = 8000, **more: Any) -> Object:
    """The verdict on a flow, to the service's address unless it is said."""
    flow = {"id": "f", "from": {"pod": source}, "to": to or {"ip": IP}, "protocol": "TCP", "port": port} | more
    return evaluate_manifests([*CLUSTER, *objects], [flow])[0]


# shop/web has the port http at 80, shop/db at 8080.
FRONT = service(selector={"app": "web"})
CLOSED = cnp(into({"fromEndpoints": [pods(app="db")]}), place="shop/closed")
ON_80 = cnp(into({"fromEntities": ["cluster"], "toPorts": to_ports("80/TCP")}), place="shop/on-80")


@pytest.mark.parametrize("to", [{"ip": IP}, {"pod": "shop/front"}])
def test_the_pods_a_selector_selects_on_their_port(to: Object) -> None:
    """By address and by name; rules are about the pod's port, never about the one that is dialled."""
    found = ask(FRONT, CLOSED, to=to)
    assert found["ingress"] == {
        "verdict": "denied",
        "reason": "default-deny",
        "rules": ["CiliumNetworkPolicy shop/closed spec"],
    }
    assert (found["service"], found["backend"], found["others"]) == ("shop/front:8000/TCP", "shop/web:80/TCP", {})
    assert ask(FRONT, ON_80, to=to)["verdict"] == "allowed"
    on_8000 = cnp(into({"fromEntities": ["cluster"], "toPorts": to_ports("8000/TCP")}))
    assert ask(FRONT, on_8000, to=to)["verdict"] == "denied"
    assert "service" not in ask(FRONT, to={"pod": "shop/web"})


def test_endpoint_slices_say_who_is_ready_and_where() -> None:
    """Before the selector; addresses of pods are those pods, others are of the outside."""
    found = ask(FRONT, CLOSED, endpoints("10.0.0.2", unready="10.0.0.1"))
    assert (found["verdict"], found["backend"]) == ("allowed", "shop/db:8080/TCP")
    outside = ask(service(), endpoints("192.0.2.7"), cnp(out_of({"toCIDR": ["192.0.2.0/24"]}), place="bank/out"))
    assert (outside["verdict"], outside["backend"]) == ("allowed", "192.0.2.7:8080/TCP")
    assert outside["egress"]["rules"] == ["CiliumNetworkPolicy bank/out spec.egress[0]"]
    older = {
        "kind": "Endpoints",
        "metadata": {"name": "front", "namespace": "shop"},
        "subsets": [{"addresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "web", "port": 81}]}],
    }
    assert ask(service(), older)["backend"] == "shop/db:81/TCP"


def test_of_a_name_two_containers_have_the_first_counts() -> None:
    twice = pod("shop/twice", "10.0.0.3", ports=({"name": "http", "containerPort": 80},), app="twice")
    second = {"name": "second", "ports": [{"name": "http", "containerPort": 81}]}
    twice["spec"]["containers"].append(second)
    assert ask(service(selector={"app": "twice"}), twice)["backend"] == "shop/twice:80/TCP"


def test_slices_are_read_as_nodes_read_them() -> None:
    """Before Endpoints, by their label alone, the first address of an endpoint, and no names of hosts."""
    several = endpoints("10.0.0.2")
    several["endpoints"][0]["addresses"].append("192.0.2.7")
    stale = {
        "kind": "Endpoints",
        "metadata": {"name": "front", "namespace": "shop"},
        "subsets": [{"addresses": [{"ip": "192.0.2.8"}], "ports": [{"name": "web", "port": 81}]}],
    }
    nobodys = endpoints("192.0.2.9") | {"metadata": {"name": "front", "namespace": "shop"}}
    hosts = endpoints("db.example") | {"addressType": "FQDN"}
    for objects in ([several, stale, nobodys, hosts], [hosts, nobodys, stale, several]):
        found = ask(FRONT, *objects)
        assert (found["backend"], found["others"]) == ("shop/db:8080/TCP", {})
    assert ask(FRONT, nobodys)["backend"] == "shop/web:80/TCP"
    first, second = endpoints("192.0.2.9"), endpoints("192.0.2.7")
    assert ask(FRONT, first, second)["backend"] == ask(FRONT, second, first)["backend"] == "192.0.2.7:8080/TCP"


def test_of_several_the_strictest_decides_and_is_named() -> None:
    """A connection may lead to any of them."""
    http = {"toPorts": to_ports("80/TCP", rules={"http": [{"method": "GET"}]})}
    proxied = cnp(into(http, app="more"), place="shop/proxied")
    more = pod("shop/more", "10.0.0.3", ports=({"name": "http", "containerPort": 80},), tier="front")
    labelled = pod("shop/web", "10.0.0.1", ports=({"name": "http", "containerPort": 80},), tier="front")
    both = [service(selector={"tier": "front"}), more, labelled]
    found = ask(*both, proxied)
    assert (found["verdict"], found["backend"]) == ("l7", "shop/more:80/TCP")
    assert found["others"] == {"shop/web:80/TCP": "allowed"}
    found = ask(*both, proxied, CLOSED)
    assert (found["verdict"], found["backend"], found["others"]) == (
        "denied",
        "shop/web:80/TCP",
        {"shop/more:80/TCP": "l7"},
    )
    itself = ask(*both, CLOSED, source="shop/more")
    assert (itself["verdict"], itself["others"]) == ("denied", {"shop/more:80/TCP": "allowed"})


def test_addresses_that_others_share_are_of_the_service_on_its_ports_alone() -> None:
    """External ones and a load balancer's; a ClusterIP is nothing else."""
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}, {"hostname": "lb.example"}]}}
    shared = service(selector={"app": "web"}, externalIPs=["172.18.0.3"], status=status)
    for address in ("172.18.0.3", "192.0.2.8"):
        assert ask(shared, CLOSED, to={"ip": address})["backend"] == "shop/web:80/TCP"
        assert "service" not in ask(shared, CLOSED, to={"ip": address}, port=22)
    own_hop = {"loadBalancer": {"ingress": [{"ip": "192.0.2.8", "ipMode": "Proxy"}]}}
    assert "service" not in ask(service(status=own_hop), to={"ip": "192.0.2.8"})
    headless = service(clusterIP="None", clusterIPs=["None"], externalIPs=["192.0.2.8"], selector={"app": "web"})
    assert "service" not in ask(headless, to={"ip": "192.0.2.8"})
    only_nodes = cnp({"endpointSelector": {}, "egress": [{"toEntities": ["remote-node", "host"]}]}, place="bank/nodes")
    assert ask(shared, only_nodes, to={"ip": "172.18.0.3"}, port=22)["verdict"] == "allowed"
    assert ask(shared, only_nodes, to={"ip": "192.0.2.8"}, port=22)["verdict"] == "denied"


def test_a_headless_service_is_its_pods_on_their_own_port() -> None:
    headless = service(selector={"app": "web"}, clusterIP="None", clusterIPs=["None"])
    assert ask(headless, CLOSED, to={"pod": "shop/front"}, port=80)["backend"] == "shop/web:80/TCP"
    assert ask(headless, endpoints("10.0.0.2"), to={"pod": "shop/front"}, port=80)["backend"] == "shop/db:80/TCP"
    reply = ask(headless, to={"pod": "shop/front"}, protocol="ICMP", type=0)
    assert reply["backend"] == "shop/web ICMP type 0"


def test_two_that_claim_one_address() -> None:
    """The first by name has it, as on nodes."""
    other = service(space="bank", selector={"app": "web"})
    assert (
        ask(FRONT, other, source="shop/db")["backend"]
        == ask(other, FRONT, source="shop/db")["backend"]
        == "bank/web:80/TCP"
    )


@pytest.mark.parametrize(
    ("objects", "more", "words"),
    [
        ([FRONT], {"port": 81}, "to: service shop/front has no port 81/TCP: it has 8000/TCP, 53/UDP"),
        ([FRONT], {"protocol": "UDP"}, "to: service shop/front has no port 8000/UDP"),
        ([FRONT], {"protocol": "ICMP", "port": None}, "to: service shop/front answers no ICMP"),
        (
            [FRONT, endpoints()],
            {},
            "to: service shop/front leads nowhere: there is nobody behind it who is ready on 8000/TCP",
        ),
        ([FRONT, endpoints("10.0.0.1", name="other")], {"family": 6}, "to: service shop/front leads nowhere"),
        ([service(selector={"app": "gone"})], {}, "to: service shop/front leads nowhere"),
        ([service()], {"to": {"pod": "shop/front"}}, "to: service shop/front leads nowhere"),
    ],
)
def test_what_leads_nowhere(objects: list[Object], more: Object, words: str) -> None:
    """No policy drops it, so it is no verdict but a mistake in the question, or in the manifests."""
    with pytest.raises(PolicyInvalid) as error:
        ask(*objects, **more)
    assert words in str(error.value)
