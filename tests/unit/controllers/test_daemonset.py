"""DaemonSets: one pod per fitting node, rolling, history."""

from __future__ import annotations

import pytest

from mycel.cluster.controllers import daemonset
from mycel.cluster.controllers.objects import Obj, evolve, is_ready, labels, name, spec, status
from mycel.cluster.controllers.selectors import untolerated
from mycel.k8s.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS

from .sandbox import Sandbox, node

RULES = ((daemonset.decide, DAEMON_SETS),)
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


def daemon_set(image: str = "one", *, strategy: Obj | None = None, **pod_spec: object) -> Obj:
    """A DaemonSet as the API server would have completed it."""
    return {
        "metadata": {"name": "agent", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "agent", "image": image}], **pod_spec},
            },
            "updateStrategy": strategy or {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "revisionHistoryLimit": 10,
        },
    }


@pytest.fixture
def box() -> Sandbox:
    """Three nodes; the first takes no ordinary pods."""
    found = Sandbox()
    found.add(NODES, node("cp", taints=[CONTROL_PLANE]))
    found.add(NODES, node("w1"))
    found.add(NODES, node("w2", zone="b"))
    return found


def targets(box: Sandbox) -> list[str]:
    """The nodes that pods are meant for."""
    return sorted(daemonset.target_node(pod) for pod in box.all(PODS))


def test_every_fitting_node_gets_one(box: Sandbox) -> None:
    """Taints are respected, and tolerated where the template says so."""
    box.add(DAEMON_SETS, daemon_set())
    box.settle(RULES)
    assert targets(box) == ["w1", "w2"]


def test_tolerating_everything_reaches_all(box: Sandbox) -> None:
    """`operator: Exists` without a key."""
    box.add(DAEMON_SETS, daemon_set(tolerations=[{"operator": "Exists"}]))
    box.settle(RULES)
    assert targets(box) == ["cp", "w1", "w2"]


def test_pods_of_host_networks_tolerate_a_node_without_one(box: Sandbox) -> None:
    """not-ready as NoExecute always, network-unavailable with hostNetwork; not-ready as NoSchedule never by itself."""
    box.add(DAEMON_SETS, daemon_set(hostNetwork=True))
    box.settle(RULES)
    for taint, kept in (
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}, True),
        ({"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}, True),
        ({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, True),
        (CONTROL_PLANE, False),
    ):
        tainted = node("x", taints=[taint])
        assert (untolerated(spec(box.all(PODS)[0]), tainted, ("NoSchedule", "NoExecute")) is None) is kept


def test_selector_changes_of_nodes_move_pods(box: Sandbox) -> None:
    """A pod goes where its node's label went, and leaves where it no longer fits."""
    box.add(DAEMON_SETS, daemon_set(nodeSelector={"zone": "b"}))
    box.settle(RULES)
    assert targets(box) == ["w2"]
    w2 = box.world[NODES].get(("", "w2"))
    assert w2 is not None
    box.change(NODES, evolve(w2, "metadata", "labels", value={"zone": "c"}))
    box.settle(RULES)
    assert targets(box) == []


def test_a_removed_nodes_pod_goes(box: Sandbox) -> None:
    """Nothing is left for a node that is gone."""
    box.add(DAEMON_SETS, daemon_set())
    box.settle(RULES)
    w1 = box.world[NODES].get(("", "w1"))
    assert w1 is not None
    box.remove(NODES, w1)
    box.settle(RULES)
    assert targets(box) == ["w2"]


def test_status_counts_what_clients_wait_for(box: Sandbox) -> None:
    """Desired, current, ready, updated and available on two nodes; zero counts are left out."""
    box.add(DAEMON_SETS, daemon_set())
    box.settle(RULES)
    assert status(box.all(DAEMON_SETS)[0]) == {
        "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 0,
        "observedGeneration": 1, "updatedNumberScheduled": 2, "numberUnavailable": 2,
    }  # fmt: skip
    box.run_pods()
    box.settle(RULES)
    assert status(box.all(DAEMON_SETS)[0]) == {
        "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 2,
        "observedGeneration": 1, "updatedNumberScheduled": 2, "numberAvailable": 2,
    }  # fmt: skip


def update(box: Sandbox, image: str) -> None:
    """What `kubectl set image` does."""
    (found,) = box.all(DAEMON_SETS)
    containers = [{"name": "agent", "image": image}]
    box.change(DAEMON_SETS, evolve(found, "spec", "template", "spec", "containers", value=containers), new_spec=True)


def images(box: Sandbox) -> list[str]:
    """The pods' images."""
    return sorted(spec(pod)["containers"][0]["image"] for pod in box.all(PODS))


def test_rolling_update_takes_one_at_a_time(box: Sandbox) -> None:
    """With maxUnavailable 1 a serving pod stays until the replaced one serves."""
    box.add(DAEMON_SETS, daemon_set())
    box.settle(RULES)
    box.run_pods()
    update(box, "two")
    seen: list[list[str]] = []
    for _ in range(4):
        box.settle(RULES)
        assert sum(map(is_ready, box.all(PODS))) >= 1
        seen.append(images(box))
        box.run_pods()
    assert seen[0] == ["one", "two"]
    assert seen[-1] == ["two", "two"]


def test_on_delete_waits_for_a_person(box: Sandbox) -> None:
    """Old pods stay until they are deleted."""
    box.add(DAEMON_SETS, daemon_set(strategy={"type": "OnDelete"}))
    box.settle(RULES)
    box.run_pods()
    update(box, "two")
    box.settle(RULES)
    assert images(box) == ["one", "one"]
    box.remove(PODS, box.all(PODS)[0])
    box.settle(RULES)
    assert images(box) == ["one", "two"]


def test_going_back_renumbers_the_old_revision(box: Sandbox) -> None:
    """Templates are kept as revisions; an old one that is used again becomes the newest."""
    box.add(DAEMON_SETS, daemon_set())
    for image in ("one", "two", "one"):
        update(box, image)
        box.settle(RULES)
    numbers = {labels(one)["controller-revision-hash"]: one["revision"] for one in box.all(CONTROLLER_REVISIONS)}
    (current,) = {labels(pod)["controller-revision-hash"] for pod in box.all(PODS)}
    assert sorted(numbers.values()) == [2, 3]
    assert numbers[current] == 3
    assert all(name(one).startswith("agent-") for one in box.all(CONTROLLER_REVISIONS))
