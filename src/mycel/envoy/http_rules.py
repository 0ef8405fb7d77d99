"""HTTP rules of policies → what Envoy's RBAC filter lets through. Allowances only: what no rule matches is denied.

Expressions match whole values, as RE2 (Envoy's `safe_regex`). A host is compared without case, port and trailing dot;
the path without its query, after normalisation (docs/l7.md). Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mycel.policy.rules import L7

Json = dict[str, Any]

ANY: Json = {"any": True}
# What all servers read as one path: no parameters (`/a;b/../c` has two readings), nothing but letters of paths.
_ESCAPE = "%[0-24-9a-f][0-9a-f]|%3[0-9ac-f]"
_LETTER = rf"[!\"$&-.0-:<-\[\]-~]|{_ESCAPE}"
_PLAIN = rf"(?i)/(?:(?:{_LETTER})(?:/|{_LETTER})*)?"  # not `//`, which Envoy leaves as it is
_PARAMETERS_LAST = rf"{_PLAIN}(?:;(?:[!\"$&-.0-\[\]-~]|{_ESCAPE})*)?"
_HOST = r"(?:(?:[a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\])"
_PORT = ":[0-9]{1,5}"
_AFTER_HOSTS = ("", r"\.", _PORT, rf"\.{_PORT}")
_COLONS_OF_SYNTAX = re.compile(r"\(\?[a-zA-Z-]*:|\[:\^?[a-z]+:\]")
_ACTIONS = ("ADD", "DELETE", "REPLACE")


class Unsupported(ValueError):
    """A section Envoy cannot be given; its port stays closed."""


def policies(sections: Iterable[L7 | None]) -> Json:
    """RBAC's `policies` for sections that apply together: one per rule, named `section/rule`. None among them allows
    every request. Raises Unsupported.
    """
    rules = _rules(sections)
    if any(each is None for each in rules):
        return {"any": _policy(ANY)}
    return {
        f"{number}/{place}": _policy(permission(rule))
        for number, each in enumerate(rules)
        for place, rule in enumerate(each or ())
    }


def underscores(sections: Iterable[L7 | None]) -> str:
    """What Envoy does with names like `x_role`: refused where rules read `x-role`, which to CGI servers is the same.

    Raises Unsupported.
    """
    rules = [rule for each in _rules(sections) for rule in each or ()]
    named = [text.partition(":")[0] for rule in rules for text in rule.get("headers") or ()]
    named += [match["name"] for rule in rules for match in rule.get("headerMatches") or ()]
    return "REJECT_REQUEST" if any("-" in name for name in named) else "ALLOW"


def _rules(sections: Iterable[L7 | None]) -> list[Sequence[Mapping[str, Any]] | None]:
    """The HTTP rules of each section. What is no HTTP is refused beside None too: this listener cannot speak it."""
    found: list[Sequence[Mapping[str, Any]] | None] = []
    for section in sections:
        if section is None:
            found.append(None)
            continue
        if section.parser != "http":
            raise Unsupported(f"a section of kind {section.parser}")
        content: Mapping[str, Any] = json.loads(section.rules)
        if content.keys() - {"rules"}:
            raise Unsupported(" and ".join(sorted(content.keys() - {"rules"})))
        found.append(content["rules"])
    return found


def _policy(allowed: Json) -> Json:
    return {"principals": [ANY], "permissions": [allowed]}


def permission(rule: Mapping[str, Any]) -> Json:
    """One HTTP rule: all of its fields must match; a field that is empty or absent matches everything."""
    parts: list[Json] = []
    if rule.get("method"):
        parts.append(_header(":method", _expression(rule["method"])))
    if rule.get("path"):
        plain = _PARAMETERS_LAST if ";" in rule["path"] else _PLAIN
        parts += [{"url_path": {"path": _expression(each)}} for each in (rule["path"], plain)]
    if rule.get("host"):
        parts.append(_host(rule["host"]))
    for text in rule.get("headers") or ():
        name, colon, value = text.partition(":")
        parts.append(_has(name.strip(), value.strip() if colon else None))
    for match in rule.get("headerMatches") or ():
        if match.get("mismatch") in _ACTIONS or match.get("secret"):
            raise Unsupported("headerMatches with an action or a secret")
        if match.get("mismatch") != "LOG":
            parts.append(_has(match["name"], match.get("value") or None))
    if not parts:
        return ANY
    return _all(parts)


def _host(text: str) -> Json:
    """A host's expression, without case; without trailing dot and port, but one that has a colon sees the port.

    What may follow a host is taken off first: `svc-.*5` must not find its 5 in the port of `svc-1:8085`.
    """
    inner = text.removesuffix("$") if not text.endswith("\\$") else text
    if ":" in _COLONS_OF_SYNTAX.sub("", inner):
        return _all([_authority(f"{_HOST}(?:{_PORT})?"), _authority(f"(?:{inner})")])
    either = [_all([_authority(_HOST + after), _authority(f"(?:{inner}){after}")]) for after in _AFTER_HOSTS]
    return {"or_rules": {"rules": either}}


def _authority(expression: str) -> Json:
    return _header(":authority", _expression(f"(?i){expression}"))


def _all(parts: list[Json]) -> Json:
    return parts[0] if len(parts) == 1 else {"and_rules": {"rules": parts}}


def _expression(text: str) -> Json:
    return {"safe_regex": {"regex": text}}


def _header(name: str, match: Json) -> Json:
    return {"header": {"name": name, "string_match": match}}


def _has(name: str, value: str | None) -> Json:
    """A header with this value alone (None: any). Several headers of a name are one value, a list (RFC 9110 5.3).

    That is so because the bootstrap says so: Envoy on its own lets one of them speak for the others.
    """
    lower = name.lower()
    return {"header": {"name": lower, "present_match": True}} if value is None else _header(lower, {"exact": value})
