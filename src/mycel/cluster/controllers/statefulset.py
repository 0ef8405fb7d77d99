"""StatefulSets: pods with fixed names, one after the other. Pure.

Pods are `<name>-<ordinal>`, made in ascending and removed in descending order; with podManagementPolicy
Parallel all at once. Volume claims are not kept: this cluster has no persistent volumes.
"""

from __future__ import annotations

from collections.abc import Sequence

from mycel.cluster.controllers.loop import Controller, its_controller, itself
from mycel.cluster.controllers.objects import (
    Key,
    Obj,
    availability,
    evolve,
    generation,
    is_deleting,
    is_finished,
    is_ready,
    labels,
    name,
    spec,
    status,
)
from mycel.cluster.controllers.ownership import claim
from mycel.cluster.controllers.pods import create_pod
from mycel.cluster.controllers.revisions import HASH_LABEL, History, keep_history, template_of
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, Write, delete, update
from mycel.k8s.resources import CONTROLLER_REVISIONS, PODS, STATEFUL_SETS

_POD_NAME = "statefulset.kubernetes.io/pod-name"
_INDEX = "apps.kubernetes.io/pod-index"


def decide(world: World, where: Key, now_s: float) -> Decision:
    """One pass over one StatefulSet."""
    stateful_set = world[STATEFUL_SETS].get(where)
    if stateful_set is None:
        return Decision()
    claimed = claim(
        STATEFUL_SETS,
        stateful_set,
        kind=PODS,
        candidates=world[PODS].within(where[0]),
        selector=spec(stateful_set).get("selector"),
    )
    by_ordinal = {n: pod for pod in claimed.owned if (n := ordinal_of(stateful_set, pod)) is not None}
    in_use = frozenset(labels(pod).get(HASH_LABEL, "").rpartition("-")[2] for pod in claimed.owned)
    revisions = world[CONTROLLER_REVISIONS].within(where[0])
    history = keep_history(
        STATEFUL_SETS,
        stateful_set,
        revisions,
        in_use=in_use,
        limit=spec(stateful_set).get("revisionHistoryLimit", 10),
    )
    writes: list[Write] = [*claimed.writes]
    if not is_deleting(stateful_set):
        writes += history.writes
        previous = status(stateful_set).get("currentRevision") or history.name
        old = next((template_of(one) for one in revisions if name(one) == previous), None)
        writes += manage(stateful_set, by_ordinal, history, previous=previous, old=old, now_s=now_s)
    fresh, again_s = observe(stateful_set, by_ordinal, history, now_s)
    writes += update(STATEFUL_SETS, stateful_set, fresh, subresource="status")
    return Decision(tuple(writes), (), again_s)


def ordinal_of(stateful_set: Obj, pod: Obj) -> int | None:
    """The number at the end of the pod's name."""
    stem, _, number = name(pod).rpartition("-")
    return int(number) if stem == name(stateful_set) and number.isdecimal() else None


def _ordinals(stateful_set: Obj) -> range:
    start = (spec(stateful_set).get("ordinals") or {}).get("start", 0)
    return range(start, start + spec(stateful_set).get("replicas", 1))


def manage(
    stateful_set: Obj,
    by_ordinal: dict[int, Obj],
    history: History,
    *,
    previous: str,
    old: Obj | None,
    now_s: float,
) -> Sequence[Write]:
    """The next step: replace failed pods, fill gaps upwards, remove downwards, then roll downwards."""
    parallel = spec(stateful_set).get("podManagementPolicy") == "Parallel"
    min_ready_s = spec(stateful_set).get("minReadySeconds", 0)
    wanted = _ordinals(stateful_set)
    partition = _partition(stateful_set)
    steps: list[Write] = []
    for ordinal in wanted:
        pod = by_ordinal.get(ordinal)
        if pod is None:
            template = old if ordinal < partition and old is not None else None
            revision = previous if template is not None else history.name
            steps.append(_pod(stateful_set, ordinal, revision, template))
        elif is_finished(pod) and not is_deleting(pod):
            steps.append(delete(PODS, pod))
        elif not is_deleting(pod) and availability(pod, min_ready_s, now_s).now:
            continue
        if not parallel:
            return steps
    surplus = sorted((n for n in by_ordinal if n not in wanted), reverse=True)
    for ordinal in surplus:
        pod = by_ordinal[ordinal]
        if not is_deleting(pod):
            steps.append(delete(PODS, pod))
        if not parallel:
            return steps
    if steps or (spec(stateful_set).get("updateStrategy") or {}).get("type") == "OnDelete":
        return steps
    for ordinal in reversed(wanted):
        pod = by_ordinal[ordinal]
        if ordinal < partition:
            break
        if is_deleting(pod) or not is_ready(pod):
            if labels(pod).get(HASH_LABEL) != history.name and not is_deleting(pod):
                return [delete(PODS, pod)]
            break
        if labels(pod).get(HASH_LABEL) != history.name:
            return [delete(PODS, pod)]
    return steps


def _partition(stateful_set: Obj) -> int:
    strategy = spec(stateful_set).get("updateStrategy") or {}
    return (strategy.get("rollingUpdate") or {}).get("partition") or 0


def _pod(stateful_set: Obj, ordinal: int, revision: str, template: Obj | None) -> Write:
    pod_name = f"{name(stateful_set)}-{ordinal}"
    source = evolve(stateful_set, "spec", "template", value=template) if template else stateful_set
    pod_spec = {
        **(spec(source)["template"].get("spec") or {}),
        "hostname": pod_name,
        "subdomain": spec(stateful_set).get("serviceName") or "",
    }
    extra = {HASH_LABEL: revision, _POD_NAME: pod_name, _INDEX: str(ordinal)}
    return create_pod(STATEFUL_SETS, source, pod_name=pod_name, extra_labels=extra, pod_spec=pod_spec)


def observe(stateful_set: Obj, by_ordinal: dict[int, Obj], history: History, now_s: float) -> tuple[Obj, float | None]:
    """The StatefulSet with fresh status, and when to look again for availability."""
    pods = [pod for pod in by_ordinal.values() if not is_deleting(pod)]
    min_ready_s = spec(stateful_set).get("minReadySeconds", 0)
    available = [availability(pod, min_ready_s, now_s) for pod in pods]
    updated = sum(labels(pod).get(HASH_LABEL) == history.name for pod in pods)
    before = status(stateful_set)
    wanted = spec(stateful_set).get("replicas", 1)
    ready = sum(map(is_ready, pods))
    done = updated == ready == wanted == len(by_ordinal)
    current = history.name if done else before.get("currentRevision") or history.name
    optional = {
        "readyReplicas": ready,
        "currentReplicas": sum(labels(pod).get(HASH_LABEL) == current for pod in pods),
        "updatedReplicas": updated,
    }
    fresh = {
        **{field: value for field, value in before.items() if field not in optional},
        "replicas": len(pods),
        "availableReplicas": sum(one.now for one in available),
        "currentRevision": current,
        "updateRevision": history.name,
        "observedGeneration": generation(stateful_set),
        "collisionCount": before.get("collisionCount", 0),
        **{field: count for field, count in optional.items() if count},
    }
    again_s = min((one.in_s for one in available if one.in_s is not None), default=None)
    return evolve(stateful_set, "status", value=fresh), again_s


CONTROLLER = Controller(
    name="statefulset",
    decide=decide,
    triggers={
        STATEFUL_SETS: itself,
        PODS: its_controller("StatefulSet"),
        CONTROLLER_REVISIONS: its_controller("StatefulSet"),
    },
)
