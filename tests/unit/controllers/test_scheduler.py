"""Which node a pod goes to, and the words when there is none."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cluster.controllers.objects import Obj
from mycel.cluster.controllers.scheduler.choose import choose
from mycel.cluster.controllers.scheduler.quantity import amounts, parse_quantity, pod_requests
from mycel.cluster.controllers.scheduler.snapshot import take
from mycel.k8s.resources import NAMESPACES, NODES, PODS

from .sandbox import Sandbox, node, pod

HOST = "kubernetes.io/hostname"
CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


@pytest.fixture
def box() -> Sandbox:
    """A control plane and two workers in two zones."""
    found = Sandbox()
    found.add(NODES, node("cp", taints=[CONTROL_PLANE]))
    found.add(NODES, node("w1", zone="a"))
    found.add(NODES, node("w2", zone="b"))
    return found


def place(box: Sandbox, wanted: Obj) -> str:
    """The chosen node, or why there is none."""
    choice = choose(wanted, take(box.world, {}))
    return choice.node or choice.message


def term(labels: dict[str, str], key: str = HOST, **more: Any) -> Obj:
    """A pod affinity term."""
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": key, **more}


def required(side: str, *terms: Obj) -> dict[str, Any]:
    """Spec fields of a required (anti-)affinity."""
    return {"affinity": {side: {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}}


def test_the_emptier_node_wins_and_names_break_ties(box: Sandbox) -> None:
    """w1 first, then w2 because w1 has one more."""
    assert place(box, pod("a")) == "w1"
    box.add(PODS, pod("b", nodeName="w1"))
    assert place(box, pod("a")) == "w2"


def test_selectors_taints_and_the_familiar_sentence(box: Sandbox) -> None:
    """Each node tells its first obstacle; equal ones are counted."""
    assert place(box, pod("a", nodeSelector={"zone": "b"})) == "w2"
    said = "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
    assert place(box, pod("a", nodeSelector={"zone": "c"})) == (
        said + "2 node(s) didn't match Pod's node affinity/selector."
    )
    assert place(box, pod("a", nodeSelector={HOST: "cp"}, tolerations=[{"operator": "Exists"}])) == "cp"
    huge = [{"name": "x", "resources": {"requests": {"cpu": "3"}}}]
    assert place(box, pod("a", containers=huge)) == said.replace("3 nodes", "3 nodes") + "2 Insufficient cpu."


def test_no_nodes_at_all() -> None:
    """Its own sentence."""
    assert place(Sandbox(), pod("a")) == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [("In", ["b"], "w2"), ("NotIn", ["a"], "w2"), ("Exists", None, "w1"), ("Gt", ["1"], "0/3")],
)
def test_node_affinity_operators(box: Sandbox, operator: str, values: list[str] | None, expected: str) -> None:
    """Required node affinity on a label."""
    expression = {"key": "zone", "operator": operator, **({"values": values} if values else {})}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    assert place(box, pod("a", affinity=affinity)).startswith(expected)


def test_pod_affinity_follows_and_anti_affinity_avoids(box: Sandbox) -> None:
    """Beside the client, or anywhere but there."""
    box.add(PODS, pod("client", labels={"name": "client"}, nodeName="w2"))
    assert place(box, pod("a", **required("podAffinity", term({"name": "client"})))) == "w2"
    assert place(box, pod("a", **required("podAntiAffinity", term({"name": "client"})))) == "w1"


def test_affinity_to_nobody_waits_unless_it_is_to_itself(box: Sandbox) -> None:
    """The first of a group that wants to be together is placed."""
    wishes = required("podAffinity", term({"name": "client"}))
    assert place(box, pod("a", **wishes)) == (
        "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
        "2 node(s) didn't match pod affinity rules."
    )
    assert place(box, pod("a", labels={"name": "client"}, **wishes)) == "w1"


def test_others_anti_affinity_keeps_a_pod_away(box: Sandbox) -> None:
    """The rule of a placed pod holds for new ones too."""
    box.add(PODS, pod("alone", labels={"x": "y"}, nodeName="w1", **required("podAntiAffinity", term({"app": "web"}))))
    assert place(box, pod("a", labels={"app": "web"})) == "w2"
    assert place(box, pod("a", labels={"app": "other"})) == "w2"  # only because w1 is fuller


def test_namespaces_of_affinity_terms(box: Sandbox) -> None:
    """Own namespace by default; named ones; selected ones; `{}` selects all."""
    box.add(NAMESPACES, {"metadata": {"name": "other", "labels": {"team": "b"}}})
    box.add(PODS, pod("client", labels={"name": "client"}, namespace="other", nodeName="w2"))
    wanted = {"name": "client"}
    assert place(box, pod("a", **required("podAffinity", term(wanted)))).startswith("0/3")
    assert place(box, pod("a", **required("podAffinity", term(wanted, namespaces=["other"])))) == "w2"
    selecting = term(wanted, namespaceSelector={"matchLabels": {"team": "b"}})
    assert place(box, pod("a", **required("podAffinity", selecting))) == "w2"
    assert place(box, pod("a", **required("podAffinity", term(wanted, namespaceSelector={})))) == "w2"


def test_preferences_outweigh_free_room(box: Sandbox) -> None:
    """A preferred term decides among nodes that fit."""
    box.add(PODS, pod("client", labels={"name": "client"}, nodeName="w2"))
    liked = [{"weight": 10, "podAffinityTerm": term({"name": "client"})}]
    affinity = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": liked}}
    assert place(box, pod("a", affinity=affinity)) == "w2"


def test_host_ports_clash(box: Sandbox) -> None:
    """The same port and protocol on all addresses; another protocol is free."""
    taken = [{"name": "x", "ports": [{"containerPort": 53, "hostPort": 53, "protocol": "UDP"}]}]
    for name in ("w1", "w2"):
        box.add(PODS, pod(f"dns-{name}", containers=taken, nodeName=name))
    assert "2 node(s) didn't have free ports for the requested pod ports" in place(box, pod("a", containers=taken))
    tcp = [{"name": "x", "ports": [{"containerPort": 53, "hostPort": 53}]}]
    assert place(box, pod("a", containers=tcp)) == "w1"


def test_spreading_constraints(box: Sandbox) -> None:
    """DoNotSchedule with maxSkew 1 over zones."""
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    for number in range(4):
        wanted = pod(f"p{number}", labels={"app": "web"}, topologySpreadConstraints=[constraint])
        wanted["spec"]["nodeName"] = place(box, wanted)
        box.add(PODS, wanted)
    assert sorted(one["spec"]["nodeName"] for one in box.all(PODS)) == ["w1", "w1", "w2", "w2"]


def test_a_node_that_is_not_ready_yet_takes_only_who_tolerates_it(box: Sandbox) -> None:
    """Also before the node controller has tainted it."""
    late = Sandbox()
    late.add(NODES, node("new", ready=False))
    assert "untolerated taint {node.kubernetes.io/not-ready: }" in place(late, pod("a"))
    assert place(late, pod("a", tolerations=[{"operator": "Exists"}])) == "new"


def test_cordoned_nodes_take_nothing(box: Sandbox) -> None:
    """`kubectl cordon`."""
    for found in box.all(NODES):
        box.change(NODES, {**found, "spec": {**found["spec"], "unschedulable": True}})
    assert place(box, pod("a")) == "0/3 nodes are available: 3 node(s) were unschedulable."


def test_quantities() -> None:
    """Suffixes of ten and two, exponents, thousandths; nonsense is refused."""
    assert amounts({"cpu": "1500m", "memory": "1Gi", "x/y": 2}) == {"cpu": 1500, "memory": 2**30, "x/y": 2}
    assert amounts({"cpu": "0.5", "memory": "1e3"}) == {"cpu": 500, "memory": 1000}
    assert amounts({"memory": "12E"}) == {"memory": 12 * 10**18}
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity("lots")


def test_requests_of_init_containers_and_sidecars() -> None:
    """The biggest init container beside the sidecars, or everything that runs on; limits stand in for requests."""

    def container(cpu: str, **more: str) -> Obj:
        return {"resources": {"limits": {"cpu": cpu}}, **more}

    spec = {
        "containers": [container("1"), container("500m")],
        "initContainers": [container("200m", restartPolicy="Always"), container("3")],
    }
    assert pod_requests(spec) == {"cpu": 3200}
    assert pod_requests({**spec, "overhead": {"cpu": "100m"}}) == {"cpu": 3300}
