"""A pod's `status` as kubelet reports it. Pure: the pod, what is known of its containers, and the status before."""

from __future__ import annotations

from collections.abc import Sequence

from mycel.cluster.node import decide
from mycel.cluster.node.decide import Phase
from mycel.cluster.node.names import Object
from mycel.cluster.node.state import ContainerState, Ended, PodState

CONTAINER_ID_SCHEME = "runc://"


def compute(pod: Object, state: PodState, *, host_ip: str, now: str) -> Object:
    """The whole status; conditions keep their transition times where nothing changed."""
    before = pod.get("status") or {}
    phase = decide.phase(pod, state)
    mains = [
        _container_status(container, state.container(container["name"])) for container in pod["spec"]["containers"]
    ]
    inits = [
        _container_status(container, state.container(container["name"]), init=True)
        for container in decide.init_containers(pod)
    ]
    status: Object = {
        "phase": phase.value,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "startTime": state.start_time,
        "qosClass": qos_class(pod),
        "conditions": _conditions(pod, state, phase, mains, before, now),
        "containerStatuses": mains,
    }
    if inits:
        status["initContainerStatuses"] = inits
    addresses = state.addresses or ((host_ip,) if pod["spec"].get("hostNetwork") and state.sandbox else ())
    if addresses and not (phase in (Phase.SUCCEEDED, Phase.FAILED) and not state.sandbox):
        status |= {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
    if state.reason:
        status["reason"] = state.reason
    if state.message:
        status["message"] = state.message
    if pod["metadata"].get("generation"):
        status["observedGeneration"] = pod["metadata"]["generation"]
    return status


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort."""
    containers = [*pod["spec"]["containers"], *decide.init_containers(pod)]
    any_set = False
    guaranteed = True
    for container in containers:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for kind in ("cpu", "memory"):
            any_set = any_set or kind in limits or kind in requests
            if kind not in limits or str(requests.get(kind, limits[kind])) != str(limits[kind]):
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def gates_open(pod: Object) -> list[str]:
    """Readiness gates that are not true yet."""
    given = {entry["type"]: entry["status"] for entry in (pod.get("status") or {}).get("conditions") or []}
    wanted = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    return [name for name in wanted if given.get(name) != "True"]


def _container_status(container: Object, held: ContainerState, *, init: bool = False) -> Object:
    status: Object = {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": held.image_id,
        "restartCount": held.restarts,
        "started": decide.started(held, container),
        "ready": (held.ended is not None and held.ended.code == 0)
        if init and not decide.is_sidecar(container)
        else held.ready,
        "state": _state(held),
        "lastState": {"terminated": _ended(held.last)} if held.last else {},
    }
    if held.container:
        status["containerID"] = CONTAINER_ID_SCHEME + held.container
    return status


def _state(held: ContainerState) -> Object:
    if held.running:
        return {"running": {"startedAt": held.started}}
    if held.ended is not None and not held.waiting:
        return {"terminated": _ended(held.ended)}
    waiting: Object = {"reason": held.waiting or "ContainerCreating"}
    if held.message:
        waiting["message"] = held.message
    return {"waiting": waiting}


def _ended(ended: Ended) -> Object:
    result: Object = {
        "containerID": CONTAINER_ID_SCHEME + ended.container,
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": ended.started or None,
        "finishedAt": ended.finished or None,
    }
    if ended.message:
        result["message"] = ended.message
    return result


def _conditions(
    pod: Object, state: PodState, phase: Phase, mains: Sequence[Object], before: Object, now: str
) -> list[Object]:
    done = phase in (Phase.SUCCEEDED, Phase.FAILED)
    unready = [entry["name"] for entry in mains if not entry["ready"]]
    init_left = [
        container["name"]
        for container in decide.init_containers(pod)
        if not _init_done(container, state.container(container["name"]))
    ]
    gates = gates_open(pod)
    initialized = state.initialized or not init_left
    wanted: list[Object] = [
        {"type": "PodReadyToStartContainers", "status": _bool(bool(state.sandbox))},
        {"type": "Initialized", "status": _bool(initialized)},
        {"type": "Ready", "status": _bool(not unready and not gates and not done)},
        {"type": "ContainersReady", "status": _bool(not unready and not done)},
        {"type": "PodScheduled", "status": "True"},
    ]
    if not initialized:
        wanted[1] |= {
            "reason": "ContainersNotInitialized",
            "message": f"containers with incomplete status: [{' '.join(init_left)}]",
        }
    if done:
        reason: Object = {"reason": "PodCompleted" if phase is Phase.SUCCEEDED else "PodFailed"}
        wanted[2] |= reason
        wanted[3] |= reason
    elif unready:
        reason = {
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{' '.join(unready)}]",
        }
        wanted[2] |= reason
        wanted[3] |= reason
    elif gates:
        wanted[2] |= {
            "reason": "ReadinessGatesNotReady",
            "message": f'the status of pod readiness gate "{gates[0]}" is not "True", but False',
        }
    known = {entry["type"]: entry for entry in before.get("conditions") or []}
    result: list[Object] = []
    for condition in wanted:
        old = known.pop(condition["type"], None)
        kept = old and old["status"] == condition["status"]
        result.append(
            {
                "lastProbeTime": None,
                "lastTransitionTime": old["lastTransitionTime"] if kept else now,
                **condition,
            }
        )
    return result + list(known.values())  # conditions of others (readiness gates) are theirs


def _init_done(container: Object, held: ContainerState) -> bool:
    if decide.is_sidecar(container):
        return decide.started(held, container)
    return held.ended is not None and held.ended.code == 0


def _bool(value: bool) -> str:
    return "True" if value else "False"
