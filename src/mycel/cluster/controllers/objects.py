"""Reading Kubernetes objects as the plain dicts they arrive as.

Objects come from the shared caches (`world.py`) and are never changed in place: whoever wants another
version of one builds it with `evolve` and hands it to `writes.update`, which derives the patch.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NewType

Obj = dict[str, Any]
Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is the empty string."""
Uid = NewType("Uid", str)

_FINISHED = ("Succeeded", "Failed")


def meta(obj: Mapping[str, Any]) -> Obj:
    """The object's `metadata`."""
    return obj.get("metadata") or {}


def name(obj: Mapping[str, Any]) -> str:
    """`metadata.name`."""
    return meta(obj).get("name", "")


def namespace(obj: Mapping[str, Any]) -> str:
    """`metadata.namespace`, empty for cluster-scoped objects."""
    return meta(obj).get("namespace") or ""


def key(obj: Mapping[str, Any]) -> Key:
    """The object's place within its kind."""
    found = meta(obj)
    return found.get("namespace") or "", found.get("name", "")


def uid(obj: Mapping[str, Any]) -> Uid:
    """`metadata.uid`."""
    return Uid(meta(obj).get("uid", ""))


def labels(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """`metadata.labels`, never None."""
    return meta(obj).get("labels") or {}


def annotations_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """`metadata.annotations`, never None."""
    return meta(obj).get("annotations") or {}


def spec(obj: Mapping[str, Any]) -> Obj:
    """The object's `spec`, never None."""
    return obj.get("spec") or {}


def status(obj: Mapping[str, Any]) -> Obj:
    """The object's `status`, never None."""
    return obj.get("status") or {}


def generation(obj: Mapping[str, Any]) -> int:
    """`metadata.generation`."""
    return meta(obj).get("generation") or 0


def is_deleting(obj: Mapping[str, Any]) -> bool:
    """True once somebody asked for the object's deletion."""
    return bool(meta(obj).get("deletionTimestamp"))


def created_s(obj: Mapping[str, Any]) -> float:
    """Creation time in seconds since the epoch."""
    return parse_time(meta(obj).get("creationTimestamp"))


def owner_refs(obj: Mapping[str, Any]) -> list[Obj]:
    """`metadata.ownerReferences`, never None."""
    return meta(obj).get("ownerReferences") or []


def controller_ref(obj: Mapping[str, Any]) -> Obj | None:
    """The one owner that manages this object."""
    return next((ref for ref in owner_refs(obj) if ref.get("controller")), None)


def controller_uid(obj: Mapping[str, Any]) -> str | None:
    """Uid of the managing owner; the caches index by it."""
    ref = controller_ref(obj)
    return ref.get("uid") if ref else None


def evolve(obj: Obj, *path: str, value: Any) -> Obj:
    """A copy of `obj` with the field at `path` set; None removes it. Only the path is copied."""
    head, *rest = path
    fresh = dict(obj)
    if rest:
        fresh[head] = evolve(obj.get(head) or {}, *rest, value=value)
    elif value is None:
        fresh.pop(head, None)
    else:
        fresh[head] = value
    return fresh


def parse_time(text: str | None) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0.0 for none."""
    if not text:
        return 0.0
    return datetime.datetime.fromisoformat(text).timestamp()


def format_time(when_s: float) -> str:
    """RFC 3339 in UTC, whole seconds, as `metav1.Time` prints."""
    return datetime.datetime.fromtimestamp(int(when_s), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(when_s: float) -> str:
    """RFC 3339 in UTC with microseconds, as `metav1.MicroTime` prints."""
    return datetime.datetime.fromtimestamp(when_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def condition(obj: Mapping[str, Any], kind: str) -> Obj | None:
    """The status condition of that type."""
    return next((c for c in status(obj).get("conditions") or () if c.get("type") == kind), None)


def condition_is(obj: Mapping[str, Any], kind: str, wanted: str = "True") -> bool:
    """True when the condition exists with that status."""
    found = condition(obj, kind)
    return found is not None and found.get("status") == wanted


def with_condition(conditions: Iterable[Obj] | None, fresh: Obj, now_s: float) -> list[Obj]:
    """The conditions with `fresh` in them; its transition time moves only when the status changes."""
    result: list[Obj] = []
    placed = False
    for old in conditions or ():
        if old.get("type") != fresh["type"]:
            result.append(old)
            continue
        placed = True
        same = old.get("status") == fresh["status"]
        since = old.get("lastTransitionTime") if same else None
        result.append({**old, **fresh, "lastTransitionTime": since or format_time(now_s)})
    if not placed:
        result.append({**fresh, "lastTransitionTime": format_time(now_s)})
    return result


def is_active(pod: Obj) -> bool:
    """A pod that still counts as a replica: neither finished nor on its way out."""
    return status(pod).get("phase") not in _FINISHED and not is_deleting(pod)


def is_finished(pod: Obj) -> bool:
    """A pod whose containers have all ended for good."""
    return status(pod).get("phase") in _FINISHED


def is_ready(pod: Obj) -> bool:
    """The pod's Ready condition."""
    return condition_is(pod, "Ready")


class Availability(NamedTuple):
    """Whether a pod has been ready for long enough, and how long until then when it has not."""

    now: bool
    in_s: float | None


def availability(pod: Obj, min_ready_s: float, now_s: float) -> Availability:
    """Ready for at least `min_ready_s` seconds."""
    ready = condition(pod, "Ready")
    if ready is None or ready.get("status") != "True":
        return Availability(False, None)
    if not min_ready_s:
        return Availability(True, None)
    left_s = parse_time(ready.get("lastTransitionTime")) + min_ready_s - now_s
    return Availability(left_s <= 0, left_s if left_s > 0 else None)


def container_ports(pod_spec: Obj) -> Iterable[Obj]:
    """Every declared container port, restartable init containers included."""
    for init in pod_spec.get("initContainers") or ():
        if init.get("restartPolicy") == "Always":
            yield from init.get("ports") or ()
    for container in pod_spec.get("containers") or ():
        yield from container.get("ports") or ()


def int_or_percent(value: int | str | None, total: int, *, round_up: bool) -> int:
    """Resolve an int-or-string such as `25%` against `total`; None is 0."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        return int(value)
    scaled = int(value[:-1]) * total
    return -(-scaled // 100) if round_up else scaled // 100
