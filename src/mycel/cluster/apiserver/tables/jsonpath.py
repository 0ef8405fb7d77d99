"""The JSONPath that CRD printer columns use: `.spec.x`, `.a[0].b`, `.a['k.8s/x']`, `.c[?(@.type=="Ready")].status`,
`[*]`, `\\.` within a name."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

from mycel.cluster.apiserver.tables.column import age

Step = Callable[[list[Any]], list[Any]]
_TOKEN = re.compile(
    r"""\.(?P<name>(?:[^.\[\\]|\\.)+)
      | \[\s*(?P<index>-?\d+)\s*\]
      | \[\s*(?P<star>\*)\s*\]
      | \[\s*(?P<quote>['"])(?P<key>.*?)(?P=quote)\s*\]
      | \[\?\(\s*@(?P<field>(?:\.[\w\-/\\.]+)?)\s*(?P<op>==|!=)\s*(?P<value>.*?)\s*\)\]""",
    re.VERBOSE,
)


@functools.lru_cache(maxsize=1024)
def _compile(path: str) -> tuple[Step, ...] | None:
    text = path.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = text.removeprefix("$")
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        position = match.end()
        if match["name"] is not None:
            steps.append(_all if match["name"] == "*" else _member(re.sub(r"\\(.)", r"\1", match["name"])))
        elif match["index"] is not None:
            steps.append(_index(int(match["index"])))
        elif match["star"] is not None:
            steps.append(_all)
        elif match["quote"] is not None:
            steps.append(_member(match["key"]))
        else:
            steps.append(_filter(match["field"].strip("."), match["op"] == "!=", match["value"]))
    return tuple(steps)


def _member(name: str) -> Step:
    return lambda values: [value[name] for value in values if isinstance(value, dict) and name in value]


def _index(position: int) -> Step:
    def step(values: list[Any]) -> list[Any]:
        return [v[position] for v in values if isinstance(v, list) and -len(v) <= position < len(v)]

    return step


def _all(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, list):
            found.extend(value)
        elif isinstance(value, dict):
            found.extend(value.values())
    return found


def _filter(field: str, negated: bool, literal: str) -> Step:
    wanted: Any = literal.strip("'\"")
    if literal[:1] not in "'\"":
        wanted = {"true": True, "false": False}.get(literal, int(literal) if literal.lstrip("-").isdigit() else literal)
    names = field.split(".") if field else []

    def step(values: list[Any]) -> list[Any]:
        found: list[Any] = []
        for value in values:
            for item in value if isinstance(value, list) else ():
                inner: Any = item
                for name in names:
                    inner = inner.get(name) if isinstance(inner, dict) else None
                if (inner == wanted) is not negated:
                    found.append(item)
        return found

    return step


def evaluate(obj: Any, path: str) -> list[Any] | None:
    """All values at `path`; None when the path cannot be read."""
    steps = _compile(path)
    if steps is None:
        return None
    values = [obj]
    for step in steps:
        values = step(values)
    return values


def column_value(obj: Any, path: str, *, kind: str) -> Any:
    """A printer column's cell: the first value, in the column's type; None when there is none."""
    values = evaluate(obj, path)
    if not values:
        return None
    value = values[0] if len(values) == 1 or kind != "string" else ",".join(_text(item) for item in values)
    match kind:
        case "integer":
            return int(value) if isinstance(value, int | float) else None
        case "number":
            return value if isinstance(value, int | float) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case "date":
            return age(value)
        case _:
            return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))
