"""Deployments, ReplicaSets, DaemonSets, StatefulSets, Jobs, disruption budgets."""

from __future__ import annotations

import re
from typing import Any

from mycel.cluster.apiserver.schema.problems import Problem, forbidden, invalid, not_supported, required
from mycel.cluster.apiserver.validation import names
from mycel.cluster.apiserver.validation.pods import validate_template

Object = dict[str, Any]
_PERCENT = re.compile(r"(\d{1,3})%\Z")


def _selector(spec: Object, old: Object | None) -> list[Problem]:
    selector = spec.get("selector")
    if not selector or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        return [invalid("spec.selector", selector or {}, "empty selector is invalid for a workload")]
    problems = names.label_selector(selector, "spec.selector")
    if old is not None and old["spec"].get("selector") != selector:
        problems.append(invalid("spec.selector", selector, "field is immutable"))
    return problems


def _template(spec: Object, *, restart: tuple[str, ...] = ("Always",)) -> list[Problem]:
    template = spec.get("template")
    if template is None:
        return [required("spec.template")]
    problems = validate_template(template, spec.get("selector"), "spec.template")
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy and policy not in restart:
        problems.append(not_supported("spec.template.spec.restartPolicy", policy, restart))
    return problems


def _share(value: Any, field: str) -> list[Problem]:
    """A number that is not negative, or a percentage."""
    if isinstance(value, int):
        return names.non_negative(value, field)
    if isinstance(value, str) and not _PERCENT.match(value):
        return [invalid(field, value, "a valid percent string must be a numeric string followed by an ending '%'")]
    return []


def _counts(spec: Object, *fields: str) -> list[Problem]:
    return [problem for field in fields for problem in names.non_negative(spec.get(field), f"spec.{field}")]


def validate_deployment(obj: Object, old: Object | None) -> list[Problem]:
    """A Deployment."""
    spec = obj["spec"]
    problems = _selector(spec, old) + _template(spec)
    problems += _counts(spec, "replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "Recreate" and rolling is not None:
        detail = "may not be specified when strategy `type` is 'Recreate'"
        problems.append(forbidden("spec.strategy.rollingUpdate", detail))
    elif rolling is not None:
        at = "spec.strategy.rollingUpdate"
        problems += _share(rolling.get("maxSurge"), f"{at}.maxSurge")
        problems += _share(rolling.get("maxUnavailable"), f"{at}.maxUnavailable")
        if rolling.get("maxSurge") in (0, "0%") and rolling.get("maxUnavailable") in (0, "0%"):
            problems.append(
                invalid(f"{at}.maxUnavailable", rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0")
            )
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
    if deadline is not None and deadline <= ready:
        problems.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return problems


def validate_replicaset(obj: Object, old: Object | None) -> list[Problem]:
    """A ReplicaSet."""
    spec = obj["spec"]
    return _selector(spec, old) + _template(spec) + _counts(spec, "replicas", "minReadySeconds")


def validate_daemonset(obj: Object, old: Object | None) -> list[Problem]:
    """A DaemonSet."""
    spec = obj["spec"]
    problems = _selector(spec, old) + _template(spec) + _counts(spec, "minReadySeconds", "revisionHistoryLimit")
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    at = "spec.updateStrategy.rollingUpdate"
    problems += _share(rolling.get("maxUnavailable"), f"{at}.maxUnavailable")
    problems += _share(rolling.get("maxSurge"), f"{at}.maxSurge")
    if rolling and (rolling.get("maxUnavailable", 1) in (0, "0%")) and rolling.get("maxSurge", 0) in (0, "0%"):
        problems.append(required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return problems


def validate_statefulset(obj: Object, old: Object | None) -> list[Problem]:
    """A StatefulSet."""
    spec = obj["spec"]
    problems = _selector(spec, old) + _template(spec)
    problems += _counts(spec, "replicas", "minReadySeconds", "revisionHistoryLimit")
    if old is not None:
        for field in ("serviceName", "podManagementPolicy", "volumeClaimTemplates"):
            if spec.get(field) != old["spec"].get(field):
                detail = (
                    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
                    "'updateStrategy', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
                )
                problems.append(forbidden(f"spec.{field}", detail))
    return problems


def validate_job(obj: Object, old: Object | None) -> list[Problem]:
    """A Job."""
    spec = obj["spec"]
    problems = _template(spec, restart=("OnFailure", "Never"))
    return problems + _counts(spec, "parallelism", "completions", "backoffLimit", "activeDeadlineSeconds")


def validate_budget(obj: Object, old: Object | None) -> list[Problem]:
    """A PodDisruptionBudget."""
    spec = obj.get("spec") or {}
    problems = names.label_selector(spec.get("selector"), "spec.selector")
    if "minAvailable" in spec and "maxUnavailable" in spec:
        problems.append(invalid("spec", "", "minAvailable and maxUnavailable cannot be both set"))
    for field in ("minAvailable", "maxUnavailable"):
        problems += _share(spec.get(field), f"spec.{field}")
    return problems
