"""What to do next with a pod's containers. Pure: spec and states in, one decision out.

Init containers run one after the other; those with `restartPolicy: Always` (sidecars) stay and the next one begins
when they have started. Main containers begin together. Who ended is started again as the restart policy says, not
before its backoff is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mycel.cluster.node.names import Object
from mycel.cluster.node.state import ContainerState, PodState

BACKOFF_S = (10.0, 300.0)
FORGIVE_S = 600.0  # a run this long makes earlier failures forgotten


class Phase(StrEnum):
    """A pod's phase."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Decision:
    """`start` these containers now; look again at `wake_at` (seconds since the epoch); `finished` says nothing
    will run again.
    """

    start: tuple[str, ...] = ()
    wake_at: float | None = None
    finished: bool = False
    stop_sidecars: tuple[str, ...] = ()


def is_sidecar(container: Object) -> bool:
    """Whether an init container is one that stays."""
    return container.get("restartPolicy") == "Always"


def init_containers(pod: Object) -> list[Object]:
    return pod["spec"].get("initContainers") or []


def started(state: ContainerState, container: Object) -> bool:
    """Whether it runs and its startup probe (if any) has passed."""
    return state.running and (state.passed_startup or not container.get("startupProbe"))


def should_restart(pod: Object, state: ContainerState) -> bool:
    """Whether a container that ended begins again by the pod's policy."""
    policy = pod["spec"].get("restartPolicy") or "Always"
    if state.ended is None:
        return True
    return policy == "Always" or (policy == "OnFailure" and state.ended.code != 0)


def backoff_s(failures: int) -> float:
    """Seconds to wait before the next start after so many ends in a row; the first restart is at once."""
    low, high = BACKOFF_S
    return 0.0 if failures <= 1 else min(high, low * 2 ** (failures - 2))


def decide(pod: Object, state: PodState, now: float) -> Decision:
    """The next step. `now` in seconds since the epoch."""
    policy = pod["spec"].get("restartPolicy") or "Always"
    start: list[str] = []
    waits: list[float] = []

    def consider(name: str) -> None:
        held = state.container(name)
        if held.not_before > now:
            waits.append(held.not_before)
        else:
            start.append(name)

    mains = [container["name"] for container in pod["spec"]["containers"]]
    begun = any(state.container(name).container for name in mains)
    for container in init_containers(pod):
        held = state.container(container["name"])
        if is_sidecar(container):
            if not held.running:
                consider(container["name"])
            if not started(held, container) and not begun:
                return Decision(tuple(start), min(waits, default=None))
            continue
        if held.running:
            return Decision(tuple(start), min(waits, default=None))
        if held.ended is not None and held.ended.code == 0:
            continue
        if begun or state.initialized:
            continue  # init containers of a pod that runs are history
        if held.ended is not None and policy == "Never":
            return Decision(finished=True, stop_sidecars=_sidecars(pod, state))
        consider(container["name"])
        return Decision(tuple(start), min(waits, default=None))
    over = True
    for name in mains:
        held = state.container(name)
        if held.running:
            over = False
        elif held.ended is None or should_restart(pod, held):
            over = False
            consider(name)
    if over:
        return Decision(finished=True, stop_sidecars=_sidecars(pod, state))
    return Decision(tuple(start), min(waits, default=None))


def initialized(pod: Object, state: PodState) -> bool:
    """Whether every init container is done (or, for sidecars, started)."""
    return all(
        started(held, container) if is_sidecar(container) else held.ended is not None and held.ended.code == 0
        for container in init_containers(pod)
        for held in (state.container(container["name"]),)
    )


def phase(pod: Object, state: PodState) -> Phase:
    """The pod's phase, by kubelet's rules."""
    if state.failed:
        return Phase.FAILED
    policy = pod["spec"].get("restartPolicy") or "Always"
    for container in init_containers(pod):
        held = state.container(container["name"])
        if held.ended is not None and held.ended.code != 0 and policy == "Never" and not is_sidecar(container):
            return Phase.FAILED
    mains = [state.container(container["name"]) for container in pod["spec"]["containers"]]
    if any(not held.container for held in mains) or not (state.initialized or initialized(pod, state)):
        return Phase.PENDING
    if any(held.running for held in mains) or any(should_restart(pod, held) for held in mains):
        return Phase.RUNNING
    if all(held.ended is not None and held.ended.code == 0 for held in mains):
        return Phase.SUCCEEDED
    return Phase.FAILED


def _sidecars(pod: Object, state: PodState) -> tuple[str, ...]:
    names = [container["name"] for container in init_containers(pod) if is_sidecar(container)]
    return tuple(name for name in reversed(names) if state.container(name).running)
