"""HTTP rules of policies → what Envoy's RBAC filter lets through. Allowances only: what no rule matches is denied.

Expressions match whole values, as RE2 (Envoy's `safe_regex`). A host is compared without case, port and trailing dot;
the path without its query, after normalisation (docs/l7.md). Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mycel.policy.rules import L7

Json = dict[str, Any]

ANY: Json = {"any": True}
# `/a;b/../c` is one path to us and another to servers that know parameters: no rule about paths lets it through.
_NO_PARAMETERS: Json = {"not_rule": {"url_path": {"path": {"safe_regex": {"regex": ".*;.*/.*"}}}}}
_ACTIONS = ("ADD", "DELETE", "REPLACE")


class Unsupported(ValueError):
    """A section Envoy cannot be given; its port stays closed."""


def policies(sections: Iterable[L7 | None]) -> Json:
    """RBAC's `policies` for sections that apply together: one per rule, named `section/rule`. Raises Unsupported."""
    found: Json = {}
    for number, section in enumerate(sections):
        if section is None:
            return {"any": _policy(ANY)}
        if section.parser != "http":
            raise Unsupported(f"a section of kind {section.parser}")
        content: Mapping[str, Any] = json.loads(section.rules)
        if content.keys() - {"rules"}:
            raise Unsupported(" and ".join(sorted(content.keys() - {"rules"})))
        for place, rule in enumerate(content["rules"]):
            found[f"{number}/{place}"] = _policy(permission(rule))
    return found


def _policy(allowed: Json) -> Json:
    return {"principals": [ANY], "permissions": [allowed]}


def permission(rule: Mapping[str, Any]) -> Json:
    """One HTTP rule: all of its fields must match; a field that is empty or absent matches everything."""
    parts: list[Json] = []
    if rule.get("method"):
        parts.append(_header(":method", {"safe_regex": {"regex": rule["method"]}}))
    if rule.get("path"):
        parts += [{"url_path": {"path": {"safe_regex": {"regex": rule["path"]}}}}, _NO_PARAMETERS]
    if rule.get("host"):
        parts.append(_header(":authority", {"safe_regex": {"regex": host_expression(rule["host"])}}))
    for text in rule.get("headers") or ():
        name, colon, value = text.partition(":")
        parts.append(_header(name.strip(), {"exact": value.strip()} if colon else None))
    for match in rule.get("headerMatches") or ():
        if match.get("mismatch") in _ACTIONS or match.get("secret"):
            raise Unsupported("headerMatches with an action or a secret")
        if match.get("mismatch") != "LOG":
            parts.append(_header(match["name"], {"exact": match["value"]} if match.get("value") else None))
    if not parts:
        return ANY
    return parts[0] if len(parts) == 1 else {"and_rules": {"rules": parts}}


def host_expression(text: str) -> str:
    """A host's expression as it is compared with `:authority`: without case, a trailing dot and the port."""
    inner = text.removesuffix("$") if not text.endswith("\\$") else text
    return rf"(?i)(?:{inner})\.?(?::[0-9]{{1,5}})?"


def _header(name: str, match: Json | None) -> Json:
    """A header with this value alone; None: any. A value repeated or in a list is another value (RFC 9110 5.3)."""
    lower = name.lower()
    return {
        "header": {"name": lower, "present_match": True} if match is None else {"name": lower, "string_match": match}
    }
