"""What makes a mesh healthy: objects and agents' words → components and problems."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cli.mesh.health import PARTS, Component, Report, State, count_pods, count_ready, dns_waits, judge
from mycel.cli.status import lines

AGENT, OPERATOR, ENVOY = PARTS[0], PARTS[1], PARTS[2]
GOOD_AGENT: dict[str, Any] = {
    "cilium": {"state": "Ok"},
    "cluster": {"ciliumHealth": {"state": "Ok"}},
    "hubble": {"state": "Disabled"},
    "kubernetes": {"state": "Ok"},
    "controllers": [{"name": "sync", "status": {"success-count": 3}}],
}


def daemon_set(
    ready: int = 2, *, generation: int = 1, available: int | None = None, updated: int = 2
) -> dict[str, Any]:
    status = {
        "observedGeneration": 1,
        "desiredNumberScheduled": 2,
        "numberReady": ready,
        "numberAvailable": ready if available is None else available,
        "updatedNumberScheduled": updated,
    }
    return {"metadata": {"name": "cilium", "generation": generation}, "status": status}


def pod(name: str = "cilium-1", phase: str = "Running", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"containers": [{"name": "c", "image": "image:1"}]},
        "status": {"phase": phase} | status,
    }


def report(*components: Component, **more: Any) -> Report:
    facts = {"pods": 3, "managed": 3, "unmanaged": (), "nodes": 2, "nodes_ready": 2, "chart_version": "1.19.4"}
    return Report(components=components, **(facts | more))


def test_all_is_well() -> None:
    component = judge(AGENT, daemon_set(), [pod("a"), pod("b")], {"a": GOOD_AGENT, "b": GOOD_AGENT})
    assert (component.state, component.ready, component.desired) == (State.OK, 2, 2)
    assert (dict(component.phases), dict(component.images)) == ({"Running": 2}, {"image:1": 2})
    assert report(component).healthy


@pytest.mark.parametrize(
    ("workload", "pods", "said", "state", "says"),
    [
        (daemon_set(1), [], {}, State.ERROR, "1 pods of 2 are not ready"),
        (daemon_set(2, available=1), [], {}, State.WARNING, "not available yet"),
        (daemon_set(updated=1), [], {}, State.WARNING, "not updated yet"),
        (daemon_set(generation=2), [], {}, State.WARNING, "not been taken up"),
        (daemon_set(), [pod(phase="Failed", reason="Evicted")], {}, State.ERROR, "pod cilium-1 has failed: Evicted"),
        (daemon_set(), [pod(phase="Pending")], {}, State.WARNING, "pod cilium-1 is pending"),
        (
            daemon_set(),
            [pod(containerStatuses=[{"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}])],
            {},
            State.ERROR,
            "in CrashLoopBackOff: back-off",
        ),
        (daemon_set(), [], {"a": "timed out"}, State.ERROR, "a does not answer: timed out"),
        (daemon_set(), [], {"a": {"cilium": {"state": "Failure", "msg": "broken"}}}, State.ERROR, "a: agent: broken"),
        (daemon_set(), [], {"a": {"kubernetes": {"state": "Warning", "msg": "slow"}}}, State.WARNING, "slow"),
        (
            daemon_set(),
            [],
            {
                "a": {
                    "controllers": [{"name": "x", "status": {"consecutive-failure-count": 2, "last-failure-msg": "m"}}]
                }
            },
            State.WARNING,
            "a: x fails: m",
        ),
    ],
)
def test_problems(
    workload: dict[str, Any], pods: list[dict[str, Any]], said: dict[str, Any], state: State, says: str
) -> None:
    component = judge(AGENT, workload, pods, said)
    assert component.state is state
    assert any(says in text for text in component.errors + component.warnings)
    assert not report(component).healthy


def test_absent_parts() -> None:
    assert judge(ENVOY, None, ()).state is State.DISABLED
    assert judge(OPERATOR, None, ()).state is State.ERROR


def test_nodes_and_pods_count() -> None:
    assert report(nodes_ready=1).problems() == ["nodes: 1 of 2 not ready"]
    assert report(unmanaged=("a/b",)).problems() == ["pods: 1 running ones are not managed: a/b"]


def test_which_pods_are_counted() -> None:
    def made(name: str, phase: str = "Running", **spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": "n"}, "spec": spec, "status": {"phase": phase}}

    pods = [
        made("known"),
        made("unknown"),
        made("host", hostNetwork=True),
        made("done", "Succeeded"),
        made("coming", "Pending"),
    ]
    endpoints = [{"metadata": {"namespace": "n", "name": "known"}}, {"metadata": {"namespace": "n", "name": "old"}}]
    assert count_pods(pods, endpoints) == (3, 1, ("n/unknown",))


def test_ready_nodes() -> None:
    nodes = [{"status": {"conditions": [{"type": "Ready", "status": word}]}} for word in ("True", "False", "Unknown")]
    assert count_ready(nodes) == 1


def test_text() -> None:
    agent = judge(AGENT, daemon_set(), [pod("a"), pod("b")], {"a": GOOD_AGENT})
    envoy = judge(ENVOY, None, ())
    text = "\n".join(lines(report(agent, envoy)))
    assert "Agent:         " in text
    assert "OK 2/2" in text
    assert "Envoy:         disabled" in text
    assert "Cluster Pods:  3/3 managed by Cilium" in text
    assert "image:1: 2" in text


@pytest.mark.parametrize(
    ("services", "endpoints", "waits"),
    [
        ([], [], False),
        ([{}], [], True),
        ([{}], [{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}], True),
        ([{}], [{"addresses": ["10.0.0.1"], "conditions": {}}], False),
        ([{}], [{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}, {"addresses": ["10.0.0.2"]}], False),
    ],
)
def test_dns_is_waited_for(services: list[Any], endpoints: list[Any], waits: bool) -> None:
    """Where there is a service for it, until one pod answers; unknown readiness counts as ready."""
    assert dns_waits(services, [{"endpoints": None}, {"endpoints": endpoints}]) is waits
