"""Labels with their sources, and selectors over them.

A label is `source:key=value` (`k8s:app=web`, `reserved:host`, `cidr:10.0.0.0/8`). A selector's key may name
a source; without one, or with `any`, every source will do. A label never satisfies another source: a pod's
own `reserved:host` does not exist, since all its labels are `k8s`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from mycel.identity.labels import CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX

ANY_SOURCE = "any"
SOURCES = frozenset(
    {"any", "k8s", "reserved", "cidr", "cidrgroup", "fqdn", "node", "cni", "gen", "unspec", "directory"}
)

LabelMap = Mapping[str, tuple[tuple[str, str], ...]]
"""Key → (source, value) of every label with this key."""


class Operator(Enum):
    """What a requirement asks of a label's value."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class Requirement(NamedTuple):
    """One condition on one key."""

    source: str
    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: LabelMap) -> bool:
        """Whether labels satisfy it. A key that is absent satisfies NotIn and DoesNotExist."""
        found = labels.get(self.key, ())
        if self.source != ANY_SOURCE:
            found = [each for each in found if each[0] == self.source]
        match self.operator:
            case Operator.IN:
                return any(value in self.values for _, value in found)
            case Operator.NOT_IN:
                return not any(value in self.values for _, value in found)
            case Operator.EXISTS:
                return bool(found)
            case Operator.DOES_NOT_EXIST:
                return not found

    def __str__(self) -> str:
        key = self.key if self.source == ANY_SOURCE else f"{self.source}:{self.key}"
        match self.operator:
            case Operator.EXISTS:
                return key
            case Operator.DOES_NOT_EXIST:
                return f"!{key}"
            case Operator.IN if len(self.values) == 1:
                return f"{key}={self.values[0]}"
            case Operator.IN:
                return f"{key} in ({', '.join(self.values)})"
            case Operator.NOT_IN:
                return f"{key} not in ({', '.join(self.values)})"


class Selector(NamedTuple):
    """All requirements together; without any, everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: LabelMap) -> bool:
        """Whether labels satisfy every requirement."""
        return all(each.matches(labels) for each in self.requirements)

    def missed(self, labels: LabelMap) -> tuple[Requirement, ...]:
        """The requirements labels do not satisfy."""
        return tuple(each for each in self.requirements if not each.matches(labels))

    def mentions(self, key: str) -> bool:
        """Whether a requirement is about this key, in a pod's labels."""
        return any(each.key == key and each.source in ("any", "k8s") for each in self.requirements)

    @property
    def mentions_reserved(self) -> bool:
        """Whether a requirement is about a reserved label; such a selector is never narrowed."""
        return any(each.source == "reserved" for each in self.requirements)

    @property
    def mentions_namespace(self) -> bool:
        """Whether the selector says itself which namespaces it is about."""
        return self.mentions(NAMESPACE_KEY) or any(
            each.key.startswith(NAMESPACE_LABELS_PREFIX) and each.source in ("any", "k8s") for each in self.requirements
        )

    def requiring(self, *more: Requirement) -> Selector:
        """This selector and further requirements, which nothing in it can undo."""
        return Selector(tuple(dict.fromkeys((*more, *self.requirements))))

    def anchor(self) -> tuple[str, str] | None:
        """A (key, value) that everything selected has, the most telling one; None when there is none."""
        found: tuple[str, str] | None = None
        for each in self.requirements:
            if each.operator is Operator.IN and len(each.values) == 1:
                if each.key not in (NAMESPACE_KEY, CLUSTER_KEY):
                    return each.key, each.values[0]
                if found is None or found[0] == CLUSTER_KEY:
                    found = each.key, each.values[0]
        return found

    def __str__(self) -> str:
        """Without what every selector of pods requires."""
        shown = (each for each in self.requirements if not _is_implied(each))
        return ", ".join(map(str, shown)) or "everything"


def _is_implied(requirement: Requirement) -> bool:
    in_some_namespace = requirement.key == NAMESPACE_KEY and requirement.operator is Operator.EXISTS
    return in_some_namespace or requirement.key == CLUSTER_KEY


def label_map(labels: Iterable[str]) -> LabelMap:
    """`source:key=value` strings, indexed by key."""
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for label in labels:
        name, _, value = label.partition("=")
        source, colon, key = name.partition(":")
        if not colon:
            source, key = "unspec", name
        found[key] = (*found.get(key, ()), (source, value))
    return found


def label_texts(labels: LabelMap) -> tuple[str, ...]:
    """The strings again, sorted; an empty value is left out."""
    pairs = ((f"{source}:{key}", value) for key, found in labels.items() for source, value in found)
    return tuple(sorted(f"{name}={value}" if value else name for name, value in pairs))


def kubernetes_labels(labels: Mapping[str, str]) -> LabelMap:
    """Labels of a Kubernetes object, all of source k8s."""
    return {key: (("k8s", value),) for key, value in labels.items()}


def service_labels(namespace: str, name: str, labels: Mapping[str, str]) -> LabelMap:
    """What selectors of services see: its labels, and its name and namespace as two more."""
    more = {"io.kubernetes.service.name": name, "io.kubernetes.service.namespace": namespace}
    return kubernetes_labels({**labels, **more})


def split_key(text: str) -> tuple[str, str]:
    """Source and key of a selector's key; `$host` is short for `reserved:host`."""
    if text.startswith("$"):
        return "reserved", text[1:]
    source, colon, key = text.partition(":")
    return (source or ANY_SOURCE, key) if colon else (ANY_SOURCE, text)


def equals(key: str, value: str, *, source: str = "k8s") -> Requirement:
    """The requirement that a label has this value."""
    return Requirement(source, key, Operator.IN, (value,))


def exists(key: str, *, source: str = "k8s") -> Requirement:
    """The requirement that there is a label of this key."""
    return Requirement(source, key, Operator.EXISTS)


def reserved(name: str) -> Selector:
    """Everybody with a reserved label."""
    return Selector((exists(name, source="reserved"),))


def in_namespace(name: str) -> Requirement:
    """The requirement to be of a namespace."""
    return equals(NAMESPACE_KEY, name)


IS_POD = exists(NAMESPACE_KEY)
"""Only pods have a namespace."""


def in_cluster(name: str) -> Requirement:
    """The requirement to be of a cluster."""
    return equals(CLUSTER_KEY, name)
