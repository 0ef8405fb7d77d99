"""ValidatingWebhookConfigurations."""

from __future__ import annotations

import urllib.parse
from typing import Any

from mycel.cluster.apiserver.schema.problems import Problem, forbidden, invalid, not_supported, required
from mycel.cluster.apiserver.validation import names

Object = dict[str, Any]
_OPERATIONS = ("*", "CREATE", "UPDATE", "DELETE", "CONNECT")


def validate_configuration(obj: Object, _old: Object | None) -> list[Problem]:
    """Every webhook can be called, and its rules say something."""
    problems: list[Problem] = []
    for index, webhook in enumerate(obj.get("webhooks") or ()):
        problems += _webhook(webhook, f"webhooks[{index}]")
    return problems


def _webhook(webhook: Object, here: str) -> list[Problem]:
    problems: list[Problem] = []
    if webhook["name"].count(".") < 2:
        problems.append(invalid(f"{here}.name", webhook["name"], "should be a domain with at least three segments"))
    if webhook.get("sideEffects") is None:
        problems.append(required(f"{here}.sideEffects", "must specify one of None, NoneOnDryRun"))
    versions = webhook.get("admissionReviewVersions") or ()
    if "v1" not in versions:
        problems.append(invalid(f"{here}.admissionReviewVersions", versions, "must include v1"))
    if not 1 <= webhook.get("timeoutSeconds", 10) <= 30:
        problem = "the timeout value must be between 1 and 30 seconds"
        problems.append(invalid(f"{here}.timeoutSeconds", webhook["timeoutSeconds"], problem))
    if webhook.get("matchConditions"):
        problems.append(forbidden(f"{here}.matchConditions", "this server evaluates no CEL: use rules and selectors"))
    problems += _client(webhook.get("clientConfig") or {}, f"{here}.clientConfig")
    for name in ("namespaceSelector", "objectSelector"):
        if webhook.get(name):
            problems += names.label_selector(webhook[name], f"{here}.{name}")
    for index, rule in enumerate(webhook.get("rules") or ()):
        problems += _rule(rule, f"{here}.rules[{index}]")
    return problems


def _client(client: Object, here: str) -> list[Problem]:
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        return [required(here, "exactly one of url or service is required")]
    if url is not None:
        try:
            parts = urllib.parse.urlsplit(url)
            good = parts.scheme == "https" and _is_host(parts.hostname) and not parts.username and parts.port != 0
        except ValueError:
            return [invalid(f"{here}.url", url, "is no URL")]
        if not good or parts.query or parts.fragment:
            wanted = "must be https://host[:port]/path, without user, query or fragment"
            return [invalid(f"{here}.url", url, wanted)]
        return []
    assert service is not None
    problems = [required(f"{here}.service.{name}") for name in ("name", "namespace") if not service.get(name)]
    if not 1 <= service.get("port", 443) <= 65535:
        problems.append(invalid(f"{here}.service.port", service["port"], "must be between 1 and 65535"))
    if not service.get("path", "/").startswith("/"):
        problems.append(invalid(f"{here}.service.path", service["path"], "must start with a '/'"))
    return problems


def _is_host(host: str | None) -> bool:
    """An IPv6 address, or labels that DNS can carry."""
    return host is not None and (":" in host or all(0 < len(each) < 64 for each in host.removesuffix(".").split(".")))


def _rule(rule: Object, here: str) -> list[Problem]:
    problems = [
        required(f"{here}.{name}")
        for name in ("operations", "apiGroups", "apiVersions", "resources")
        if not rule.get(name)
    ]
    for index, operation in enumerate(rule.get("operations") or ()):
        if operation not in _OPERATIONS:
            problems.append(not_supported(f"{here}.operations[{index}]", operation, _OPERATIONS))
    return problems
