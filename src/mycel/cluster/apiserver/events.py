"""The two shapes of an Event: core/v1 (as stored) and events.k8s.io/v1."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

# events.k8s.io/v1 name → core/v1 name, where they differ.
_RENAMED = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}
_BACK = {core: new for new, core in _RENAMED.items()}


def to_core_event(obj: Object) -> Object:
    """An events.k8s.io/v1 Event as core/v1."""
    made = {_RENAMED.get(name, name): value for name, value in obj.items()}
    made["apiVersion"] = "v1"
    made.setdefault("involvedObject", {})
    return made


def from_core_event(obj: Object) -> Object:
    """A core/v1 Event as events.k8s.io/v1."""
    made = {_BACK.get(name, name): value for name, value in obj.items()}
    made["apiVersion"] = "events.k8s.io/v1"
    made.setdefault("eventTime", None)
    return made
