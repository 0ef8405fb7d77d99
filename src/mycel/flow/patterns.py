"""Patterns of names in filters: `*.cilium.io` for DNS names, `cluster/node*` for nodes. Compiled by RE2:
linear time."""

from collections.abc import Callable, Iterable

import re2

from mycel.flow.errors import FilterError

_ANY_NAME = r"(?:[-0-9_a-z]+(?:\.[-0-9_a-z]+)*)"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_LONGEST = 4096

Matcher = Callable[[str], bool]


def regular_expression(field: str, pattern: str) -> Matcher:
    """An unanchored RE2 expression of a filter field."""
    if len(pattern) > _LONGEST:
        raise FilterError(f"{field}: an expression of {len(pattern)} characters is longer than {_LONGEST}")
    try:
        compiled = re2.compile(pattern)
    except re2.error as problem:
        raise FilterError(f"{field}: {pattern!r} is not an RE2 expression: {problem}") from problem
    return lambda text: compiled.search(text) is not None


def _name_expression(field: str, pattern: str) -> str:
    """`*.Cilium.io.` as an expression: case and one trailing dot do not matter, `*` spans dots."""
    name = pattern.strip().removesuffix(".").lower()
    if not name or name.endswith("."):
        raise FilterError(f"{field}: {pattern!r} is not a name pattern")
    parts: list[str] = []
    for character in name:
        if character == ".":
            parts.append(r"\.")
        elif character == "*":
            parts.append(r"[-.0-9a-z]*")
        elif character in _PLAIN:
            parts.append(character)
        else:
            raise FilterError(f"{field}: {pattern!r} holds {character!r}, which no name has")
    return "".join(parts)


def _node_expression(field: str, pattern: str) -> str:
    """`cluster/node`: each side a name pattern, an empty side anything, no slash any cluster."""
    cluster, slash, node = pattern.partition("/")
    if not slash:
        cluster, node = "", pattern
    if not pattern or "/" in node:
        raise FilterError(f"{field}: {pattern!r} is not `node` or `cluster/node`")
    sides = [_name_expression(field, side) if side else _ANY_NAME for side in (cluster, node)]
    return "/".join(sides)


def _one_of(field: str, expressions: Iterable[str]) -> Matcher:
    return regular_expression(field, rf"\A(?:{'|'.join(expressions)})\z")


def dns_names(field: str, patterns: Iterable[str]) -> Matcher:
    """Matches a DNS name that fits one of the patterns."""
    return _one_of(field, [_name_expression(field, pattern) for pattern in patterns])


def node_names(field: str, patterns: Iterable[str], *, default_cluster: str = "default") -> Matcher:
    """Matches `cluster/node` (or `node`, which is in the default cluster) that fits one of the patterns."""
    matches = _one_of(field, [_node_expression(field, pattern) for pattern in patterns])
    return lambda name: bool(name) and matches(name if "/" in name else f"{default_cluster}/{name}")
