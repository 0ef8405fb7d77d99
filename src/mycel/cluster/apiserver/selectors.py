"""Label and field selectors: what `-l` and `--field-selector` say, as predicates over objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mycel.cluster.apiserver.errors import bad_request
from mycel.cluster.apiserver.registry import Kind

Object = dict[str, Any]
Predicate = Callable[[Object], bool]
Labels = Mapping[str, str]

_SET = re.compile(r"\s*([^\s!=<>(),]+)\s+(in|notin)\s*\(([^()]*)\)\s*\Z")
_COMPARE = re.compile(r"\s*([^\s!=<>(),]+)\s*(==|=|!=|<|>)\s*([^\s!=<>(),]*)\s*\Z")
_EXISTS = re.compile(r"\s*(!?)\s*([^\s!=<>(),]+)\s*\Z")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?\Z")


def _split(text: str) -> list[str]:
    """Split at commas outside of parentheses."""
    parts: list[str] = []
    depth, start = 0, 0
    for index, char in enumerate(text):
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return parts


def _requirement(text: str) -> Callable[[Labels], bool]:
    if match := _SET.match(text):
        key, operator = match[1], match[2]
        values = frozenset(value.strip() for value in match[3].split(","))
        if operator == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: labels.get(key) not in values or key not in labels
    if match := _COMPARE.match(text):
        key, operator, wanted = match.groups()
        if not _LABEL_VALUE.match(wanted) or len(wanted) > 63:
            raise bad_request(f"unable to parse requirement: {wanted!r} is not a label value")
        match operator:
            case "!=":
                return lambda labels: labels.get(key) != wanted
            case "<" | ">":
                if not re.fullmatch(r"-?\d+", wanted):
                    raise bad_request(f"unable to parse requirement: {text!r} compares with something not a number")
                limit, less = int(wanted), operator == "<"

                def compare(labels: Labels) -> bool:
                    value = labels.get(key, "")
                    if not re.fullmatch(r"-?\d{1,18}", value):
                        return False
                    return int(value) < limit if less else int(value) > limit

                return compare
            case _:
                return lambda labels: labels.get(key) == wanted
    if match := _EXISTS.match(text):
        negated, key = match.groups()
        if negated:
            return lambda labels: key not in labels
        return lambda labels: key in labels
    raise bad_request(f"unable to parse requirement {text!r}: expected key, key=value, key!=value or key in (a,b)")


def label_selector(text: str) -> Predicate | None:
    """A predicate for `labelSelector=`; None when everything matches. ApiFault 400 when it cannot be read."""
    if not text.strip():
        return None
    if len(text) > 65536:
        raise bad_request("labelSelector is longer than 65536 bytes")
    requirements = [_requirement(part) for part in _split(text)]

    def matches(obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(requirement(labels) for requirement in requirements)

    return matches


_POD_FIELDS = ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase")
_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": (*_POD_FIELDS, "spec.hostNetwork", "status.podIP", "status.podIPs", "status.nominatedNodeName"),
    "events": (
        *(f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion")),
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
        *(f"regarding.{name}" for name in ("kind", "namespace", "name", "uid")),
        "reportingController",
    ),
    "secrets": ("type",),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "replicasets.apps": ("status.replicas",),
    "replicationcontrollers": ("status.replicas",),
    "services": ("spec.clusterIP", "spec.type"),
    "jobs.batch": ("status.successful",),
    "customresourcedefinitions.apiextensions.k8s.io": (),
}
_ALIASES = {"regarding": "involvedObject", "reportingController": "reportingComponent"}


def field_selector(text: str, kind: Kind) -> Predicate | None:
    """A predicate for `fieldSelector=` on stored objects of `kind`; None when everything matches.

    ApiFault 400 when the kind cannot be selected by a field.
    """
    if not text.strip():
        return None
    tests: list[tuple[tuple[str, ...], str, bool]] = []
    for part in text.split(","):
        if not part.strip():
            continue
        match = re.match(r"\s*([\w.\-/]+)\s*(==|=|!=)\s*(.*?)\s*\Z", part)
        if match is None:
            raise bad_request(f"invalid field selector {part!r}: expected field=value or field!=value")
        name, operator, wanted = match.groups()
        known = ("metadata.name", "metadata.namespace", *_FIELDS.get(kind.resource, ()))
        if name not in known:
            raise bad_request(f'"{name}" is not a known field selector: only {", ".join(map(repr, known))}')
        first, _, rest = name.partition(".")
        path = (_ALIASES.get(first, first), *rest.split(".")) if rest else (_ALIASES.get(first, first),)
        tests.append((path, wanted, operator == "!="))

    def matches(obj: Object) -> bool:
        return all((_text_at(obj, path) == wanted) is not negated for path, wanted, negated in tests)

    return matches


def _text_at(obj: Object, path: tuple[str, ...]) -> str:
    value: Any = obj
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    match value:
        case None:
            return "false" if path[-1] in ("unschedulable", "hostNetwork") else ""
        case bool():
            return "true" if value else "false"
        case dict():
            return str(value.get("component", ""))
        case _:
            return str(value)


def both(first: Predicate | None, second: Predicate | None) -> Predicate | None:
    """Both must match; None means everything does."""
    if first is None:
        return second
    if second is None:
        return first
    return lambda obj: first(obj) and second(obj)
