"""StatefulSets: in order, by name."""

from __future__ import annotations

import pytest

from mycel.cluster.controllers import statefulset
from mycel.cluster.controllers.objects import Obj, evolve, labels, name, spec, status
from mycel.k8s.resources import PODS, STATEFUL_SETS

from .sandbox import Sandbox

RULES = ((statefulset.decide, STATEFUL_SETS),)


def stateful_set(replicas: int = 3, **more: object) -> Obj:
    """A StatefulSet as the API server would have completed it."""
    return {
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "db", "image": "one"}]},
            },
            "updateStrategy": {"type": "RollingUpdate"},
            **more,
        },
    }


@pytest.fixture
def box() -> Sandbox:
    """An empty cluster."""
    return Sandbox()


def images(box: Sandbox) -> dict[str, str]:
    """Pod → image."""
    return {name(pod): spec(pod)["containers"][0]["image"] for pod in box.all(PODS)}


def change(box: Sandbox, **fields: object) -> None:
    """Edit the spec."""
    (found,) = box.all(STATEFUL_SETS)
    box.change(STATEFUL_SETS, evolve(found, "spec", value={**spec(found), **fields}), new_spec=True)


def set_image(box: Sandbox, image: str) -> None:
    """What `kubectl set image` does."""
    template = spec(box.all(STATEFUL_SETS)[0])["template"]
    change(box, template=evolve(template, "spec", "containers", value=[{"name": "db", "image": image}]))


def test_pods_come_one_by_one_and_go_in_reverse(box: Sandbox) -> None:
    """The next ordinal waits until the one before is ready."""
    box.add(STATEFUL_SETS, stateful_set())
    for expected in (["db-0"], ["db-0", "db-1"], ["db-0", "db-1", "db-2"]):
        box.settle(RULES)
        assert [name(pod) for pod in box.all(PODS)] == expected
        box.run_pods()
    box.settle(RULES)
    first = box.all(PODS)[0]
    assert (spec(first)["hostname"], spec(first)["subdomain"]) == ("db-0", "db")
    assert labels(first)["apps.kubernetes.io/pod-index"] == "0"
    assert status(box.all(STATEFUL_SETS)[0])["readyReplicas"] == 3
    change(box, replicas=1)
    box.settle(RULES)
    assert [name(pod) for pod in box.all(PODS)] == ["db-0"]


def test_parallel_makes_all_at_once(box: Sandbox) -> None:
    """podManagementPolicy Parallel."""
    box.add(STATEFUL_SETS, stateful_set(podManagementPolicy="Parallel"))
    box.settle(RULES)
    assert len(box.all(PODS)) == 3


def test_rolling_goes_downwards_and_stops_at_the_partition(box: Sandbox) -> None:
    """With partition 1 the pod 0 keeps its template, also when it is made again."""
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    box.add(STATEFUL_SETS, stateful_set(podManagementPolicy="Parallel", updateStrategy=rolling))
    box.settle(RULES)
    box.run_pods()
    box.settle(RULES)
    set_image(box, "two")
    box.settle(RULES)
    assert images(box) == {"db-0": "one", "db-1": "one", "db-2": "two"}
    for _ in range(4):
        box.run_pods()
        box.settle(RULES)
    assert images(box) == {"db-0": "one", "db-1": "two", "db-2": "two"}
    box.remove(PODS, box.all(PODS)[0])
    box.settle(RULES)
    assert images(box)["db-0"] == "one"
