"""Selectors: which labels an object must carry, which nodes a term names. Pure.

Semantics: apimachinery `LabelSelectorAsSelector` (null selects nothing, empty selects everything) and the
node selector of core/v1 (terms are ORed, requirements within a term ANDed, an empty term matches nothing).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mycel.cluster.controllers.objects import Obj, labels, name

Labels = Mapping[str, str]


def matches_labels(selector: Mapping[str, Any] | None, found: Labels) -> bool:
    """A metav1.LabelSelector against labels."""
    if selector is None:
        return False
    for label, wanted in (selector.get("matchLabels") or {}).items():
        if found.get(label) != wanted:
            return False
    return all(_requirement_holds(one, found) for one in selector.get("matchExpressions") or ())


def matches_map(selector: Mapping[str, str] | None, found: Labels) -> bool:
    """A plain map selector, as Services have; none at all selects nothing."""
    return bool(selector) and all(found.get(label) == wanted for label, wanted in (selector or {}).items())


def matches_node_selector(selector: Mapping[str, Any] | None, node: Obj) -> bool:
    """A core/v1 NodeSelector against a node; None puts no demand."""
    if selector is None:
        return True
    return any(matches_node_term(term, node) for term in selector.get("nodeSelectorTerms") or ())


def matches_node_term(term: Mapping[str, Any], node: Obj) -> bool:
    """One term: all its expressions (labels) and fields (`metadata.name`)."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    node_fields = {"metadata.name": name(node)}
    return all(_requirement_holds(one, labels(node)) for one in expressions) and all(
        _requirement_holds(one, node_fields) for one in fields
    )


def fits_node_labels(pod_spec: Obj, node: Obj) -> bool:
    """`nodeSelector` and the required node affinity of a pod."""
    wanted = pod_spec.get("nodeSelector") or {}
    found = labels(node)
    if any(found.get(label) != value for label, value in wanted.items()):
        return False
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    return matches_node_selector(affinity.get("requiredDuringSchedulingIgnoredDuringExecution"), node)


def _requirement_holds(requirement: Mapping[str, Any], found: Labels) -> bool:
    label, operator = requirement.get("key", ""), requirement.get("operator")
    values = requirement.get("values") or ()
    match operator:
        case "In":
            return found.get(label) in values
        case "NotIn":
            return found.get(label) not in values
        case "Exists":
            return label in found
        case "DoesNotExist":
            return label not in found
        case "Gt" | "Lt":
            return _compare(operator, found.get(label), values)
        case _:
            return False


def _compare(operator: str, found: str | None, values: Any) -> bool:
    try:
        have, limit = int(found or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return have > limit if operator == "Gt" else have < limit


def tolerates(tolerations: list[Obj] | None, taint: Obj) -> bool:
    """True when one toleration covers the taint (core/v1 `ToleratesTaint`)."""
    for toleration in tolerations or ():
        if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
            continue
        if toleration.get("key") and toleration["key"] != taint.get("key"):
            continue
        operator = toleration.get("operator") or "Equal"
        if operator == "Exists":
            return True
        if toleration.get("key") and (toleration.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def untolerated(pod_spec: Obj, node: Obj, effects: tuple[str, ...]) -> Obj | None:
    """The first taint of one of these effects that the pod does not tolerate."""
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") in effects and not tolerates(pod_spec.get("tolerations"), taint):
            return taint
    return None
