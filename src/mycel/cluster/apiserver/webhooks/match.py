"""Which webhooks a write concerns: rules, operations, scopes and selectors. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mycel.cluster.apiserver.registry import Kind

Object = dict[str, Any]
# An administrator must be able to take a broken webhook away, whatever it would say to that.
_NEVER_SENT = frozenset({"validatingwebhookconfigurations.admissionregistration.k8s.io"})


class Operation(Enum):
    """What a write does."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class Write:
    """One write that is about to be made. Objects are as they are stored; None: there is none, or not yet known."""

    operation: Operation
    kind: Kind
    subresource: str = ""
    new: Object | None = None
    old: Object | None = None

    @property
    def metadata(self) -> Object:
        """Of the object it is about."""
        obj = self.new or self.old
        assert obj is not None
        return obj["metadata"]


def matching_kind(webhook: Object, write: Write, kinds: Callable[[], Iterable[Kind]]) -> Kind | None:
    """The version a webhook wants to see of this write; None when no rule asks for it.

    `kinds`: every kind that is served; another version of the same resource counts unless matchPolicy is Exact.
    """
    if write.kind.resource in _NEVER_SENT:
        return None
    rules: list[Object] = [rule for rule in webhook.get("rules") or () if _operation(rule, write)]
    if not rules:
        return None
    if any(_resource(rule, write.kind, write) for rule in rules):
        return write.kind
    if webhook.get("matchPolicy") == "Exact":
        return None
    for kind in kinds():
        if kind.resource == write.kind.resource and any(_resource(rule, kind, write) for rule in rules):
            return kind
    return None


def takes_namespace(webhook: Object, kind: Kind, labels: Callable[[], Object]) -> bool:
    """Whether the namespaceSelector takes a write of this kind; `labels` are those of the object's namespace."""
    wanted = webhook.get("namespaceSelector")
    return not wanted or not kind.namespaced or labels_match(wanted, labels())


def takes_objects(webhook: Object, write: Write) -> bool:
    """Whether the objectSelector takes the new or the old object; of Namespaces the namespaceSelector, too."""
    wanted = webhook.get("namespaceSelector")
    if wanted and write.kind.resource == "namespaces" and not labels_match(wanted, write.metadata.get("labels") or {}):
        return False
    wanted = webhook.get("objectSelector")
    if not wanted:
        return True
    objects = [obj for obj in (write.new, write.old) if obj is not None]
    return any(labels_match(wanted, obj["metadata"].get("labels") or {}) for obj in objects)


def labels_match(selector: Object, labels: Object) -> bool:
    """A LabelSelector; an empty one matches everything."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    return all(_holds(one, labels) for one in selector.get("matchExpressions") or ())


def _holds(requirement: Object, labels: Object) -> bool:
    key, values = requirement["key"], requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _operation(rule: Object, write: Write) -> bool:
    operations = rule.get("operations") or ()
    return "*" in operations or write.operation.value in operations


def _resource(rule: Object, kind: Kind, write: Write) -> bool:
    if not _among(kind.group, rule.get("apiGroups")) or not _among(kind.version, rule.get("apiVersions")):
        return False
    namespaced = kind.namespaced
    if rule.get("scope", "*") not in ("*", "Namespaced" if namespaced else "Cluster"):
        return False
    for text in rule.get("resources") or ():
        resource, _, subresource = text.partition("/")
        if resource in ("*", kind.plural) and subresource in ("*", write.subresource):
            return True
    return False


def _among(value: str, allowed: list[str] | None) -> bool:
    return "*" in (allowed or ()) or value in (allowed or ())
