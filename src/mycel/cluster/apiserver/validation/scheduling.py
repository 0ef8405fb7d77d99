"""Where a pod may run: tolerations and affinities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mycel.cluster.apiserver.schema.problems import Problem, forbidden, invalid, not_supported, required
from mycel.cluster.apiserver.validation import names

Object = dict[str, Any]
_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def check_tolerations(tolerations: Iterable[Object], path: str, problems: list[Problem]) -> None:
    """Tolerations; what is wrong is added to `problems`."""
    for index, item in enumerate(tolerations):
        here = f"{path}[{index}]"
        operator, effect = item.get("operator") or "Equal", item.get("effect")
        if item.get("key"):
            problems += names.qualified_name(item["key"], f"{here}.key")
        elif operator != "Exists":
            problems.append(
                invalid(
                    f"{here}.operator",
                    operator,
                    'operator must be Exists when `key` is empty, which means "match all values and all keys"',
                )
            )
        if operator == "Exists" and item.get("value"):
            problems.append(invalid(f"{here}.operator", item, "value must be empty when `operator` is 'Exists'"))
        if operator not in ("Exists", "Equal"):
            problems.append(not_supported(f"{here}.operator", operator, ["Equal", "Exists"]))
        if effect and effect not in _TAINT_EFFECTS:
            problems.append(not_supported(f"{here}.effect", effect, _TAINT_EFFECTS))
        if item.get("tolerationSeconds") is not None and effect != "NoExecute":
            problems.append(
                invalid(f"{here}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
            )


def check_affinity(affinity: Object, path: str, problems: list[Problem]) -> None:
    """Node and pod affinities; what is wrong is added to `problems`."""
    node = affinity.get("nodeAffinity") or {}
    terms = [
        (f"{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{index}]", term)
        for index, term in enumerate(
            (node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
        )
    ]
    if node.get("requiredDuringSchedulingIgnoredDuringExecution") is not None and not terms:
        problems.append(
            required(
                f"{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
                "must have at least one node selector term",
            )
        )
    for index, weighted in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        here = f"{path}.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        _weight(weighted, here, problems)
        terms.append((f"{here}.preference", weighted.get("preference") or {}))
    for here, term in terms:
        for position, item in enumerate(term.get("matchExpressions") or ()):
            _node_requirement(item, f"{here}.matchExpressions[{position}]", problems)
    for kind in ("podAffinity", "podAntiAffinity"):
        block = affinity.get(kind) or {}
        for index, term in enumerate(block.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            here = f"{path}.{kind}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"
            _pod_term(term, here, problems)
        for index, weighted in enumerate(block.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            here = f"{path}.{kind}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            _weight(weighted, here, problems)
            _pod_term(weighted.get("podAffinityTerm") or {}, f"{here}.podAffinityTerm", problems)


def _weight(weighted: Object, path: str, problems: list[Problem]) -> None:
    if not 1 <= weighted.get("weight", 0) <= 100:
        problems.append(invalid(f"{path}.weight", weighted.get("weight"), "must be in the range 1-100"))


def _node_requirement(item: Object, path: str, problems: list[Problem]) -> None:
    operator, values = item.get("operator"), item.get("values") or []
    match operator:
        case "In" | "NotIn" if not values:
            problems.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        case "Exists" | "DoesNotExist" if values:
            problems.append(
                forbidden(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            )
        case "Gt" | "Lt" if len(values) != 1:
            problems.append(
                required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
            )
        case _:
            pass
    problems += names.qualified_name(item.get("key") or "", f"{path}.key")


def _pod_term(term: Object, path: str, problems: list[Problem]) -> None:
    problems += names.label_selector(term.get("labelSelector"), f"{path}.labelSelector")
    if not term.get("topologyKey"):
        problems.append(required(f"{path}.topologyKey", "can not be empty"))
    else:
        problems += names.qualified_name(term["topologyKey"], f"{path}.topologyKey")
