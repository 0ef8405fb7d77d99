"""Deployments, ReplicaSets, DaemonSets, StatefulSets, Jobs and their kin."""

from __future__ import annotations

from typing import Any

from mycel.cluster.apiserver.tables.column import (
    NONE,
    UNSET,
    Object,
    Printer,
    age_of,
    columns,
    containers_of,
    duration,
    labels_text,
    parse_time,
    selector_text,
)


def _name(obj: Object) -> str:
    return obj["metadata"]["name"]


def _parts(obj: Object) -> tuple[Object, Object]:
    return obj.get("spec") or {}, obj.get("status") or {}


def _deployment(obj: Object) -> list[Any]:
    spec, status = _parts(obj)
    names, images = containers_of(obj)
    return [
        _name(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age_of(obj),
        names,
        images,
        selector_text(spec.get("selector")),
    ]


def _replicaset(obj: Object) -> list[Any]:
    spec, status = _parts(obj)
    names, images = containers_of(obj)
    return [
        _name(obj),
        spec.get("replicas", 1),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age_of(obj),
        names,
        images,
        selector_text(spec.get("selector")),
    ]


def _replication_controller(obj: Object) -> list[Any]:
    spec, _ = _parts(obj)
    return [*_replicaset({**obj, "spec": {**spec, "selector": None}})[:-1], labels_text(spec.get("selector"))]


def _daemonset(obj: Object) -> list[Any]:
    spec, status = _parts(obj)
    names, images = containers_of(obj)
    node_selector = ((spec.get("template") or {}).get("spec") or {}).get("nodeSelector")
    return [
        _name(obj),
        status.get("desiredNumberScheduled", 0),
        status.get("currentNumberScheduled", 0),
        status.get("numberReady", 0),
        status.get("updatedNumberScheduled", 0),
        status.get("numberAvailable", 0),
        labels_text(node_selector),
        age_of(obj),
        names,
        images,
        selector_text(spec.get("selector")),
    ]


def _statefulset(obj: Object) -> list[Any]:
    spec, status = _parts(obj)
    names, images = containers_of(obj)
    return [_name(obj), f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}", age_of(obj), names, images]


def _job(obj: Object) -> list[Any]:
    spec, status = _parts(obj)
    names, images = containers_of(obj)
    wanted = spec.get("completions")
    done = f"{status.get('succeeded', 0)}/{wanted if wanted is not None else 1}"
    start, end = parse_time(status.get("startTime")), parse_time(status.get("completionTime"))
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
    state = "Running"
    for kind, word in (("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended")):
        if conditions.get(kind) == "True":
            state = word
            break
    took = duration((end - start).total_seconds()) if start and end else ""
    return [_name(obj), state, done, took, age_of(obj), names, images, selector_text(spec.get("selector"))]


def _cron_job(obj: Object) -> list[Any]:
    spec, status = _parts(obj)
    template = {"spec": (spec.get("jobTemplate") or {}).get("spec") or {}}
    names, images = containers_of(template)
    last = parse_time(status.get("lastScheduleTime"))
    return [
        _name(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        str(bool(spec.get("suspend"))),
        len(status.get("active") or ()),
        age_of({"metadata": {"creationTimestamp": status.get("lastScheduleTime")}}) if last else NONE,
        age_of(obj),
        names,
        images,
        NONE,
    ]


def _revision(obj: Object) -> list[Any]:
    owner = next((o for o in obj["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    group = "" if owner is None else str(owner.get("apiVersion", "")).rpartition("/")[0]
    text = NONE if owner is None else f"{owner['kind'].lower()}{'.' + group if group else ''}/{owner['name']}"
    return [_name(obj), text, obj.get("revision", 0), age_of(obj)]


def _disruption_budget(obj: Object) -> list[Any]:
    spec, status = _parts(obj)
    return [
        _name(obj),
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        status.get("disruptionsAllowed", 0),
        age_of(obj),
    ]


def _autoscaler(obj: Object) -> list[Any]:
    spec, status = _parts(obj)
    reference = spec.get("scaleTargetRef") or {}
    target = spec.get("targetCPUUtilizationPercentage")
    current = status.get("currentCPUUtilizationPercentage")
    shown = f"cpu: {'<unknown>' if current is None else f'{current}%'}/{'<auto>' if target is None else f'{target}%'}"
    return [
        _name(obj),
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        shown,
        str(spec.get("minReplicas", UNSET)),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age_of(obj),
    ]


_TAIL = ("+Containers", "+Images", "+Selector")
WORKLOADS: dict[str, Printer] = {
    "deployments.apps": Printer(columns("Name", "Ready", "Up-to-date#", "Available#", "Age", *_TAIL), _deployment),
    "replicasets.apps": Printer(columns("Name", "Desired#", "Current#", "Ready#", "Age", *_TAIL), _replicaset),
    "replicationcontrollers": Printer(
        columns("Name", "Desired#", "Current#", "Ready#", "Age", *_TAIL), _replication_controller
    ),
    "daemonsets.apps": Printer(
        columns(
            "Name",
            "Desired#",
            "Current#",
            "Ready#",
            "Up-to-date#",
            "Available#",
            "Node Selector",
            "Age",
            *_TAIL,
        ),
        _daemonset,
    ),
    "statefulsets.apps": Printer(columns("Name", "Ready", "Age", "+Containers", "+Images"), _statefulset),
    "jobs.batch": Printer(columns("Name", "Status", "Completions", "Duration", "Age", *_TAIL), _job),
    "cronjobs.batch": Printer(
        columns("Name", "Schedule", "Timezone", "Suspend", "Active#", "Last Schedule", "Age", *_TAIL), _cron_job
    ),
    "controllerrevisions.apps": Printer(columns("Name", "Controller", "Revision#", "Age"), _revision),
    "poddisruptionbudgets.policy": Printer(
        columns("Name", "Min Available", "Max Unavailable", "Allowed Disruptions#", "Age"), _disruption_budget
    ),
    "horizontalpodautoscalers.autoscaling": Printer(
        columns("Name", "Reference", "Targets", "MinPods", "MaxPods#", "Replicas#", "Age"), _autoscaler
    ),
}
