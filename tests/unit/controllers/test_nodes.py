"""Nodes: shares of the pod network, taints, silence, and what happens to their pods."""

from __future__ import annotations

import ipaddress

import pytest

from mycel.cluster.controllers import evictions, nodes
from mycel.cluster.controllers.objects import Key, Obj, condition_is, evolve, format_micro_time, is_ready, spec
from mycel.cluster.controllers.settings import ControllerSettings
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision
from mycel.k8s.resources import LEASES, NODES, PODS

from .sandbox import NOW_S, Sandbox, node, pod

SETTINGS = ControllerSettings(pod_subnet=ipaddress.ip_network("10.244.0.0/22"))


def decide(world: World, where: Key, now_s: float) -> Decision:
    """The node rule with a network of four shares."""
    return nodes.decide(world, where, now_s, settings=SETTINGS)


RULES = ((decide, NODES),)


@pytest.fixture
def box() -> Sandbox:
    """An empty cluster."""
    return Sandbox()


def lease(box: Sandbox, name: str, renewed_s: float) -> None:
    """A node's heartbeat."""
    box.add(
        LEASES,
        {
            "metadata": {"name": name, "namespace": nodes.LEASE_NAMESPACE},
            "spec": {"renewTime": format_micro_time(renewed_s)},
        },
    )


def taints(obj: Obj) -> list[tuple[str, str]]:
    """Keys and effects."""
    return [(one["key"].rpartition("/")[2], one["effect"]) for one in spec(obj).get("taints") or ()]


def get(box: Sandbox, name: str) -> Obj:
    """A node."""
    found = box.world[NODES].get(("", name))
    assert found is not None
    return found


def test_each_node_gets_a_share_until_there_is_none(box: Sandbox) -> None:
    """Four /24 of a /22; the fifth node is told; a removed node's share is given again."""
    made = [box.add(NODES, node(f"n{number}")) for number in range(5)]
    box.settle(RULES)
    shares = [spec(get(box, f"n{number}")).get("podCIDR") for number in range(5)]
    assert shares == ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24", None]
    (note,) = decide(box.world, ("", "n4"), NOW_S).notes
    assert (note.reason, note.warning) == ("CIDRNotAvailable", True)
    box.remove(NODES, made[1])
    box.settle(RULES)
    assert spec(get(box, "n4"))["podCIDRs"] == ["10.244.1.0/24"]


def test_taints_follow_conditions_and_leave_others_alone(box: Sandbox) -> None:
    """not-ready comes and goes; a person's taint stays; cordon has its own."""
    own = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    box.add(NODES, node("n", taints=[own], ready=False))
    box.settle(RULES)
    assert taints(get(box, "n")) == [
        ("dedicated", "NoSchedule"),
        ("not-ready", "NoSchedule"),
        ("not-ready", "NoExecute"),
    ]
    ready = evolve(get(box, "n"), "status", value=node("n")["status"])
    box.change(NODES, evolve(ready, "spec", "unschedulable", value=True))
    box.settle(RULES)
    assert taints(get(box, "n")) == [("dedicated", "NoSchedule"), ("unschedulable", "NoSchedule")]


def test_a_silent_node_becomes_unknown_and_its_pods_unready(box: Sandbox) -> None:
    """After 50 s without a Lease: conditions Unknown, unreachable taints, pods not ready; a heartbeat heals it."""
    box.add(NODES, node("n"))
    lease(box, "n", NOW_S)
    box.add(PODS, pod("p", nodeName="n"))
    box.run_pods()
    box.now_s = NOW_S + 49
    box.settle(RULES)
    assert condition_is(get(box, "n"), "Ready")
    box.now_s = NOW_S + 51
    box.settle(RULES)
    assert condition_is(get(box, "n"), "Ready", "Unknown")
    assert taints(get(box, "n")) == [("unreachable", "NoSchedule"), ("unreachable", "NoExecute")]
    assert not is_ready(box.all(PODS)[0])
    box.change(NODES, evolve(get(box, "n"), "status", value=node("n")["status"]))
    (old,) = box.all(LEASES)
    box.change(LEASES, evolve(old, "spec", "renewTime", value=format_micro_time(box.now_s)))
    box.settle(RULES)
    assert taints(get(box, "n")) == []


def test_a_node_is_looked_at_again_when_its_lease_would_run_out(box: Sandbox) -> None:
    """No polling: one timer per node."""
    box.add(NODES, node("n"))
    lease(box, "n", NOW_S - 20)
    box.settle(RULES)
    again_s = decide(box.world, ("", "n"), NOW_S).again_s
    assert again_s is not None
    assert 50 <= again_s <= 52  # the node itself was made just now


def evict(box: Sandbox, missing_since: dict[str, float] | None = None) -> Decision:
    """What becomes of the pod `p`."""
    seen = {} if missing_since is None else missing_since
    return evictions.decide(box.world, ("shop", "p"), box.now_s, settings=SETTINGS, missing_since=seen)


@pytest.mark.parametrize(
    ("tolerations", "after_s", "deleted"),
    [
        ([], 0, True),
        ([{"operator": "Exists"}], 10_000, False),
        ([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300}], 299, False),
        ([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300}], 301, True),
    ],
)
def test_eviction_from_tainted_nodes(box: Sandbox, tolerations: list[Obj], after_s: float, deleted: bool) -> None:
    """At once, after tolerationSeconds, or never."""
    taint = {
        "key": "node.kubernetes.io/unreachable",
        "effect": "NoExecute",
        "timeAdded": "2023-11-14T22:13:20Z",  # NOW_S
    }
    box.add(NODES, node("n", taints=[taint]))
    box.add(PODS, pod("p", nodeName="n", tolerations=tolerations))
    box.now_s = NOW_S + after_s
    decision = evict(box)
    assert [str(one) for one in decision.writes] == (["delete pods shop/p"] if deleted else [])
    if tolerations and not deleted and after_s < 300:
        assert decision.again_s == pytest.approx(1.0)


def test_pods_of_nodes_that_are_gone_are_removed_by_force(box: Sandbox) -> None:
    """After a pause, without grace: nobody is there to end them."""
    box.add(PODS, pod("p", nodeName="gone"))
    missing: dict[str, float] = {}
    assert evict(box, missing).again_s == pytest.approx(40)
    box.now_s += 41
    (write,) = evict(box, missing).writes
    assert write.body["gracePeriodSeconds"] == 0
