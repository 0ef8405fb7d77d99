"""What the API server is told: which writes to ask about, and how. Pure.

By a Service, not by URL: any operator that is ready answers, so nothing has to be written when one ends or another
leads; and when the Service is gone nobody is waited for.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from mycel.k8s.resources import Resource
from mycel.operator.settings import ADMISSION

WEBHOOK = "validate.cilium.io"
PATH = "/validate"
_TIMEOUT_S = 5


def server_names(namespace: str) -> tuple[str, ...]:
    """The names the server's certificate is for."""
    return (f"{ADMISSION}.{namespace}.svc",)


def configuration(namespace: str, authorities: bytes, kinds: Iterable[Resource]) -> dict[str, Any]:
    """The ValidatingWebhookConfiguration. `namespace`: of the Service; `authorities`: PEM."""
    groups: dict[tuple[str, str], list[str]] = {}
    for each in kinds:
        groups.setdefault((each.group, each.version), []).append(each.plural)
    rules = [
        {"apiGroups": [group], "apiVersions": [version], "resources": plurals, "operations": ["CREATE", "UPDATE"]}
        for (group, version), plurals in groups.items()
    ]
    service = {"namespace": namespace, "name": ADMISSION, "path": PATH, "port": 443}
    webhook = {
        "name": WEBHOOK,
        "clientConfig": {"service": service, "caBundle": base64.b64encode(authorities).decode()},
        "rules": rules,
        "failurePolicy": "Ignore",  # without an operator nothing is refused: status conditions say what is wrong
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": _TIMEOUT_S,
        "admissionReviewVersions": ["v1"],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": ADMISSION, "labels": {"app.kubernetes.io/part-of": "cilium"}},
        "webhooks": [webhook],
    }
