"""Which part of an HTTP rule a request misses, by what Envoy is given for that part (`http_rules.asks`). Pure.

A request is known as its flow tells it: method and URL. Parts about other headers are not judged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mycel.envoy.http_rules import asks
from mycel.envoy.matchers import Asked, Json, text
from mycel.policy.http_text import match_text

_JUDGED = ("method", "path", "host")


class HttpRequest(NamedTuple):
    """What of a request rules are about."""

    method: str
    path: str  # without the query
    host: str  # empty: not known

    @classmethod
    def of(cls, method: str, url: str) -> HttpRequest:
        """From a method with a URL or a path. Raises ValueError for a URL that is none."""
        parts = urlsplit(url)
        return cls(method.upper(), parts.path or "/", parts.netloc)


class Missed(NamedTuple):
    """How a rule does not apply. `unknown`: parts that only the request's headers could tell."""

    parts: tuple[str, ...]
    unknown: tuple[str, ...]


def missed(rule: Mapping[str, Any], request: HttpRequest) -> Missed:
    """The parts of a rule that a request misses, in words."""
    different: list[str] = []
    for name in _JUDGED:
        known = getattr(request, name)
        if known and not _has(request, asks({name: rule.get(name)})):
            different.append(f"{name} {rule[name]} (it is {known})")
    unknown = [str(each) for each in rule.get("headers") or ()]
    # With an action the request passes either way: the action is what changes.
    unknown += [match_text(each) for each in rule.get("headerMatches") or () if not each.get("mismatch")]
    return Missed(tuple(different), tuple(unknown))


def _has(request: HttpRequest, asked: Asked) -> bool:
    """Whether a request has what these parts of a rule ask."""
    known = {":method": request.method, ":authority": request.host}
    hosts = (all(_matches(each["string_match"], known[each["name"]]) for each in host) for host in asked.hosts or ((),))
    return (
        all(_matches(text(each), request.path) for each in asked.paths)
        and all(_matches(each["string_match"], known[each["name"]]) for each in asked.headers)
        and any(hosts)
    )


def _matches(match: Json, value: str) -> bool:
    """Envoy's StringMatcher, as far as these parts have it."""
    return value == match["exact"] if "exact" in match else _expression(match["safe_regex"]["regex"])(value)


@functools.lru_cache(maxsize=1024)
def _expression(text: str) -> Callable[[str], bool]:
    import re2  # a library of its own, for policies that need it

    compiled = re2.compile(text)
    return lambda value: compiled.fullmatch(value) is not None
