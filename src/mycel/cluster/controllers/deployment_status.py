"""A Deployment's status: counts, and the conditions Available and Progressing that `kubectl rollout status`
reads. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mycel.cluster.controllers.objects import (
    Obj,
    condition,
    evolve,
    format_time,
    generation,
    name,
    parse_time,
    spec,
    status,
    with_condition,
)
from mycel.cluster.controllers.rollout import Budget

_COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")


def observe(
    deployment: Obj, new: Obj | None, sets: Sequence[Obj], *, complete: bool, now_s: float
) -> tuple[Obj, float | None]:
    """The Deployment with fresh status, and in how many seconds its progress deadline has to be looked at."""
    counts = _counts(deployment, new, sets)
    before = status(deployment)
    fresh: dict[str, Any] = {field: value for field, value in before.items() if field not in _COUNTS}
    fresh.update({field: count for field, count in counts.items() if count})
    fresh["observedGeneration"] = generation(deployment)
    conditions = _available(deployment, counts, now_s)
    progressing = _progressing(deployment, new, counts, complete=complete, now_s=now_s)
    again_s = None
    if progressing is not None:
        moved = any(counts[field] != before.get(field, 0) for field in _COUNTS)
        conditions = _with_progress(conditions, progressing, moved=moved, now_s=now_s)
        deadline_s = spec(deployment).get("progressDeadlineSeconds")
        if not complete and deadline_s is not None and progressing["status"] == "True":
            last = next(c for c in conditions if c["type"] == "Progressing")
            again_s = max(parse_time(last.get("lastUpdateTime")) + deadline_s - now_s, 0) + 1
    fresh["conditions"] = conditions
    return evolve(deployment, "status", value=fresh), again_s


def _counts(deployment: Obj, new: Obj | None, sets: Sequence[Obj]) -> dict[str, int]:
    total = sum(status(one).get("replicas", 0) for one in sets)
    available = sum(status(one).get("availableReplicas", 0) for one in sets)
    sized = sum(spec(one).get("replicas", 1) for one in sets)
    return {
        "replicas": total,
        "updatedReplicas": status(new).get("replicas", 0) if new is not None else 0,
        "readyReplicas": sum(status(one).get("readyReplicas", 0) for one in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(sized - available, 0),
    }


def _available(deployment: Obj, counts: dict[str, int], now_s: float) -> list[Obj]:
    enough = counts["availableReplicas"] >= spec(deployment).get("replicas", 1) - _unavailable(deployment)
    wording = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    if not enough:
        wording = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    return _place(deployment, status(deployment).get("conditions"), "Available", wording, now_s)


def _unavailable(deployment: Obj) -> int:
    strategy = spec(deployment).get("strategy") or {}
    return Budget.of(deployment).unavailable if strategy.get("type") != "Recreate" else 0


def _progressing(
    deployment: Obj, new: Obj | None, counts: dict[str, int], *, complete: bool, now_s: float
) -> Obj | None:
    """The Progressing condition that holds now, or None when nothing is to be said about it."""
    if spec(deployment).get("progressDeadlineSeconds") is None:
        return None
    found = condition(deployment, "Progressing")
    subject = f'ReplicaSet "{name(new)}"' if new is not None else f'Deployment "{name(deployment)}"'
    if spec(deployment).get("paused"):
        return _progress("Unknown", "DeploymentPaused", "Deployment is paused")
    if found is not None and found.get("reason") == "DeploymentPaused":
        return _progress("Unknown", "DeploymentResumed", "Deployment is resumed")
    if complete:
        return _progress("True", "NewReplicaSetAvailable", f"{subject} has successfully progressed.")
    if found is None or new is None:
        return _progress("True", "NewReplicaSetCreated", f"Created new replica set for {subject}")
    before = status(deployment)
    moved = any(
        counts[field] > before.get(field, 0) for field in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )
    shrunk = counts["replicas"] - counts["updatedReplicas"] < before.get("replicas", 0) - before.get(
        "updatedReplicas", 0
    )
    if moved or shrunk or found.get("reason") in ("NewReplicaSetAvailable", "DeploymentResumed"):
        return _progress("True", "ReplicaSetUpdated", f"{subject} is progressing.")
    deadline_s = spec(deployment)["progressDeadlineSeconds"]
    if found.get("reason") == "ProgressDeadlineExceeded":
        return {**found}
    if parse_time(found.get("lastUpdateTime")) + deadline_s < now_s:
        return _progress("False", "ProgressDeadlineExceeded", f"{subject} has timed out progressing.")
    return {**found}


def _progress(state: str, reason: str, message: str) -> Obj:
    return {"type": "Progressing", "status": state, "reason": reason, "message": message}


def _with_progress(conditions: list[Obj], fresh: Obj, *, moved: bool, now_s: float) -> list[Obj]:
    """Place the condition; its update time moves with every step of progress, so that the deadline starts
    anew.
    """
    old = next((c for c in conditions if c.get("type") == "Progressing"), None)
    same = old is not None and (old.get("status"), old.get("reason")) == (fresh["status"], fresh["reason"])
    keep = old is not None and same and not (moved and fresh["reason"] == "ReplicaSetUpdated")
    since = old.get("lastUpdateTime") if keep and old is not None else format_time(now_s)
    return with_condition(conditions, {**fresh, "lastUpdateTime": since}, now_s)


def _place(
    deployment: Obj, conditions: list[Obj] | None, kind: str, wording: tuple[str, str, str], now_s: float
) -> list[Obj]:
    state, reason, message = wording
    old = condition(deployment, kind)
    since = old.get("lastUpdateTime") if old is not None and old.get("status") == state else format_time(now_s)
    fresh = {"type": kind, "status": state, "reason": reason, "message": message, "lastUpdateTime": since}
    return with_condition(conditions, fresh, now_s)
