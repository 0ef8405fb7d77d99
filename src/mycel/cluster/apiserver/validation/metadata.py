"""metadata, the same for every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mycel.cluster.apiserver.schema.problems import Problem, forbidden, invalid, required
from mycel.cluster.apiserver.validation.names import annotations, dns_label, labels, qualified_name

NameRule = Callable[[str, str], list[Problem]]


def validate_metadata(
    meta: dict[str, Any], old: dict[str, Any] | None, name_rule: NameRule, *, namespaced: bool
) -> list[Problem]:
    """Problems of an object's metadata; `old` is the object before, if any."""
    problems: list[Problem] = []
    if old is None:
        problems += name_rule(meta["name"], "metadata.name")
        if namespaced:
            namespace = meta.get("namespace")
            if not namespace:
                problems.append(required("metadata.namespace"))
            else:
                problems += dns_label(namespace, "metadata.namespace")
    problems += labels(meta.get("labels"), "metadata.labels")
    problems += annotations(meta.get("annotations"), "metadata.annotations")
    for index, finalizer in enumerate(meta.get("finalizers") or ()):
        problems += qualified_name(finalizer, f"metadata.finalizers[{index}]")
    problems += _owners(meta.get("ownerReferences") or ())
    return problems


def _owners(references: Any) -> list[Problem]:
    problems: list[Problem] = []
    controllers = 0
    for index, reference in enumerate(references):
        here = f"metadata.ownerReferences[{index}]"
        for name in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(name):
                problems.append(invalid(f"{here}.{name}", reference.get(name, ""), f"{name} must not be empty"))
        controllers += bool(reference.get("controller"))
    if controllers > 1:
        problems.append(forbidden("metadata.ownerReferences", "only one reference can have Controller set to true"))
    return problems
