"""What an HTTP rule asks of a request, in Envoy's matchers; an RBAC filter and a route can be given the same. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

Json = dict[str, Any]

_WORDS = re.compile("[A-Za-z0-9_/-]+")  # letters that mean themselves in an expression


class Unsupported(ValueError):
    """A section Envoy cannot be given; its port stays closed."""


class Asked(NamedTuple):
    """All of these. Where nothing is asked, every request has it."""

    paths: tuple[str, ...] = ()  # expressions, each of which is the path's as a whole, without its query
    headers: tuple[Json, ...] = ()  # HeaderMatchers
    hosts: tuple[tuple[Json, ...], ...] = ()  # HeaderMatchers: of these one, the whole of it


def is_literal(expression: str) -> bool:
    """Whether an expression matches itself and nothing else."""
    return _WORDS.fullmatch(expression) is not None


def text(expression: str) -> Json:
    """A StringMatcher for what an expression matches as a whole; one without operators is compared (cheaper)."""
    return {"exact": expression} if is_literal(expression) else {"safe_regex": {"regex": expression}}


def header(name: str, match: Json) -> Json:
    """A HeaderMatcher; `match`: a StringMatcher."""
    return {"name": name, "string_match": match}


def has(name: str, value: str | None) -> Json:
    """A header with this value alone (None: any). Several headers of a name are one value, a list (RFC 9110 5.3).

    In RBAC filters that is so because the bootstrap says so: Envoy on its own lets one of them speak for the others.
    """
    return {"name": name.lower(), "present_match": True} if value is None else header(name.lower(), {"exact": value})


def permissions(asked: Asked) -> list[Json]:
    """RBAC's words for it: all of these."""
    found: list[Json] = [{"url_path": {"path": text(each)}} for each in asked.paths]
    found += _said(asked.headers)
    if asked.hosts:
        found.append({"or_rules": {"rules": [_all(_said(each)) for each in asked.hosts]}})
    return found


def policy(permissions: Iterable[Json], condition: Json | None = None) -> Json:
    """RBAC's policy for a request that has all of these; `condition`: an expression of CEL."""
    found: Json = {"principals": [{"any": True}], "permissions": [_all(list(permissions))]}
    if condition is not None:
        found |= {"condition": condition, "cel_config": {"enable_string_conversion": True}}
    return found


def _said(headers: Iterable[Json]) -> list[Json]:
    return [{"header": each} for each in headers]


def _all(parts: list[Json]) -> Json:
    return {"and_rules": {"rules": parts}} if len(parts) > 1 else parts[0] if parts else {"any": True}
