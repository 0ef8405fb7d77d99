"""HTTP rules of policies, a second time: may this request pass, and what becomes of its headers? Plain loops.

Expressions (RE2) match whole values. `secrets` are the values of those that can be used, by `namespace/name`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import re2

Rule = Mapping[str, Any]
Secrets = Mapping[str, str]
NO_SECRETS: Secrets = MappingProxyType({})
UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


class Request(NamedTuple):
    """As it is on the wire: `target` with its query; names of `headers` in any case."""

    method: str
    authority: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()


def allowed(rules: Iterable[Rule], request: Request, secrets: Secrets = NO_SECRETS) -> bool:
    """Whether any of the rules lets the request pass, and nobody could read its path in another way."""
    path = canonical(request.target)
    return path is not None and any(matches(rule, request, path, secrets) for rule in rules)


def matches(rule: Rule, request: Request, path: str, secrets: Secrets = NO_SECRETS) -> bool:
    """One rule: every field that is there must match."""
    if rule.get("method") and not whole(rule["method"], request.method):
        return False
    if rule.get("path") and not (whole(rule["path"], path) and plain(path, parameters=";" in rule["path"])):
        return False
    if rule.get("host") and not host_matches(rule["host"], request.authority):
        return False
    for text in rule.get("headers") or ():
        name, colon, value = text.partition(":")
        if not header_matches(request, name.strip(), value.strip() if colon else None):
            return False
    for each in rule.get("headerMatches") or ():
        value = expected(each, secrets)
        if value is None:
            return False  # nobody knows what to compare with
        if not each.get("mismatch") and not header_matches(request, each["name"], value or None):
            return False
    return True


def expected(match: Rule, secrets: Secrets) -> str | None:
    """The value a header is compared with; empty: any will do; None: it is in a Secret that cannot be used."""
    text = match.get("value") or ""
    secret = match.get("secret")
    if secret:
        held = None if secret.get("foreign") else secrets.get(f"{secret['namespace']}/{secret['name']}")
        text = held or text
        if not text:
            return None
    return text.encode().decode("latin-1")


def sent_on(rules: Iterable[Rule], request: Request, secrets: Secrets = NO_SECRETS) -> list[tuple[str, str]]:
    """The headers of a request that passes, as the server gets them; names in lower case.

    Each rule that matches the request as it came changes the headers that are not as it says. What is to be deleted
    goes first, then values are replaced, then added; among equals by name, values from Secrets before written ones.
    """
    path = canonical(request.target)
    changes: set[tuple[str, str, str, str, str]] = set()
    for rule in rules:
        for each in (rule.get("headerMatches") or ()) if path and matches(rule, request, path, secrets) else ():
            value = expected(each, secrets) or ""
            if each.get("mismatch") in ("DELETE", "REPLACE", "ADD") and not header_matches(
                request, each["name"], value or None
            ):
                secret = "" if value == (each.get("value") or "") else str(each.get("secret"))
                written = "" if secret else each.get("value") or ""
                changes.add((each["mismatch"], each["name"].lower(), written, secret, value))
    headers = [(name.lower(), value.strip(" \t")) for name, value in request.headers]
    for action in ("DELETE", "REPLACE", "ADD"):
        for _, name, _, _, value in sorted(each for each in changes if each[0] == action):
            if action != "ADD":
                headers = [each for each in headers if each[0] != name]
            if action != "DELETE":
                headers.append((name, value))
    return headers


def canonical(target: str) -> str | None:
    """The path Envoy and servers agree on, without the query; None: there is none, such requests are refused."""
    path, _, _ = target.partition("?")
    if not path.startswith("/") or "#" in target:
        return None
    if re.search(r"%2f|%5c|%00", path, re.IGNORECASE):
        return None
    path = path.replace("\\", "/")
    path = re.sub(r"/(\.\.?);[^/]*", r"/\1", path)  # dots have no parameters; written as %2e they keep them
    path = re.sub(r"%([0-9a-fA-F]{2})", _decoded, path)
    kept: list[str] = []
    parts = path.split("/")[1:]
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if part == ".." and kept:
            kept.pop()
        if part in (".", ".."):
            kept += [""] if last else []
        else:
            kept.append(part)
    slashed = "/" + "/".join(kept)
    return "//" if re.fullmatch("//+", slashed) else re.sub("/+", "/", slashed)  # `//` stays, and no path may be it


def _decoded(found: re.Match[str]) -> str:
    letter = chr(int(found[1], 16))
    return letter if letter in UNRESERVED else found[0]


def plain(path: str, *, parameters: bool) -> bool:
    """No parameters (`;x`), but in the last part for a rule that names them; nothing that is not a path's letter."""
    if path == "//" or re.search(r"%(?![0-9a-fA-F]{2})", path) or not all("!" <= letter <= "~" for letter in path):
        return False
    before, _, last = path.rpartition("/")
    return not re.search("(?i);|%3b", before if parameters else path) and not re.search("(?i)%3b", last)


def host_matches(expression: str, authority: str) -> bool:
    """Lower-case, without port and trailing dot; an expression that has a colon is compared with the port, too."""
    found = re.fullmatch(r"((?:[a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\])(\.?)(:[0-9]{1,5})?", authority.lower())
    if found is None:
        return False
    name, dot, port = found.groups(default="")
    if ":" in re.sub(r"\(\?[a-zA-Z-]*:|\[:\^?[a-z]+:\]", "", expression):
        return not dot and whole(f"(?i:{expression})", name + port)
    return whole(f"(?i:{expression})", name)


def header_matches(request: Request, name: str, value: str | None) -> bool:
    """The header is there, and all that is said of it is this value (None: any)."""
    values = [text.strip(" \t") for key, text in request.headers if key.lower() == name.lower()]
    return bool(values) if value is None else ",".join(values) == value


def whole(expression: str, text: str) -> bool:
    """Whether an RE2 matches all of a text."""
    return re2.fullmatch(expression, text) is not None
