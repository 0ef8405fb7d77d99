"""Deployments: one ReplicaSet per pod template, and the way from the old ones to the new one. Pure.

A pass does the first thing that is due (adopt, make the new ReplicaSet, scale, roll one step, clean up) and
reports status; the watch events of what it did bring the next pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mycel.cluster.controllers.deployment_status import observe
from mycel.cluster.controllers.hashing import template_hash
from mycel.cluster.controllers.loop import Controller, its_controller, itself
from mycel.cluster.controllers.objects import (
    Key,
    Obj,
    annotations_of,
    controller_ref,
    evolve,
    generation,
    is_deleting,
    is_finished,
    key,
    labels,
    name,
    namespace,
    spec,
    status,
    uid,
)
from mycel.cluster.controllers.ownership import claim
from mycel.cluster.controllers.rollout import (
    Budget,
    Replicas,
    SetName,
    Sizes,
    new_set_size,
    oldest_first,
    shrink_old,
    spread_proportionally,
)
from mycel.cluster.controllers.selectors import matches_labels
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import (
    Decision,
    Note,
    Write,
    create,
    delete,
    note,
    owner_reference,
    update,
)
from mycel.k8s.resources import DEPLOYMENTS, PODS, REPLICA_SETS

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_OWN_ANNOTATIONS = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
}


class Sets(NamedTuple):
    """A Deployment's ReplicaSets: the one with today's template, and the others, oldest first."""

    new: Obj | None
    old: tuple[Obj, ...]

    @property
    def all(self) -> tuple[Obj, ...]:
        """Every one of them, the new one last."""
        return (*self.old, self.new) if self.new is not None else self.old


def decide(world: World, where: Key, now_s: float) -> Decision:
    """One pass over one Deployment."""
    deployment = world[DEPLOYMENTS].get(where)
    if deployment is None:
        return Decision()
    claimed = claim(
        DEPLOYMENTS,
        deployment,
        kind=REPLICA_SETS,
        candidates=world[REPLICA_SETS].within(where[0]),
        selector=spec(deployment).get("selector"),
    )
    if claimed.writes:
        return Decision(claimed.writes)
    sets = sort_sets(deployment, claimed.owned)
    if is_deleting(deployment):
        return _report(deployment, sets, now_s)
    if spec(deployment).get("paused") or _scaled_meanwhile(deployment, sets):
        step = _resize(deployment, sets, _proportional(deployment, sets))
        return _report(deployment, sets, now_s, step)
    if _strategy(deployment) == "Recreate":
        return _recreate(world, deployment, sets, now_s)
    return _roll(world, deployment, sets, now_s)


def sort_sets(deployment: Obj, owned: Sequence[Obj]) -> Sets:
    """Find the ReplicaSet whose template is the Deployment's; the oldest one if there are several."""
    template = spec(deployment).get("template") or {}
    new: Obj | None = None
    old: list[Obj] = []
    for one in oldest_first(owned):
        if new is None and not is_deleting(one) and _plain_template(one) == template:
            new = one
        else:
            old.append(one)
    return Sets(new, tuple(old))


def _plain_template(replica_set: Obj) -> Obj:
    """The pod template without the hash label we added."""
    template = spec(replica_set).get("template") or {}
    kept = {k: v for k, v in ((template.get("metadata") or {}).get("labels") or {}).items() if k != HASH_LABEL}
    return evolve(template, "metadata", "labels", value=kept or None)


def _strategy(deployment: Obj) -> str:
    return (spec(deployment).get("strategy") or {}).get("type") or "RollingUpdate"


def _wanted(deployment: Obj) -> int:
    return spec(deployment).get("replicas", 1)


def _size(replica_set: Obj) -> int:
    return spec(replica_set).get("replicas", 1)


def _revision(obj: Obj) -> int:
    text = annotations_of(obj).get(REVISION, "0")
    return int(text) if text.isdecimal() else 0


def _set_annotations(deployment: Obj, revision: int) -> dict[str, str]:
    copied = {k: v for k, v in annotations_of(deployment).items() if k not in _OWN_ANNOTATIONS}
    return {**copied, REVISION: str(revision), **_size_annotations(deployment)}


def _size_annotations(deployment: Obj) -> dict[str, str]:
    surge = Budget.of(deployment).surge if _strategy(deployment) == "RollingUpdate" else 0
    return {DESIRED: str(_wanted(deployment)), MAXIMUM: str(_wanted(deployment) + surge)}


class Step(NamedTuple):
    """Writes of one pass besides the status, and the notes that tell of them."""

    writes: tuple[Write, ...] = ()
    notes: tuple[Note, ...] = ()


def _make_new_set(world: World, deployment: Obj, sets: Sets, size: int) -> Step:
    revision = max((_revision(one) for one in sets.old), default=0) + 1
    template = spec(deployment).get("template") or {}
    collisions = status(deployment).get("collisionCount", 0)
    digest = template_hash(template, collisions)
    set_name = f"{name(deployment)}-{digest}"
    taken = world[REPLICA_SETS].get((namespace(deployment), set_name))
    if taken is not None and (controller_ref(taken) or {}).get("uid") != uid(deployment):
        # Somebody else's ReplicaSet has the name: the next pass hashes with another count.
        moved = evolve(deployment, "status", "collisionCount", value=collisions + 1)
        return Step(update(DEPLOYMENTS, deployment, moved, subresource="status"))
    tagged = evolve(
        template,
        "metadata",
        "labels",
        value={**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest},
    )
    selector = spec(deployment).get("selector") or {}
    body: Obj = {
        "metadata": {
            "name": set_name,
            "namespace": namespace(deployment),
            "labels": tagged["metadata"]["labels"],
            "annotations": _set_annotations(deployment, revision),
            "ownerReferences": [owner_reference(DEPLOYMENTS, deployment)],
        },
        "spec": {
            "replicas": size,
            "minReadySeconds": spec(deployment).get("minReadySeconds", 0),
            "selector": {
                **selector,
                "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: digest},
            },
            "template": tagged,
        },
    }
    notes = (_scaling_note(deployment, set_name, "up", 0, size),) if size else ()
    return Step((create(REPLICA_SETS, body), *_own_revision(deployment, revision)), notes)


def _own_revision(deployment: Obj, revision: int) -> tuple[Write, ...]:
    fresh = evolve(deployment, "metadata", "annotations", REVISION, value=str(revision))
    return update(DEPLOYMENTS, deployment, fresh)


def _refresh_new_set(deployment: Obj, sets: Sets) -> tuple[Write, ...]:
    """Keep the new ReplicaSet's revision above all others (a rollback reuses an old one) and its
    annotations.
    """
    new = sets.new
    if new is None:
        return ()
    current = _revision(new)
    revision = max([current, *(_revision(one) + 1 for one in sets.old)])
    wanted = {**annotations_of(new), **_set_annotations(deployment, revision)}
    if revision != current and current:
        history = [part for part in annotations_of(new).get(HISTORY, "").split(",") if part]
        wanted[HISTORY] = ",".join([*history, str(current)])
    for field in (DESIRED, MAXIMUM):  # these move together with the size
        if field in annotations_of(new):
            wanted[field] = annotations_of(new)[field]
    fresh = evolve(new, "metadata", "annotations", value=wanted)
    min_ready_s = spec(deployment).get("minReadySeconds", 0)
    if spec(new).get("minReadySeconds", 0) != min_ready_s:
        fresh = evolve(fresh, "spec", "minReadySeconds", value=min_ready_s)
    return (*update(REPLICA_SETS, new, fresh), *_own_revision(deployment, revision))


def _scaled_meanwhile(deployment: Obj, sets: Sets) -> bool:
    """The Deployment's size changed since its active ReplicaSets were last sized."""
    wanted = str(_wanted(deployment))
    return any(
        _size(one) > 0 and DESIRED in annotations_of(one) and annotations_of(one)[DESIRED] != wanted for one in sets.all
    )


def _proportional(deployment: Obj, sets: Sets) -> Sizes:
    """Sizes after scaling without rolling: one active ReplicaSet takes all, several share."""
    wanted = _wanted(deployment)
    active = [one for one in sets.all if _size(one) > 0]
    single = active[0] if len(active) == 1 else (sets.new or (sets.old[-1] if sets.old else None))
    if len(active) <= 1:
        return {} if single is None else {SetName(name(single)): wanted}
    new = sets.new
    if new is not None and status(new).get("availableReplicas", 0) == wanted == _size(new):
        return {SetName(name(one)): 0 for one in sets.old if _size(one) > 0}
    if _strategy(deployment) != "RollingUpdate":
        return {}
    allowed = wanted + Budget.of(deployment).surge if wanted else 0
    pairs = [(Replicas.of(one), int(annotations_of(one).get(MAXIMUM) or 0)) for one in active]
    return spread_proportionally(allowed, pairs, was_allowed=allowed)


def _resize(deployment: Obj, sets: Sets, sizes: Sizes) -> Step:
    """Bring ReplicaSets to these sizes, and every active one's size annotations up to date."""
    writes: list[Write] = []
    notes: list[Note] = []
    for one in sets.all:
        size = sizes.get(SetName(name(one)), _size(one))
        fresh = evolve(one, "spec", "replicas", value=size) if size != _size(one) else one
        if size or _size(one):
            fresh = evolve(
                fresh,
                "metadata",
                "annotations",
                value={**annotations_of(one), **_size_annotations(deployment)},
            )
        writes.extend(update(REPLICA_SETS, one, fresh))
        if size != _size(one):
            direction = "up" if size > _size(one) else "down"
            notes.append(_scaling_note(deployment, name(one), direction, _size(one), size))
    return Step(tuple(writes), tuple(notes))


def _scaling_note(deployment: Obj, set_name: str, direction: str, before: int, after: int) -> Note:
    message = f"Scaled {direction} replica set {set_name} from {before} to {after}"
    return note(DEPLOYMENTS, deployment, "ScalingReplicaSet", message)


def _roll(world: World, deployment: Obj, sets: Sets, now_s: float) -> Decision:
    wanted, budget = _wanted(deployment), Budget.of(deployment)
    total = sum(map(_size, sets.all))
    if sets.new is None:
        size = new_set_size(wanted, 0, total, budget)
        return _report(deployment, sets, now_s, _make_new_set(world, deployment, sets, size))
    refreshed = _refresh_new_set(deployment, sets)
    if refreshed:
        return _report(deployment, sets, now_s, Step(refreshed))
    new = Replicas.of(sets.new)
    size = new_set_size(wanted, new.wanted, total, budget)
    sizes: Sizes = {new.name: size}
    if size == new.wanted:
        sizes = shrink_old(wanted, new, [Replicas.of(one) for one in sets.old], budget)
    step = _resize(deployment, sets, sizes)
    return _report(deployment, sets, now_s, step if step.writes else Step(_clean_up(deployment, sets)))


def _recreate(world: World, deployment: Obj, sets: Sets, now_s: float) -> Decision:
    step = _resize(deployment, sets, {SetName(name(one)): 0 for one in sets.old})
    if step.writes:
        return _report(deployment, sets, now_s, step)
    if any(not is_finished(pod) for one in sets.old for pod in world[PODS].managed_by(uid(one))):
        return _report(deployment, sets, now_s)
    if sets.new is None:
        step = _make_new_set(world, deployment, sets, _wanted(deployment))
        return _report(deployment, sets, now_s, step)
    refreshed = _refresh_new_set(deployment, sets)
    if refreshed:
        return _report(deployment, sets, now_s, Step(refreshed))
    step = _resize(deployment, sets, {SetName(name(sets.new)): _wanted(deployment)})
    return _report(deployment, sets, now_s, step if step.writes else Step(_clean_up(deployment, sets)))


def is_complete(deployment: Obj, sets: Sets) -> bool:
    """The new ReplicaSet has all pods, all available, and no old one has any."""
    wanted = _wanted(deployment)
    return (
        sets.new is not None
        and status(sets.new).get("replicas", 0) == status(sets.new).get("availableReplicas", 0) == wanted
        and all(status(one).get("replicas", 0) == 0 for one in sets.old)
    )


def _clean_up(deployment: Obj, sets: Sets) -> tuple[Write, ...]:
    """Delete the oldest emptied ReplicaSets beyond `revisionHistoryLimit`, once the rollout is complete."""
    limit = spec(deployment).get("revisionHistoryLimit", 10)
    if limit is None or not is_complete(deployment, sets):
        return ()
    idle = [
        one
        for one in sorted(sets.old, key=_revision)
        if not is_deleting(one)
        and _size(one) == 0
        and status(one).get("replicas", 0) == 0
        and status(one).get("observedGeneration", 0) >= generation(one)
    ]
    alive = sum(not is_deleting(one) for one in sets.old)
    return tuple(delete(REPLICA_SETS, one) for one in idle[: max(alive - limit, 0)])


def _report(deployment: Obj, sets: Sets, now_s: float, step: Step | None = None) -> Decision:
    step = step or Step()
    fresh, again_s = observe(deployment, sets.new, sets.all, complete=is_complete(deployment, sets), now_s=now_s)
    reported = update(DEPLOYMENTS, deployment, fresh, subresource="status")
    return Decision((*step.writes, *reported), step.notes, again_s)


def _orphan_adopters(world: World, obj: Obj | None) -> set[Key]:
    if obj is None or controller_ref(obj) is not None:
        return set()
    return {
        key(one)
        for one in world[DEPLOYMENTS].within(namespace(obj))
        if matches_labels(spec(one).get("selector"), labels(obj))
    }


def _set_trigger(world: World, old: Obj | None, new: Obj | None) -> set[Key]:
    return {*its_controller("Deployment")(world, old, new), *_orphan_adopters(world, new)}


def _pod_gone_trigger(world: World, old: Obj | None, new: Obj | None) -> set[Key]:
    """Recreate waits for the last old pod."""
    if old is None or new is not None:
        return set()
    ref = controller_ref(old)
    owner = world[REPLICA_SETS].get((namespace(old), ref["name"])) if ref else None
    return set(its_controller("Deployment")(world, None, owner))


CONTROLLER = Controller(
    name="deployment",
    decide=decide,
    triggers={DEPLOYMENTS: itself, REPLICA_SETS: _set_trigger, PODS: _pod_gone_trigger},
)
