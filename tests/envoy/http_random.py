"""Random HTTP rules, and requests that come near to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tests.oracle.http import Request, Rule, expected


def _words(text: str) -> list[str]:
    return text.split()


_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "PROPFIND")
_METHOD_RULES = ("GET", "POST", "GET|HEAD", "P.*", "[A-Z]+", "(?i)get", "DELETE|PUT")
_PATHS = _words("/ // /public /public/a /public/a/b.css /admin /admin/x /api/v1/items /api/v2/items/17")
_PATH_RULES = _words(
    r"/public/.* /public/[a-z]+ /.* .*\.css /api/v[0-9]+/.* /admin /api/v1/items$ ^/public$ / /|/public "
    r"/api/v2/items/[0-9]{1,3} (/[a-z]+)+ /a;.* /api/v1/[^/]+ .*[^a-z] /%20a.* /.+"
)
_TRICKS = _words(
    r"// /./ /../ /%2e%2e/ /.%2E/ /%2e/ %2f %5C \ ;a=b ;a=b/.. /..;/ %00 %3b %3B ?q=/../admin ?x;y %41 %7e %20 %zz % "
    r"+ ~ : @ /... /. /.. a Z %c3%a4"
)
_HOSTS = _words("app.example.com svc-1 db.internal svc-5 svc-evil example.com 10.0.0.5")
_HOST_RULES = _words(
    r"app.example.com app\.example\.com .*\.example\.com svc-[0-9] svc-.*5 [^.]+ App.Example.COM svc-1$ "
    r"example.com:8080 .*[^a-z] db.*|svc-1 10\..* .*"
)
_SUFFIXES = ("", "", "", ":80", ":8085", ".", ".:443", "..", ":", ":123456", ":8080")
HEADERS = ("X-Role", "x-token", "X-Team", "x-tier")
_ACTIONS = ("", "", "LOG", "ADD", "DELETE", "REPLACE")
SECRETS = {"shop/role": "user", "shop/cafe": "caf\xe9", "shop/odd": "100%\"'$x"}
_NAMED = ("role", "role", "cafe", "odd", "missing")
_VALUES = ("user", "admin", "User", "a,b", "user,admin", "user, admin", "", "x y", "us\xe9r")


def rules(rand: random.Random, *, plain: bool) -> list[dict[str, Any]]:
    """One to four rules; `plain`: that change nothing, and compare no values of headers."""
    return [_rule(rand, plain=plain) for _ in range(rand.randint(1, 4))]


def _rule(rand: random.Random, *, plain: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    fields = rand.sample(("method", "path", "host", "headers", "headerMatches"), rand.choice((1, 1, 2, 2, 3)))
    for field, choices in (("method", _METHOD_RULES), ("path", _PATH_RULES), ("host", _HOST_RULES)):
        if field in fields:
            found[field] = rand.choice(choices)
    if "headers" in fields:
        text = rand.choice(HEADERS)
        found["headers"] = [text if plain or rand.random() < 0.5 else f"{text}: {rand.choice(_VALUES[:3])}"]
    if "headerMatches" in fields:
        found["headerMatches"] = [_match(rand, plain=plain) for _ in range(rand.choice((1, 1, 2, 3)))]
    return found


def _match(rand: random.Random, *, plain: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"name": rand.choice(HEADERS), "mismatch": rand.choice(_ACTIONS[:3] if plain else _ACTIONS)}
    if rand.random() < 0.8 and (not plain or found["mismatch"] == "LOG"):
        found["value"] = rand.choice((*_VALUES[:3], "100%", "caf\xe9", ""))
    if not plain and rand.random() < 0.4:
        found["secret"] = {"namespace": "shop", "name": rand.choice(_NAMED)}
        found["value"] = found.get("value", "") if rand.random() < 0.3 else ""
        found["secret"] |= {"foreign": True} if rand.random() < 0.1 else {}
    return found


def requests(rand: random.Random, near: Sequence[Rule], count: int) -> list[Request]:
    """Requests of which a good part matches some of these rules, but for one thing or another."""
    return [_request(rand, rand.choice(near)) for _ in range(count)]


def _request(rand: random.Random, rule: Rule) -> Request:
    path = rand.choice(_PATHS)
    for _ in range(rand.choice((0, 0, 1, 2))):
        at = rand.randint(1, len(path))
        path = path[:at] + rand.choice(_TRICKS) + path[at:]
    headers = [(rand.choice(HEADERS), rand.choice(_VALUES)) for _ in range(rand.choice((0, 1, 1, 2, 3)))]
    for text in (rule.get("headers") or ()) if rand.random() < 0.7 else ():
        name, _, value = text.partition(":")
        headers.append((name, value.strip() or rand.choice(_VALUES)))
    for each in (rule.get("headerMatches") or ()) if rand.random() < 0.7 else ():
        headers.append((each["name"], expected(each, SECRETS) or rand.choice(_VALUES)))
    host = rand.choice(_HOSTS)
    host = host.upper() if rand.random() < 0.1 else host
    method = rule["method"] if rand.random() < 0.5 and rule.get("method", "").isalpha() else rand.choice(_METHODS)
    return Request(method, host + rand.choice(_SUFFIXES), path, tuple(headers))
