"""Settings of the chart: merging, `--set`, and the schema."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cli.chart.values import ValuesError, check, merge, parse_set


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": None}, {}),
        ({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {}}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
    ],
)
def test_merge(base: dict[str, Any], over: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merge(base, over) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=c", {"a": {"b": "c"}}),
        ("a=true", {"a": True}),
        ("a=3", {"a": 3}),
        ("a=", {"a": None}),
        (r"a.b\.c=d=e", {"a": {"b.c": "d=e"}}),
    ],
)
def test_set(text: str, expected: dict[str, Any]) -> None:
    assert parse_set(text) == expected


@pytest.mark.parametrize("text", ["a", "=b", "a..b=c"])
def test_set_refuses(text: str) -> None:
    with pytest.raises(ValuesError, match="not of the form"):
        parse_set(text)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "port": {"type": "integer", "minimum": 1},
        "mode": {"enum": ["a", "b"]},
        "list": {"type": "array", "items": {"type": ["string", "null"]}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "values lacks name"),
        ({"name": 1}, "name must be string"),
        ({"name": "A"}, "name is 'A', which does not match"),
        ({"name": "a", "port": True}, "port must be integer"),
        ({"name": "a", "port": 0}, "the least is 1"),
        ({"name": "a", "mode": "c"}, "it can be: a, b"),
        ({"name": "a", "list": ["x", 1]}, r"list\[1\] must be string or null"),
        ({"name": "a", "labels": {"x": 1}}, "labels.x must be string"),
        ({"name": "a", "nmae": "b"}, "there is no setting nmae"),
    ],
)
def test_schema_names_the_path(value: dict[str, Any], says: str) -> None:
    with pytest.raises(ValuesError, match=says):
        check(value, SCHEMA)


def test_schema_accepts() -> None:
    check({"name": "a", "port": 1, "mode": "b", "list": ["x", None], "labels": {"x": "y"}}, SCHEMA)
