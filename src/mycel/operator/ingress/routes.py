"""Hosts and paths of an Ingress → virtual hosts and routes of Envoy, whose first match wins. Pure.

Hosts: an exact one before wildcards before none. A wildcard stands for one label, Envoy's for any number of them, so
its routes ask again; what it must not take goes on to the rules without a host. Paths of a host: Exact, then regular
expressions, then the longest prefix; then the default backend, or 404.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mycel.operator.ingress.model import Backend, Ingress, Path, PathType, Rule

Action = Callable[[Backend], Mapping[str, Any]]
Json = dict[str, Any]
_RANK = {PathType.EXACT: 0, PathType.SPECIFIC: 1, PathType.PREFIX: 2}
NOT_FOUND: Json = {"directResponse": {"status": 404}}
TO_HTTPS: Json = {"redirect": {"httpsRedirect": True, "responseCode": "PERMANENT_REDIRECT"}}


def virtual_hosts(
    ingress: Ingress,
    action: Action,
    *,
    names: Iterable[str] = (),
    serves: Callable[[str], bool] = lambda _host: True,
) -> list[Json]:
    """Virtual hosts of a RouteConfiguration. `action`: what a route does for a backend; `names`: hosts to tell apart
    also where no rule is about them alone; `serves`: hosts to include.
    """
    by_host = _by_host(ingress.rules)
    rest = action(ingress.default) if ingress.default else NOT_FOUND
    anywhere = [*_routes(by_host.pop("", ()), action), _everything(rest)]

    def routes_of(host: str) -> list[Json]:
        chosen = host if host in by_host else f"*.{host.partition('.')[2]}"
        if chosen not in by_host:
            return anywhere
        routes = [*_routes(by_host[chosen], action), _everything(rest)]
        return [*(_guarded(route, host) for route in routes), *anywhere] if host.startswith("*.") else routes

    hosts = sorted(host for host in by_host.keys() | set(names) if host and serves(host))
    found: list[Json] = [{"name": host, "domains": [host], "routes": routes_of(host)} for host in hosts]
    if serves(""):
        found.append({"name": "*", "domains": ["*"], "routes": anywhere})
    return found


def https_redirects(hosts: list[Json], covered: Callable[[str], bool]) -> list[Json]:
    """The same virtual hosts, with those that have a certificate sent to HTTPS."""
    return [
        host | {"routes": [_secured(route) for route in host["routes"]]}
        if covered("" if host["name"] == "*" else host["name"])
        else host
        for host in hosts
    ]


def _secured(route: Json) -> Json:
    return {"match": route["match"], **TO_HTTPS}


def _by_host(rules: Iterable[Rule]) -> dict[str, tuple[Path, ...]]:
    """Paths of each host, over all rules that name it; of two equal ones the first counts."""
    found: dict[str, dict[tuple[str, PathType], Path]] = {}
    for rule in rules:
        paths = found.setdefault(rule.host, {})
        for path in rule.paths:
            paths.setdefault((_path(path), path.type), path)
    return {host: tuple(paths.values()) for host, paths in found.items()}


def _routes(paths: Iterable[Path], action: Action) -> list[Json]:
    ordered = sorted(paths, key=lambda path: (_RANK[path.type], -len(_path(path)), _path(path)))
    return [{"match": _match(path), **action(path.backend)} for path in ordered]


def _path(path: Path) -> str:
    """The path as compared: a prefix's last slash says nothing."""
    return path.path.rstrip("/") or "/" if path.type is PathType.PREFIX else path.path


def _match(path: Path) -> Json:
    text = _path(path)
    match path.type:
        case PathType.EXACT:
            return {"path": text}
        case PathType.SPECIFIC:
            return {"safeRegex": {"regex": text}}
        case PathType.PREFIX:
            return {"prefix": "/"} if text == "/" else {"pathSeparatedPrefix": text}


def _everything(action: Mapping[str, Any]) -> Json:
    return {"match": {"prefix": "/"}, **action}


def _guarded(route: Json, host: str) -> Json:
    """The route for hosts of exactly one label more."""
    pattern = rf"(?i)[^.:]+{re.escape(host[1:])}\.?(:[0-9]+)?"
    guard = {"name": ":authority", "stringMatch": {"safeRegex": {"regex": pattern}}}
    return route | {"match": {**route["match"], "headers": [guard]}}
