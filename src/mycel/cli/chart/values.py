"""Settings of the chart: defaults, files, `--set`, merged as Helm does and checked against the schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import yaml

Values = dict[str, Any]


class ValuesError(Exception):
    """A setting is wrong; the message names its path."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """`over` wins; maps are merged, everything else replaced; a null removes the default."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge(cast("Mapping[str, Any]", below), cast("Mapping[str, Any]", value))
        else:
            merged[key] = value
    return merged


def parse_set(assignment: str) -> Values:
    """`a.b=c` as a nested map. The value is a YAML scalar; a dot in a key is written `\\.`."""
    path, equals, text = assignment.partition("=")
    keys = [key.replace("\\.", ".") for key in re.split(r"(?<!\\)\.", path)]
    if not equals or not all(keys):
        raise ValuesError(f"{assignment!r} is not of the form name.of.setting=value")
    value: Any = yaml.load(text, Loader=yaml.CSafeLoader)
    for key in reversed(keys):
        value = {key: value}
    return value


_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "null": type(None),
}


def check(value: Any, schema: Mapping[str, Any], path: str = "") -> None:
    """Raise ValuesError where `value` first breaks `schema` (the JSON schema words the chart uses)."""
    where = path or "values"
    kinds = schema.get("type")
    if kinds is not None:
        names: list[str] = [kinds] if isinstance(kinds, str) else kinds
        if not any(_is(value, name) for name in names):
            raise ValuesError(f"{where} must be {' or '.join(names)}, not {value!r}")
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(str(choice) for choice in schema["enum"])
        raise ValuesError(f"{where} is {value!r}; it can be: {allowed}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        raise ValuesError(f"{where} is {value!r}, which does not match {schema['pattern']}")
    if "minimum" in schema and isinstance(value, int) and value < schema["minimum"]:
        raise ValuesError(f"{where} is {value}; the least is {schema['minimum']}")
    if isinstance(value, dict):
        _check_object(cast("Values", value), schema, path)
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(cast("list[Any]", value)):
            check(item, schema["items"], f"{path}[{index}]")


def _check_object(value: Values, schema: Mapping[str, Any], path: str) -> None:
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            raise ValuesError(f"{path or 'values'} lacks {name}")
    for key, item in value.items():
        inner = f"{path}.{key}" if path else key
        rest = schema.get("additionalProperties", True)
        if key in properties:
            check(item, properties[key], inner)
        elif rest is False:
            raise ValuesError(f"there is no setting {inner}: see deploy/chart/values.yaml")
        elif isinstance(rest, Mapping):
            check(item, cast("Values", rest), inner)


def _is(value: Any, name: str) -> bool:
    if name == "integer" and isinstance(value, bool):
        return False
    return isinstance(value, _TYPES[name])
