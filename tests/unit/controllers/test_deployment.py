"""Deployments over ReplicaSets and pods, as one world of dicts."""

from __future__ import annotations

import pytest

from mycel.cluster.controllers import deployment, replicaset
from mycel.cluster.controllers.objects import annotations_of, condition, evolve, is_ready, labels, name, spec, status
from mycel.k8s.resources import DEPLOYMENTS, PODS, REPLICA_SETS

from .sandbox import Sandbox
from .sandbox import deployment as make

RULES = ((deployment.decide, DEPLOYMENTS), (replicaset.decide, REPLICA_SETS))


@pytest.fixture
def box() -> Sandbox:
    """An empty cluster."""
    return Sandbox()


def roll_out(box: Sandbox, rounds: int = 12) -> None:
    """Run rules and nodes until nothing moves."""
    for _ in range(rounds):
        box.settle(RULES)
        box.run_pods()
    box.settle(RULES)


def set_image(box: Sandbox, image: str) -> None:
    """What `kubectl set image` does."""
    (found,) = box.all(DEPLOYMENTS)
    containers = [{"name": "web", "image": image}]
    box.change(DEPLOYMENTS, evolve(found, "spec", "template", "spec", "containers", value=containers), new_spec=True)


def sizes(box: Sandbox) -> dict[str, int]:
    """Image of each ReplicaSet with pods → its size."""
    return {
        spec(one)["template"]["spec"]["containers"][0]["image"]: spec(one)["replicas"] for one in box.all(REPLICA_SETS)
    }


def test_first_rollout_makes_one_set_with_hash_label_and_revision(box: Sandbox) -> None:
    """A new Deployment gets a ReplicaSet named after the template's hash, owned by it, revision 1."""
    box.add(DEPLOYMENTS, make(3))
    roll_out(box)
    (found,), (replica_set,) = box.all(DEPLOYMENTS), box.all(REPLICA_SETS)
    digest = labels(replica_set)["pod-template-hash"]
    assert name(replica_set) == f"web-{digest}"
    assert spec(replica_set)["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
    assert {labels(pod)["pod-template-hash"] for pod in box.all(PODS)} == {digest}
    assert annotations_of(found)["deployment.kubernetes.io/revision"] == "1"
    counts = {k: v for k, v in status(found).items() if k != "conditions"}
    assert counts == {
        "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3, "observedGeneration": 1,
    }  # fmt: skip
    progress = condition(found, "Progressing")
    assert progress is not None
    assert (progress["status"], progress["reason"]) == ("True", "NewReplicaSetAvailable")


def test_rolling_update_stays_within_its_budget(box: Sandbox) -> None:
    """At every step at most 4 + 1 pods exist and at least 4 - 1 are ready."""
    box.add(DEPLOYMENTS, make(4))
    roll_out(box)
    set_image(box, "two")
    for _ in range(40):
        before = len(box.log)
        for rule, kind in RULES:
            for where in list(box.world[kind].objects):
                box.perform(rule(box.world, where, box.now_s))
                pods = box.all(PODS)
                assert len(pods) <= 5
                assert sum(map(is_ready, pods)) >= 3
        if len(box.log) == before:
            box.run_pods()
    assert sizes(box) == {"one": 0, "two": 4}


def test_a_broken_template_stops_the_rollout_with_old_pods_serving(box: Sandbox) -> None:
    """Pods that never get ready leave 3 of 4 old ones alone; after the deadline the Deployment says so."""
    box.add(DEPLOYMENTS, make(4))
    roll_out(box)
    set_image(box, "broken")
    for _ in range(6):
        box.settle(RULES)
        box.run_pods(lambda pod: spec(pod)["containers"][0]["image"] == "one")
    assert sizes(box) == {"one": 3, "broken": 2}
    box.now_s += 700
    box.settle(RULES)
    progress = condition(box.all(DEPLOYMENTS)[0], "Progressing")
    assert progress is not None
    assert (progress["status"], progress["reason"]) == ("False", "ProgressDeadlineExceeded")


def test_undo_reuses_the_old_set_with_a_higher_revision(box: Sandbox) -> None:
    """Going back to the first template is revision 3 on the first ReplicaSet, which remembers having been 1."""
    box.add(DEPLOYMENTS, make(2))
    roll_out(box)
    set_image(box, "two")
    roll_out(box)
    set_image(box, "one")
    roll_out(box)
    (found,) = box.all(DEPLOYMENTS)
    assert annotations_of(found)["deployment.kubernetes.io/revision"] == "3"
    back = next(one for one in box.all(REPLICA_SETS) if spec(one)["replicas"])
    assert annotations_of(back)["deployment.kubernetes.io/revision-history"] == "1"
    assert sizes(box) == {"one": 2, "two": 0}


def test_recreate_waits_for_the_last_old_pod(box: Sandbox) -> None:
    """No new pod while an old one is there."""
    box.add(DEPLOYMENTS, make(2, strategy={"type": "Recreate"}))
    roll_out(box)
    set_image(box, "two")
    old = box.all(PODS)
    (where,) = box.world[DEPLOYMENTS].objects
    box.perform(deployment.decide(box.world, where, box.now_s))
    assert sizes(box) == {"one": 0}
    box.perform(deployment.decide(box.world, where, box.now_s))
    assert sizes(box) == {"one": 0}
    for pod in old:
        box.remove(PODS, pod)
    roll_out(box)
    assert sizes(box) == {"one": 0, "two": 2}


def test_paused_deployments_scale_but_do_not_roll(box: Sandbox) -> None:
    """A paused Deployment with a new template and a new size only changes size."""
    box.add(DEPLOYMENTS, make(2))
    roll_out(box)
    (found,) = box.all(DEPLOYMENTS)
    paused = evolve(evolve(found, "spec", "paused", value=True), "spec", "replicas", value=5)
    box.change(DEPLOYMENTS, paused, new_spec=True)
    set_image(box, "two")
    roll_out(box)
    assert sizes(box) == {"one": 5}
    (found,) = box.all(DEPLOYMENTS)
    assert (condition(found, "Progressing") or {})["reason"] == "DeploymentPaused"
    box.change(DEPLOYMENTS, evolve(found, "spec", "paused", value=None), new_spec=True)
    roll_out(box)
    assert sizes(box) == {"one": 0, "two": 5}


def test_scaling_to_zero_and_back(box: Sandbox) -> None:
    """`kubectl scale --replicas=0`, then 3."""
    box.add(DEPLOYMENTS, make(2))
    roll_out(box)
    for wanted in (0, 3):
        (found,) = box.all(DEPLOYMENTS)
        box.change(DEPLOYMENTS, evolve(found, "spec", "replicas", value=wanted), new_spec=True)
        roll_out(box)
        assert len(box.all(PODS)) == wanted
        assert sizes(box) == {"one": wanted}


def test_history_is_cut_to_its_limit(box: Sandbox) -> None:
    """Emptied ReplicaSets beyond revisionHistoryLimit go, the oldest first."""
    box.add(DEPLOYMENTS, make(1, revisionHistoryLimit=1))
    for image in ("one", "two", "three", "four"):
        set_image(box, image)
        roll_out(box)
    assert sizes(box) == {"three": 0, "four": 1}


def test_resting_cluster_writes_nothing(box: Sandbox) -> None:
    """Once all is done a pass has no writes at all."""
    box.add(DEPLOYMENTS, make(3))
    roll_out(box)
    for rule, kind in RULES:
        for where in box.world[kind].objects:
            assert rule(box.world, where, box.now_s).writes == ()
