"""Pods: the STATUS column is read off the containers' states, as the stock server does."""

from __future__ import annotations

from typing import Any

from mycel.cluster.apiserver.tables.column import NONE, UNKNOWN, Object, Printer, age, age_of, columns, parse_time

_NODE_LOST = "NodeLost"


def _cells(pod: Object) -> list[Any]:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    reason, ready, total, restarts, last = pod_state(pod)
    restart_text: str = str(restarts)
    if restarts and last is not None:
        restart_text = f"{restarts} ({age(last)} ago)"
    addresses = [entry.get("ip") for entry in status.get("podIPs") or ()]
    gates = spec.get("readinessGates") or ()
    gate_text = NONE
    if gates:
        conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
        passed = sum(conditions.get(gate.get("conditionType")) == "True" for gate in gates)
        gate_text = f"{passed}/{len(gates)}"
    return [
        pod["metadata"]["name"],
        f"{ready}/{total}",
        reason,
        restart_text,
        age_of(pod),
        (addresses[0] if addresses else status.get("podIP")) or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        gate_text,
    ]


def pod_state(pod: Object) -> tuple[str, int, int, int, str | None]:
    """(status word, ready containers, containers, restarts, time of the last restart)."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    reason = status.get("reason") or status.get("phase") or UNKNOWN
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    total = len(spec.get("containers") or ())
    sidecars = {
        container["name"]
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    }
    total += len(sidecars)
    ready, restarts, last = 0, 0, ""
    initializing = False
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        restarts += container.get("restartCount", 0)
        last = max(last, _last_finish(container))
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        is_sidecar = container.get("name") in sidecars
        if is_sidecar and container.get("started"):
            ready += bool(container.get("ready"))
            continue
        if ended and ended.get("exitCode") == 0 and not is_sidecar:
            continue
        if ended:
            reason = "Init:" + _end_word(ended)
        elif waiting and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            reason = "Init:" + waiting["reason"]
        else:
            reason = f"Init:{index}/{len(spec.get('initContainers') or ())}"
        initializing = True
        break
    if not initializing or _initialized(status):
        has_running = False
        if not sidecars:
            restarts, last = 0, ""
        for container in reversed(status.get("containerStatuses") or ()):
            restarts += container.get("restartCount", 0)
            last = max(last, _last_finish(container))
            state = container.get("state") or {}
            ended, waiting = state.get("terminated"), state.get("waiting")
            if waiting and waiting.get("reason"):
                reason = waiting["reason"]
            elif ended:
                reason = _end_word(ended)
            elif container.get("ready") and state.get("running") is not None:
                has_running = True
                ready += 1
        if reason == "Completed" and has_running:
            is_ready = any(
                c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ()
            )
            reason = "Running" if is_ready else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == _NODE_LOST:
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return reason, ready, total, restarts, last or None


def _initialized(status: Object) -> bool:
    return any(
        condition.get("type") == "Initialized" and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )


def _end_word(ended: Object) -> str:
    if ended.get("reason"):
        return ended["reason"]
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _last_finish(container: Object) -> str:
    ended = (container.get("lastState") or {}).get("terminated") or {}
    moment = ended.get("finishedAt")
    return moment if isinstance(moment, str) and parse_time(moment) else ""


POD = Printer(
    columns(
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
        "+IP",
        "+Node",
        "+Nominated Node",
        "+Readiness Gates",
    ),
    _cells,
)
