"""What the store keeps: one object's version, and one change.

A record is born as a dict (from a request) or as bytes (from disk). The bytes are what lists and watches
send, so they are encoded once per version; the dict of a version that is no longer current is dropped.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple, NewType

import msgspec

Revision = NewType("Revision", int)
ResourceId = NewType("ResourceId", str)  # "pods", "deployments.apps": stable over API versions
Object = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class ChangeType(Enum):
    """The watch protocol's words, which are also those of the log table."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Record:
    """One version of one object. Its dict must not be changed: it is shared by every reader."""

    __slots__ = ("_frames", "_object", "name", "namespace", "raw", "resource", "revision")

    def __init__(
        self,
        resource: ResourceId,
        namespace: str,
        name: str,
        *,
        revision: Revision,
        raw: bytes,
        obj: Object | None,
    ) -> None:
        self.resource = resource
        self.namespace = namespace
        self.name = name
        self.revision = revision
        self.raw = raw
        self._object = obj
        self._frames: dict[ChangeType, bytes] | None = None

    @classmethod
    def of(cls, resource: ResourceId, obj: Object, revision: Revision) -> Record:
        """The record of an object whose resourceVersion is already `revision`."""
        meta = obj["metadata"]
        return cls(resource, meta.get("namespace", ""), meta["name"], revision=revision, raw=_encode(obj), obj=obj)

    @property
    def obj(self) -> Object:
        """The object as a dict, decoded when first asked for. Read only."""
        if self._object is None:
            self._object = _decode(self.raw)
        return self._object  # type: ignore[return-value]

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name); the namespace is empty for cluster-wide kinds."""
        return self.namespace, self.name

    def frame(self, change: ChangeType) -> bytes:
        """One line of a watch stream, shared by all watchers of this version."""
        if self._frames is None:
            self._frames = {}
        found = self._frames.get(change)
        if found is None:
            found = b'{"type":"%s","object":%s}\n' % (change.value.encode(), self.raw)
            self._frames[change] = found
        return found

    def shrink(self) -> None:
        """Forget what can be made again from the bytes."""
        self._object = None
        self._frames = None

    def __repr__(self) -> str:
        return f"<{self.resource} {self.namespace}/{self.name} @{self.revision}>"


class Change(NamedTuple):
    """One step of history. `before` is None for ADDED, and for changes read back from an old log."""

    revision: Revision
    type: ChangeType
    before: Record | None
    after: Record
