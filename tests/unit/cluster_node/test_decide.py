"""Which container starts next, and the pod's phase and status."""

from typing import Any

from mycel.cluster.node import decide, status
from mycel.cluster.node.decide import Phase
from mycel.cluster.node.state import ContainerState, Ended, PodState
from tests.unit.cluster_node.samples import pod

NOW = 1000.0


def ended(code: int) -> Ended:
    return Ended("old", code, "Completed" if code == 0 else "Error", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z")


def held(name: str, **fields: Any) -> ContainerState:
    return ContainerState(name, container="id", waiting="", **fields)


def state(*containers: ContainerState, **fields: Any) -> PodState:
    return PodState(
        "shop",
        "cart",
        "u-1",
        sandbox="s",
        containers={item.name: item for item in containers},
        start_time="2026-01-01T00:00:00Z",
        **fields,
    )


def running(name: str, **fields: Any) -> ContainerState:
    return held(name, started="2026-01-01T00:00:00Z", **fields)


def test_init_containers_run_one_after_the_other() -> None:
    """The second begins when the first has ended well, main ones last."""
    two = pod({"name": "main"}, initContainers=[{"name": "a"}, {"name": "b"}])
    assert decide.decide(two, state(), NOW).start == ("a",)
    assert decide.decide(two, state(running("a")), NOW).start == ()
    assert decide.decide(two, state(held("a", ended=ended(0))), NOW).start == ("b",)
    assert decide.decide(two, state(held("a", ended=ended(0)), held("b", ended=ended(0))), NOW).start == ("main",)


def test_a_failed_init_container_is_tried_again_or_fails_the_pod() -> None:
    """By restart policy."""
    again = pod({"name": "main"}, initContainers=[{"name": "a"}])
    never = pod({"name": "main"}, initContainers=[{"name": "a"}], restartPolicy="Never")
    bad = state(held("a", ended=ended(1), not_before=NOW + 5))
    assert decide.decide(again, bad, NOW) == decide.Decision((), NOW + 5)
    assert decide.decide(never, bad, NOW).finished
    assert decide.phase(never, bad) is Phase.FAILED
    assert decide.phase(again, bad) is Phase.PENDING


def test_sidecars_stay_and_are_waited_for() -> None:
    """The next container begins when the sidecar has started; the sidecar ends last."""
    spec = pod(
        {"name": "main"},
        initContainers=[{"name": "s", "restartPolicy": "Always", "startupProbe": {"exec": {}}}],
        restartPolicy="Never",
    )
    assert decide.decide(spec, state(), NOW).start == ("s",)
    assert decide.decide(spec, state(running("s")), NOW).start == ()
    assert decide.decide(spec, state(running("s", passed_startup=True)), NOW).start == ("main",)
    over = decide.decide(spec, state(running("s", passed_startup=True), held("main", ended=ended(0))), NOW)
    assert (over.finished, over.stop_sidecars) == (True, ("s",))


def test_restart_policies() -> None:
    """Always, OnFailure, Never."""
    for policy, code, again in (
        ("Always", 0, True),
        ("OnFailure", 0, False),
        ("OnFailure", 3, True),
        ("Never", 3, False),
    ):
        found = decide.decide(pod(restartPolicy=policy), state(held("main", ended=ended(code))), NOW)
        assert (found.start == ("main",), found.finished) == (again, not again)


def test_backoff_doubles_to_five_minutes() -> None:
    """The first restart is at once."""
    assert [decide.backoff_s(n) for n in (1, 2, 3, 4, 20)] == [0, 10, 20, 40, 300]


def test_phases() -> None:
    """Running while something may run again."""
    assert decide.phase(pod(), state()) is Phase.PENDING
    assert decide.phase(pod(), state(running("main"))) is Phase.RUNNING
    assert decide.phase(pod(), state(held("main", ended=ended(1)))) is Phase.RUNNING
    assert decide.phase(pod(restartPolicy="Never"), state(held("main", ended=ended(0)))) is Phase.SUCCEEDED
    assert decide.phase(pod(restartPolicy="Never"), state(held("main", ended=ended(2)))) is Phase.FAILED


def conditions(found: dict[str, Any]) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in found["conditions"]}


def test_status_of_a_running_pod() -> None:
    """Conditions, container state, addresses."""
    spec = pod({"name": "main", "image": "x"})
    made = status.compute(
        spec, state(running("main", ready=True), addresses=("10.244.0.5",)), host_ip="172.18.0.2", now="T"
    )
    assert (made["phase"], made["podIP"], made["hostIP"], made["qosClass"]) == (
        "Running",
        "10.244.0.5",
        "172.18.0.2",
        "BestEffort",
    )
    assert conditions(made) == {
        "PodReadyToStartContainers": "True", "Initialized": "True", "Ready": "True", "ContainersReady": "True",
        "PodScheduled": "True",
    }  # fmt: skip
    one = made["containerStatuses"][0]
    assert one["state"] == {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    assert (one["ready"], one["started"], one["containerID"]) == (True, True, "runc://id")


def test_status_of_a_crash_loop() -> None:
    """Waiting with the last end beside it."""
    loop = held("main", ended=ended(3), last=ended(3), restarts=4)
    loop.waiting, loop.message = "CrashLoopBackOff", "back-off"
    made = status.compute(pod(), state(loop), host_ip="h", now="T")["containerStatuses"][0]
    assert made["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    assert made["lastState"]["terminated"]["exitCode"] == 3
    assert made["restartCount"] == 4


def test_transition_times_are_kept_where_nothing_changed() -> None:
    """A heartbeat must not look like a change."""
    spec = pod()
    first = status.compute(spec, state(running("main")), host_ip="h", now="T1")
    spec["status"] = first
    second = status.compute(spec, state(running("main", ready=True)), host_ip="h", now="T2")
    times = {entry["type"]: entry["lastTransitionTime"] for entry in second["conditions"]}
    assert times == {
        "PodReadyToStartContainers": "T1",
        "Initialized": "T1",
        "Ready": "T2",
        "ContainersReady": "T2",
        "PodScheduled": "T1",
    }


def test_readiness_gates_hold_ready_back() -> None:
    """ContainersReady is true, Ready is not."""
    spec = pod(readinessGates=[{"conditionType": "x/y"}])
    made = conditions(status.compute(spec, state(running("main", ready=True)), host_ip="h", now="T"))
    assert (made["ContainersReady"], made["Ready"]) == ("True", "False")


def test_qos_classes() -> None:
    """Guaranteed needs limits of both kinds equal to the requests."""
    limits = {"cpu": "1", "memory": "1Gi"}
    assert status.qos_class(pod({"name": "a", "resources": {"limits": limits}})) == "Guaranteed"
    assert status.qos_class(pod({"name": "a", "resources": {"requests": {"cpu": "1"}}})) == "Burstable"
    assert status.qos_class(pod({"name": "a"})) == "BestEffort"
