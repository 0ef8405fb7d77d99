"""HTTP rules of policies, a second time: may this request pass? Plain loops; expressions (RE2) match whole values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import re2

Rule = Mapping[str, Any]
UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


class Request(NamedTuple):
    """As it is on the wire: `target` with its query; names of `headers` in any case."""

    method: str
    authority: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()


def allowed(rules: Iterable[Rule], request: Request) -> bool:
    """Whether any of the rules lets the request pass, and nobody could read its path in another way."""
    path = canonical(request.target)
    return path is not None and any(matches(rule, request, path) for rule in rules)


def matches(rule: Rule, request: Request, path: str) -> bool:
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
        if each.get("mismatch") != "LOG" and not header_matches(request, each["name"], each.get("value") or None):
            return False
    return True


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
