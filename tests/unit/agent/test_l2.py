"""Who may announce which address, and that one node at a time does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycel.agent.l2.election import Act, Step, Times, step
from mycel.datapath.arp import announcement
from mycel.k8s.lease import Lease, holding_spec, parse_lease
from mycel.model.address import format_address, parse_address
from mycel.model.service import Service, ServiceRef
from mycel.policy.announce import parse_policy, wishes

TIMES = Times(15.0, 5.0, 2.0)
NODES = {"n1": {"disk": "ssd"}, "n2": {"disk": "hdd"}, "n3": {}}


def service(name: str = "web", *addresses: str, **more: Any) -> Service:
    """A service with addresses of a load balancer."""
    plain: dict[str, Any] = {
        "cluster_addresses": (),
        "external_addresses": (),
        "ports": (),
        "ip_families": (4,),
        "affinity_s": 0,
        "local_external": False,
        "local_internal": False,
    }
    return Service(ref=ServiceRef("shop", name), ingress_addresses=addresses, **{**plain, **more})


def announced(
    spec: dict[str, Any], *services: Service, node: str = "n1", serving: tuple[str, ...] = ()
) -> dict[str, list[str]]:
    """Leases and addresses node n1 may have under one policy."""
    found = wishes(
        [parse_policy({"metadata": {"name": "p"}, "spec": spec})],
        services,
        node=node,
        nodes=NODES,
        devices=("eth0", "eth1"),
        serving={ServiceRef("shop", name) for name in serving},
        taken={parse_address("172.18.0.2")},
    )
    return {name: sorted(map(format_address, wish.addresses)) for name, wish in found.items()}


LEASE = "cilium-l2announce-shop-web"
OTHER = "cilium-l2announce-shop-a"
BY_NAME = {"matchLabels": {"io.kubernetes.service.name": "web"}}
WEB = service("web", "10.0.0.1", external_addresses=("10.9.0.1",), labels={"app": "web"})
LBS = {"loadBalancerIPs": True}
BOTH = {"loadBalancerIPs": True, "externalIPs": True}


@pytest.mark.parametrize(
    ("spec", "services", "expected"),
    [
        ({"loadBalancerIPs": True}, (WEB,), {LEASE: ["10.0.0.1"]}),
        ({"externalIPs": True}, (WEB,), {LEASE: ["10.9.0.1"]}),
        (BOTH, (WEB,), {LEASE: ["10.0.0.1", "10.9.0.1"]}),
        ({}, (WEB,), {}),
        (BOTH | {"serviceSelector": {"matchLabels": {"app": "db"}}}, (WEB,), {}),
        (BOTH | {"serviceSelector": BY_NAME}, (WEB,), {LEASE: ["10.0.0.1", "10.9.0.1"]}),
        (BOTH | {"nodeSelector": {"matchLabels": {"disk": "hdd"}}}, (WEB,), {}),
        ({"loadBalancerIPs": True, "interfaces": ["^eth[0-9]+$"]}, (WEB,), {LEASE: ["10.0.0.1"]}),
        ({"loadBalancerIPs": True, "interfaces": ["^ens"]}, (WEB,), {}),
        ({"loadBalancerIPs": True, "interfaces": ["("]}, (WEB,), {}),
        ({"loadBalancerIPs": True}, (service("web", "10.0.0.1", load_balancer_class="example.com/x"),), {}),
        ({"loadBalancerIPs": True}, (service("web", "fd00::1"),), {}),
        (LBS, (service("web", "172.18.0.2"),), {}),  # a node's
        ({"loadBalancerIPs": True}, (service("web", "10.0.0.1", local_external=True),), {}),
        # One address, one lease: the first service's.
        (LBS, (service("b", "10.0.0.1"), service("a", "10.0.0.1")), {OTHER: ["10.0.0.1"]}),
    ],
)  # fmt: skip
def test_what_a_node_may_announce(
    spec: dict[str, Any], services: tuple[Service, ...], expected: dict[str, list[str]]
) -> None:
    assert announced(spec, *services) == expected


def test_local_services_are_announced_where_they_are_served() -> None:
    local = service("web", "10.0.0.1", local_external=True)
    assert announced({"loadBalancerIPs": True}, local, serving=("web",)) == {LEASE: ["10.0.0.1"]}


def test_free_leases_spread_over_nodes() -> None:
    """Each node is preferred for some; all nodes agree."""
    services = [service(f"s{number}", f"10.0.0.{number}") for number in range(1, 60)]
    policy = parse_policy({"metadata": {"name": "p"}, "spec": {"loadBalancerIPs": True}})
    seen = [
        {name: wish.preferred(name) for name, wish in found.items()}
        for node in NODES
        for found in [wishes([policy], services, node=node, nodes=NODES, devices=("eth0",), serving=set())]
    ]
    assert seen[0] == seen[1] == seen[2]
    assert set(seen[0].values()) == set(NODES)


@pytest.mark.parametrize(
    ("lease", "facts", "expected"),
    [
        (None, {"preferred": True}, Step(Act.TAKE, 2.0)),
        (None, {"age_s": 1.5}, Step(Act.WAIT, 0.5)),
        (None, {"age_s": 2.0}, Step(Act.TAKE, 2.0)),
        (Lease("me"), {"age_s": 4.0}, Step(Act.WAIT, 1.0)),
        (Lease("me"), {"age_s": 5.0}, Step(Act.TAKE, 5.0)),
        (Lease("other"), {"age_s": 14.0, "preferred": True}, Step(Act.WAIT, 1.0)),
        (Lease("other"), {"age_s": 15.0}, Step(Act.TAKE, 2.0)),
        (Lease("me"), {"wanted": False}, Step(Act.DROP)),
        (Lease("other"), {"wanted": False}, Step(Act.WAIT)),
        (Lease("other"), {"wanted": False, "orphan": True, "age_s": 3.0}, Step(Act.WAIT, 12.0)),
        (Lease("other"), {"wanted": False, "orphan": True, "age_s": 15.0}, Step(Act.DROP)),
        (None, {"wanted": False, "orphan": True}, Step(Act.WAIT)),
    ],
)
def test_what_to_do_about_a_lease(lease: Lease | None, facts: dict[str, Any], expected: Step) -> None:
    plain: dict[str, Any] = {"wanted": True, "orphan": False, "preferred": False, "age_s": 0.0}
    assert step(lease, "me", **plain | facts, times=TIMES) == expected


@given(st.lists(st.sets(st.sampled_from(["n1", "n2", "n3"])), min_size=8, max_size=60))
def test_one_holds_and_somebody_does_soon(alive: list[set[str]]) -> None:
    """Nodes come and go each second, each with its own view: never two in a lease, and a lasting node gets it in time.

    A node that was away sees nothing of the time before; an API server that takes the first of equal writes stands for
    the real one's resource versions.
    """
    lease: Lease | None = None
    version = 0
    seen: dict[str, tuple[Lease | None, int]] = {}
    lasting = 0
    for now_s, nodes in enumerate(alive):
        before = lease
        for node in sorted(nodes):
            if node not in seen or seen[node][0] != before:
                seen[node] = (before, now_s)
            due = step(
                before,
                node,
                wanted=True,
                orphan=False,
                preferred=node == "n2",
                age_s=now_s - seen[node][1],
                times=TIMES,
            )
            if due.act is Act.TAKE and lease == before:
                version += 1
                lease = Lease(node, str(now_s), version=str(version))
        for node in set(seen) - nodes:
            del seen[node]
        if before is not None and lease is not None and lease.holder != before.holder:
            assert now_s - int(before.renewed) >= TIMES.lease_s, "taken from one that may still renew it"
        lasting = lasting + 1 if "n1" in nodes else 0
        if lasting > TIMES.lease_s + 1:
            assert lease is not None and now_s - int(lease.renewed) <= TIMES.lease_s + 1


def test_leases_are_read_and_written_as_client_go_does() -> None:
    spec = holding_spec(None, "n1", 15.0)
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("n1", 15, 0)
    lease = parse_lease({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": spec})
    assert (lease.holder, lease.version, lease.uid) == ("n1", "7", "u")
    assert "leaseTransitions" not in holding_spec(lease, "n1", 15.0)
    assert holding_spec(lease, "n2", 15.0)["leaseTransitions"] == 1
    assert parse_lease({"metadata": {}, "spec": {"holderIdentity": None}}).holder == ""


def test_the_frame_that_tells_neighbours() -> None:
    """A question for the address in its own name, to everybody (RFC 5227)."""
    mac, address = bytes.fromhex("020000000042"), bytes([10, 0, 0, 1])
    frame = announcement(mac, address)
    assert frame[:14] == b"\xff" * 6 + mac + b"\x08\x06"
    assert frame[14:22] == bytes.fromhex("0001080006040001")
    assert frame[22:] == mac + address + bytes(6) + address
