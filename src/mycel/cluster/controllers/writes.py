"""What a controller wants done: writes and events as values.

Deciding makes them, `apply.py` performs them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mycel.cluster.controllers.objects import Obj, Uid, meta, name, namespace, uid
from mycel.k8s.resources import Resource


class Verb(enum.Enum):
    """The four ways an object is changed."""

    CREATE = "create"
    PATCH = "patch"
    DELETE = "delete"
    POST = "post"  # a subresource that is an action, such as pods/binding


class Propagation(enum.Enum):
    """What happens to the dependents of a deleted object."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


@dataclass(frozen=True, slots=True)
class Write:
    """One request to the API server."""

    verb: Verb
    resource: Resource
    namespace: str
    name: str
    body: Mapping[str, Any]
    subresource: str = ""

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        sub = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb.value} {self.resource.plural}{sub} {place}"


@dataclass(frozen=True, slots=True)
class Note:
    """An Event about an object, for whoever runs `kubectl describe`."""

    resource: Resource
    namespace: str
    name: str
    uid: Uid
    reason: str
    message: str
    warning: bool = False
    component: str = "mycel-controllers"
    """Who says it."""


class Decision(NamedTuple):
    """What one pass over one object came to."""

    writes: tuple[Write, ...] = ()
    notes: tuple[Note, ...] = ()
    again_s: float | None = None
    """Look again after so many seconds even if nothing changes."""


def create(resource: Resource, body: Obj) -> Write:
    """Create `body`; a missing name means the server completes `metadata.generateName`."""
    whole = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
    return Write(Verb.CREATE, resource, namespace(body), name(body), whole)


def update(resource: Resource, old: Obj, new: Obj, *, subresource: str = "", locked: bool = False) -> tuple[Write, ...]:
    """The merge patch that leads from `old` to `new`, or nothing when they are equal.

    `locked` makes it fail with a conflict when somebody else wrote in between: for lists that others also
    edit.
    """
    patch = merge_diff(old, new)
    if not patch:
        return ()
    if locked:
        patch = {**patch, "metadata": {**patch.get("metadata", {})}}
        patch["metadata"]["resourceVersion"] = meta(old).get("resourceVersion")
        patch["metadata"]["uid"] = uid(old)
    return (Write(Verb.PATCH, resource, namespace(old), name(old), patch, subresource),)


def delete(
    resource: Resource, obj: Obj, *, grace_s: int | None = None, propagation: Propagation | None = None
) -> Write:
    """Delete exactly this object (by uid), not another that took its name."""
    body: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid(obj)}}
    if grace_s is not None:
        body["gracePeriodSeconds"] = grace_s
    if propagation is not None:
        body["propagationPolicy"] = propagation.value
    return Write(Verb.DELETE, resource, namespace(obj), name(obj), body)


def note(resource: Resource, obj: Obj, reason: str, message: str, *, warning: bool = False) -> Note:
    """An Event about `obj`."""
    return Note(resource, namespace(obj), name(obj), uid(obj), reason, message, warning)


def owner_reference(resource: Resource, owner: Obj) -> Obj:
    """The reference a managed object carries to its controller."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": name(owner),
        "uid": uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def merge_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> Obj:
    """The JSON merge patch (RFC 7396) from `old` to `new`; lists are replaced whole."""
    patch: Obj = {}
    for field, value in new.items():
        before = old.get(field)
        if before == value:
            continue
        if isinstance(before, dict) and isinstance(value, dict):
            patch[field] = merge_diff(before, value)
        else:
            patch[field] = value
    patch.update(dict.fromkeys(old.keys() - new.keys()))
    return patch
