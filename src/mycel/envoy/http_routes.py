"""HTTP rules → how a listener decides on requests: by routes, or by an RBAC filter where rules change or read more.

A request takes the first route whose rule it matches, and the last one, which denies, if there is none. Envoy looks for
a route in any case; deciding there is cheaper than a filter that notes its decision (bench/README.md). But routes take
one of several headers of a name for the others, a Secret's value is known to filters only, which run when the route is
chosen, and headers are changed by all of the rules a request matches, not by the first: listeners that compare values
of headers, or change any, have the filter, and one route. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from mycel.envoy.http_rules import Compiled
from mycel.envoy.matchers import Asked, Json, header, permissions, policy, text
from mycel.envoy.request_log import DENIED

_QUERY = r"(?:\?\C*)?"
_RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"


def routes(rules: Compiled, action: Json) -> list[Json]:
    """Routes by which what rules allow, and nothing else, is sent on; `action`: how."""
    allowed = [
        {"name": name, "match": match, "route": action}
        for name, rule in rules.rules.items()
        for match in _matches(rule.asked)
    ]
    return [*allowed, *({"name": DENIED, "match": each, "direct_response": {"status": 403}} for each in _EVERYTHING)]


def allowing(rules: Compiled) -> Json:
    """The RBAC filter that lets through what rules allow."""
    policies = {name: policy(permissions(rule.asked), rule.condition) for name, rule in rules.rules.items()}
    return {"name": "rbac", "typed_config": {"@type": _RBAC, "rules": {"action": "ALLOW", "policies": policies}}}


_EVERYTHING: tuple[Json, ...] = ({"prefix": ""}, {"connect_matcher": {}})  # CONNECT has no path


def _matches(asked: Asked) -> Iterable[Json]:
    """RouteMatches, of which a request that has what is asked matches one: a route knows no "or"."""
    path, others = _path(asked.paths)
    for host in asked.hosts or ((),):
        headers = [*asked.headers, *host, *others]
        yield path | ({"headers": headers} if headers else {})


def _path(expressions: tuple[str, ...]) -> tuple[Json, list[Json]]:
    """A route has one matcher of the path; others go to the header `:path`, which has the query too."""
    if not expressions:
        return {"prefix": ""}, []
    match = text(expressions[0])
    first: Json = {"path": match["exact"]} if "exact" in match else match
    return first, [header(":path", text(f"(?:{each}){_QUERY}")) for each in expressions[1:]]
