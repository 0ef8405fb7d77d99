"""ReplicaSets: keep the wanted number of equal pods. Pure."""

from __future__ import annotations

import collections

from mycel.cluster.controllers.loop import Controller, its_controller, itself
from mycel.cluster.controllers.objects import (
    Key,
    Obj,
    availability,
    controller_ref,
    evolve,
    generation,
    is_active,
    is_deleting,
    is_ready,
    key,
    labels,
    name,
    spec,
    status,
)
from mycel.cluster.controllers.ownership import claim
from mycel.cluster.controllers.pods import create_pod, deletion_rank
from mycel.cluster.controllers.selectors import matches_labels
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, Note, Write, delete, note, update
from mycel.k8s.resources import PODS, REPLICA_SETS

_BURST = 500
"""Pods created or deleted in one pass, as kube-controller-manager's burstReplicas."""


def decide(world: World, where: Key, now_s: float) -> Decision:
    """One pass over one ReplicaSet."""
    replica_set = world[REPLICA_SETS].get(where)
    if replica_set is None:
        return Decision()
    claimed = claim(
        REPLICA_SETS,
        replica_set,
        kind=PODS,
        candidates=[pod for pod in world[PODS].within(where[0]) if is_active(pod)],
        selector=spec(replica_set).get("selector"),
    )
    scaling: list[Write] = []
    notes: list[Note] = []
    if not is_deleting(replica_set):
        wanted = spec(replica_set).get("replicas", 1)
        surplus = len(claimed.owned) - wanted
        if surplus < 0:
            scaling += [create_pod(REPLICA_SETS, replica_set)] * min(-surplus, _BURST)
        elif surplus > 0:
            for pod in pick_victims(claimed.owned, min(surplus, _BURST)):
                scaling.append(delete(PODS, pod))
                notes.append(note(REPLICA_SETS, replica_set, "SuccessfulDelete", f"Deleted pod: {name(pod)}"))
    fresh, again_s = observe(replica_set, claimed.owned, now_s)
    writes = (*claimed.writes, *scaling, *update(REPLICA_SETS, replica_set, fresh, subresource="status"))
    return Decision(writes, tuple(notes), again_s)


def observe(replica_set: Obj, pods: tuple[Obj, ...], now_s: float) -> tuple[Obj, float | None]:
    """The ReplicaSet with the status its pods give it, and when to look again for availability."""
    wanted_labels = {**((spec(replica_set).get("template") or {}).get("metadata") or {}).get("labels", {})}
    min_ready_s = spec(replica_set).get("minReadySeconds", 0)
    available = [availability(pod, min_ready_s, now_s) for pod in pods]
    again_s = min((one.in_s for one in available if one.in_s is not None), default=None)
    counts = {
        "fullyLabeledReplicas": sum(wanted_labels.items() <= labels(pod).items() for pod in pods),
        "readyReplicas": sum(map(is_ready, pods)),
        "availableReplicas": sum(one.now for one in available),
    }
    fresh = {
        **{field: value for field, value in status(replica_set).items() if field not in counts},
        "replicas": len(pods),
        "observedGeneration": generation(replica_set),
        **{field: count for field, count in counts.items() if count},
    }
    return evolve(replica_set, "status", value=fresh), again_s


def pick_victims(pods: tuple[Obj, ...], count: int) -> list[Obj]:
    """The `count` pods to give up first."""
    crowd = collections.Counter(spec(pod).get("nodeName") for pod in pods)
    return sorted(pods, key=lambda pod: deletion_rank(pod, crowd[spec(pod).get("nodeName")]))[:count]


def _orphan_adopters(world: World, old: Obj | None, new: Obj | None) -> set[Key]:
    """ReplicaSets that a pod without a manager might belong to."""
    if new is None or controller_ref(new) is not None:
        return set()
    return {
        key(one)
        for one in world[REPLICA_SETS].within(key(new)[0])
        if matches_labels(spec(one).get("selector"), labels(new))
    }


def _pod_trigger(world: World, old: Obj | None, new: Obj | None) -> set[Key]:
    return {*its_controller("ReplicaSet")(world, old, new), *_orphan_adopters(world, old, new)}


CONTROLLER = Controller(
    name="replicaset",
    decide=decide,
    triggers={REPLICA_SETS: itself, PODS: _pod_trigger},
)
