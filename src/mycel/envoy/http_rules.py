"""HTTP rules of policies → what Envoy lets through. Allowances only: what no rule matches is denied.

Expressions match whole values, as RE2 (Envoy's `safe_regex`). A host is compared without case, port and trailing dot;
the path without its query, after normalisation (docs/l7.md). Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mycel.envoy.header_matches import Changes, Match, change, match_of, needs, order, together
from mycel.envoy.matchers import Asked, Json, Unsupported, has, header, is_literal, text
from mycel.policy.http import SecretRef
from mycel.policy.requests import ANY_REQUEST
from mycel.policy.rules import L7

# What all servers read as one path: no parameters (`/a;b/../c` has two readings), nothing but letters of paths.
_ESCAPE = "%[0-24-9a-f][0-9a-f]|%3[0-9ac-f]"
_LETTER = rf"[!\"$&-.0-:<-\[\]-~]|{_ESCAPE}"
_PLAIN = rf"(?i)/(?:(?:{_LETTER})(?:/|{_LETTER})*)?"  # not `//`, which Envoy leaves as it is
_PARAMETERS_LAST = rf"{_PLAIN}(?:;(?:[!\"$&-.0-\[\]-~]|{_ESCAPE})*)?"
_HOST = r"(?:(?:[a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\])"
_PORT = ":[0-9]{1,5}"
_AFTER_HOSTS = ("", r"\.", _PORT, rf"\.{_PORT}")
_COLONS_OF_SYNTAX = re.compile(r"\(\?[a-zA-Z-]*:|\[:\^?[a-z]+:\]")


class Allowed(NamedTuple):
    """Requests a rule lets through. `condition`: what it asks about Secrets, in CEL."""

    asked: Asked
    condition: Json | None = None


def _compares_headers(rule: Allowed) -> bool:
    return any("string_match" in each and not each["name"].startswith(":") for each in rule.asked.headers)


class Compiled(NamedTuple):
    """Sections that apply together, as Envoy is given them."""

    rules: Mapping[str, Allowed]  # called `section/rule`; ANY_REQUEST alone: every request
    changes: Changes
    secrets: frozenset[SecretRef]  # whose values they use

    @property
    def are_plain(self) -> bool:
        """Whether they change nothing, and compare nothing but method, path and host."""
        return not self.changes and not self.secrets and not any(map(_compares_headers, self.rules.values()))


def compiled(sections: Iterable[L7 | None], there: Collection[SecretRef] = ()) -> Compiled:
    """None among sections allows every request. Rules that need a Secret that is not `there` never match.

    Raises Unsupported.
    """
    allowed: dict[str, Allowed] = {}
    changes: dict[Match, list[Json]] = {}
    secrets: set[SecretRef] = set()
    for number, section in enumerate(_rules(sections)):
        if section is None:
            allowed[ANY_REQUEST] = Allowed(Asked())
        for place, rule in enumerate(section or ()):
            matches = [match_of(each, there) for each in rule.get("headerMatches") or ()]
            usable = [each for each in matches if each is not None]
            if len(usable) < len(matches):
                continue
            asked = asks(rule)
            headers, conditions = needs(usable)
            asked = asked._replace(headers=(*asked.headers, *headers))
            allowed[f"{number}/{place}"] = Allowed(asked, together(conditions))
            for each in usable:
                if (when := change(each, asked, conditions)) is not None:
                    changes.setdefault(each, []).append(when)
            secrets |= {each.secret for each in usable if each.secret is not None}
    if ANY_REQUEST in allowed:
        allowed = {ANY_REQUEST: allowed[ANY_REQUEST]}
    return Compiled(allowed, {each: changes[each] for each in sorted(changes, key=order)}, frozenset(secrets))


def underscores(sections: Iterable[L7 | None]) -> str:
    """What Envoy does with names like `x_role`: refused where rules read `x-role`, which to CGI servers is the same.

    Raises Unsupported.
    """
    rules = [rule for each in _rules(sections) for rule in each or ()]
    named = [text.partition(":")[0] for rule in rules for text in rule.get("headers") or ()]
    named += [match["name"] for rule in rules for match in rule.get("headerMatches") or ()]
    return "REJECT_REQUEST" if any("-" in name for name in named) else "ALLOW"


def _rules(sections: Iterable[L7 | None]) -> list[Sequence[Mapping[str, Any]] | None]:
    """The HTTP rules of each section. What a listener cannot speak is refused beside None too."""
    found: list[Sequence[Mapping[str, Any]] | None] = []
    for section in sections:
        if section is None:
            found.append(None)
            continue
        if section.parser == "tls":
            found.append(())  # `server_names`
            continue
        if section.parser != "http":
            raise Unsupported(f"a section of kind {section.parser}")
        content: Mapping[str, Any] = json.loads(section.rules)
        if content.keys() - {"rules"}:
            raise Unsupported(" and ".join(sorted(content.keys() - {"rules"})))
        found.append(content["rules"])
    return found


def asks(rule: Mapping[str, Any]) -> Asked:
    """What one HTTP rule asks of a request, but for headerMatches; a field that is empty or absent asks nothing."""
    headers: list[Json] = []
    if rule.get("method"):
        headers.append(header(":method", text(rule["method"])))
    for each in rule.get("headers") or ():
        name, colon, value = each.partition(":")
        headers.append(has(name.strip(), value.strip() if colon else None))
    return Asked(_paths(rule.get("path") or ""), tuple(headers), _hosts(rule.get("host") or ""))


def _paths(expression: str) -> tuple[str, ...]:
    if not expression:
        return ()
    if is_literal(expression) and re.fullmatch(_PLAIN, expression):
        return (expression,)
    return expression, _PARAMETERS_LAST if ";" in expression else _PLAIN


def _hosts(expression: str) -> tuple[tuple[Json, ...], ...]:
    """A host's expression, without case; without trailing dot and port, but one that has a colon sees the port.

    What may follow a host is taken off first: `svc-.*5` must not find its 5 in the port of `svc-1:8085`.
    """
    if not expression:
        return ()
    inner = expression.removesuffix("$") if not expression.endswith("\\$") else expression
    if ":" in _COLONS_OF_SYNTAX.sub("", inner):
        return ((_authority(f"{_HOST}(?:{_PORT})?"), _authority(f"(?:{inner})")),)
    return tuple((_authority(_HOST + after), _authority(f"(?:{inner}){after}")) for after in _AFTER_HOSTS)


def _authority(expression: str) -> Json:
    return header(":authority", text(f"(?i){expression}"))
