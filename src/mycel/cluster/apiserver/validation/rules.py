"""Which rule judges which kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mycel.cluster.apiserver.schema.problems import Problem
from mycel.cluster.apiserver.validation.metadata import NameRule
from mycel.cluster.apiserver.validation.names import dns_label, dns_label_1035, path_segment

Validator = Callable[[dict[str, Any], dict[str, Any] | None], list[Problem]]

NAME_RULES: dict[str, NameRule] = {
    "namespaces": dns_label,
    "services": dns_label_1035,
    "clusterroles.rbac.authorization.k8s.io": path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": path_segment,
    "roles.rbac.authorization.k8s.io": path_segment,
    "rolebindings.rbac.authorization.k8s.io": path_segment,
}

VALIDATORS: dict[str, Validator] = {}
