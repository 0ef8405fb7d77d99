"""HTTP rules for people: one line a rule, the same wherever rules are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EVERY_REQUEST = "every request"


def rule_text(rule: Mapping[str, Any]) -> str:
    """A rule in a line: `GET /public.*, host a.b`. What is not said matches everything."""
    first = " ".join(str(rule[name]) for name in ("method", "path") if rule.get(name))
    rest = [f"host {rule['host']}"] if rule.get("host") else []
    rest += [f"header {each}" for each in rule.get("headers") or ()]
    rest += [f"header {match_text(each)}" for each in rule.get("headerMatches") or ()]
    return ", ".join(part for part in (first, *rest) if part) or EVERY_REQUEST


def match_text(match: Mapping[str, Any]) -> str:
    """An item of headerMatches: `x-role: admin (else ADD)`."""
    value = " of a Secret" if match.get("secret") else f": {match['value']}" if match.get("value") else ""
    return f"{match['name']}{value}" + (f" (else {match['mismatch']})" if match.get("mismatch") else "")
