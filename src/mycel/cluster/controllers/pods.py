"""Pods made from a template by whatever manages them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mycel.cluster.controllers.objects import (
    Obj,
    condition,
    created_s,
    is_ready,
    name,
    namespace,
    parse_time,
    spec,
    status,
)
from mycel.cluster.controllers.writes import Write, create, owner_reference
from mycel.k8s.resources import PODS, Resource


def create_pod(
    kind: Resource,
    owner: Obj,
    *,
    pod_name: str | None = None,
    extra_labels: Mapping[str, str] | None = None,
    pod_spec: Obj | None = None,
) -> Write:
    """Create a pod from the owner's `spec.template`; without `pod_name` the server completes the name."""
    template = spec(owner).get("template") or {}
    given = template.get("metadata") or {}
    metadata: Obj = {
        "namespace": namespace(owner),
        "labels": {**(given.get("labels") or {}), **(extra_labels or {})},
        "ownerReferences": [owner_reference(kind, owner)],
    }
    if pod_name is None:
        metadata["generateName"] = name(owner)[:246] + "-"
    else:
        metadata["name"] = pod_name
    for field in ("annotations", "finalizers"):
        if given.get(field):
            metadata[field] = given[field]
    return create(PODS, {"metadata": metadata, "spec": pod_spec or template.get("spec") or {}})


def deletion_rank(pod: Obj, crowd: int) -> tuple[object, ...]:
    """Sort key for scaling down: the pods whose loss costs least come first.

    The order of Kubernetes' `ActivePodsWithRanks`: not placed, not started, not ready, lower deletion cost,
    on a crowded node (`crowd` related pods there), ready for a shorter time, restarted more often, younger.
    """
    ready = condition(pod, "Ready")
    ready_since_s = parse_time(ready.get("lastTransitionTime")) if is_ready(pod) and ready else float("inf")
    phase = {"Pending": 0, "Unknown": 1}.get(status(pod).get("phase") or "Pending", 2)
    restarts = max((one.get("restartCount", 0) for one in status(pod).get("containerStatuses") or ()), default=0)
    return (
        bool(spec(pod).get("nodeName")),
        phase,
        is_ready(pod),
        _deletion_cost(pod),
        -crowd,
        -ready_since_s,
        -restarts,
        -created_s(pod),
        name(pod),
    )


def _deletion_cost(pod: Obj) -> int:
    text = (pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0")
    try:
        return int(text)
    except ValueError:
        return 0
