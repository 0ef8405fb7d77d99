"""Objects of CRDs: pruning, defaults and validation by the version's structural OpenAPI schema.

CEL rules (`x-kubernetes-validations`) are stored and shown, not evaluated.
"""

from __future__ import annotations

import copy
import functools
import ipaddress
import re
from collections.abc import Callable
from typing import Any

from mycel.cluster.apiserver.registry import Kind
from mycel.cluster.apiserver.schema.check import normalize
from mycel.cluster.apiserver.schema.problems import (
    Cause,
    Problem,
    duplicate,
    invalid,
    json_type,
    not_supported,
    required,
    wrong_type,
)
from mycel.cluster.apiserver.schema.types import join, struct

Object = dict[str, Any]
Schema = dict[str, Any]
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_EMBEDDED = "x-kubernetes-embedded-resource"
_ALWAYS = ("apiVersion", "kind", "metadata")
_MAX_DEPTH = 100


def prune(obj: Object, kind: Kind) -> list[str]:
    """Remove fields the schema does not have; their paths."""
    assert kind.custom is not None
    schema = kind.custom.schema
    removed: list[str] = []
    if schema is not None:
        _prune(obj, schema, "", removed, top=True, depth=0)
    return removed


def _prune(value: Any, schema: Schema, path: str, removed: list[str], *, top: bool, depth: int) -> None:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        properties: Schema = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        keep = schema.get(_PRESERVE) or additional is True
        embedded = top or schema.get(_EMBEDDED)
        for name in list(value):
            here = join(path, name)
            if embedded and name in _ALWAYS:
                if name == "metadata" and not top and isinstance(value[name], dict):
                    normalize(value[name], struct("meta.v1.ObjectMeta"), here)
            elif name in properties:
                if value[name] is None and not properties[name].get("nullable") and "default" in properties[name]:
                    del value[name]
                    continue
                _prune(value[name], properties[name], here, removed, top=False, depth=depth + 1)
            elif isinstance(additional, dict):
                _prune(value[name], additional, here, removed, top=False, depth=depth + 1)
            elif not keep:
                removed.append(here)
                del value[name]
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            _prune(item, schema["items"], f"{path}[{index}]", removed, top=False, depth=depth + 1)


def default(obj: Object, kind: Kind) -> None:
    """Fill in the schema's defaults."""
    assert kind.custom is not None
    if kind.custom.schema is not None:
        _default(obj, kind.custom.schema, depth=0)


def _default(value: Any, schema: Schema, *, depth: int) -> None:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        properties: Schema = schema.get("properties") or {}
        for name, inner in properties.items():
            if name not in value and "default" in inner:
                value[name] = copy.deepcopy(inner["default"])
            if name in value:
                _default(value[name], inner, depth=depth + 1)
        additional = schema.get("additionalProperties")
        if isinstance(additional, dict):
            for name, item in value.items():
                if name not in properties:
                    _default(item, additional, depth=depth + 1)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            _default(item, schema["items"], depth=depth + 1)


def validate(obj: Object, kind: Kind) -> list[Problem]:
    """What the schema does not allow."""
    assert kind.custom is not None
    problems: list[Problem] = []
    if kind.custom.schema is not None:
        schema = kind.custom.schema
        _validate(
            obj, {**schema, "required": [n for n in schema.get("required") or () if n not in _ALWAYS]}, "", problems
        )
    return problems


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: (isinstance(v, int) and not isinstance(v, bool)) or (isinstance(v, float) and v.is_integer()),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
}


def _validate(value: Any, schema: Schema, path: str, problems: list[Problem], depth: int = 0) -> None:
    here = path or "<object>"
    if depth > _MAX_DEPTH:
        problems.append(invalid(here, "...", "nested too deeply"))
        return
    if value is None:
        if not schema.get("nullable") and not (schema.get(_PRESERVE) and "type" not in schema):
            problems.append(
                Problem(
                    Cause.TYPE,
                    here,
                    f'Invalid value: "null": {here} must be of type {schema.get("type", "object")}: "null"',
                )
            )
        return
    if schema.get(_INT_OR_STRING):
        if isinstance(value, bool) or not isinstance(value, int | str):
            problems.append(wrong_type(here, value, "integer or string"))
            return
    elif (kind := schema.get("type")) and kind in _TYPES and not _TYPES[kind](value):
        problems.append(
            Problem(
                Cause.TYPE,
                here,
                f'Invalid value: "{json_type(value)}": {here} in body must be of type {kind}: "{json_type(value)}"',
            )
        )
        return
    if "enum" in schema and value not in schema["enum"]:
        problems.append(not_supported(here, value, [str(item) for item in schema["enum"]]))
    match value:
        case dict():
            _validate_object(value, schema, path, problems, depth)
        case list():
            _validate_list(value, schema, path, problems, depth)
        case str():
            _validate_string(value, schema, here, problems)
        case bool():
            pass
        case int() | float():
            _validate_number(value, schema, here, problems)
        case _:
            pass
    _validate_combined(value, schema, path, problems, depth)


def _validate_object(value: Object, schema: Schema, path: str, problems: list[Problem], depth: int) -> None:
    properties: Schema = schema.get("properties") or {}
    for name in schema.get("required") or ():
        if name not in value:
            problems.append(required(join(path, name)))
    additional = schema.get("additionalProperties")
    for name, item in value.items():
        if not path and name in _ALWAYS:
            continue
        inner = properties.get(name)
        if inner is None and isinstance(additional, dict):
            inner = additional
        if inner is not None:
            _validate(item, inner, join(path, name), problems, depth + 1)
    here = path or "<object>"
    if len(value) < schema.get("minProperties", 0):
        problems.append(
            invalid(here, len(value), f"{here} in body should have at least {schema['minProperties']} properties")
        )
    if len(value) > schema.get("maxProperties", len(value)):
        problems.append(
            invalid(here, len(value), f"{here} in body should have at most {schema['maxProperties']} properties")
        )


def _validate_list(value: list[Any], schema: Schema, path: str, problems: list[Problem], depth: int) -> None:
    if len(value) < schema.get("minItems", 0):
        problems.append(invalid(path, len(value), f"{path} in body should have at least {schema['minItems']} items"))
    if len(value) > schema.get("maxItems", len(value)):
        problems.append(invalid(path, len(value), f"must have at most {schema['maxItems']} items"))
        return
    items = schema.get("items")
    if isinstance(items, dict):
        for index, item in enumerate(value):
            _validate(item, items, f"{path}[{index}]", problems, depth + 1)
    if schema.get("uniqueItems") or schema.get("x-kubernetes-list-type") == "set":
        seen: list[Any] = []
        for index, item in enumerate(value):
            if item in seen:
                problems.append(duplicate(f"{path}[{index}]", item))
            seen.append(item)
    if schema.get("x-kubernetes-list-type") == "map":
        keys = schema.get("x-kubernetes-list-map-keys") or ()
        found: list[Any] = []
        for index, item in enumerate(value):
            identity = {key: item.get(key) for key in keys} if isinstance(item, dict) else item
            if identity in found:
                problems.append(duplicate(f"{path}[{index}]", identity))
            found.append(identity)


@functools.lru_cache(maxsize=512)
def _pattern(text: str) -> Any:
    """A schema's pattern, linear in time (RE2, the dialect Kubernetes itself uses); None when it is none."""
    import re2

    try:
        return re2.compile(text)
    except re2.error:
        return None


def _validate_string(value: str, schema: Schema, path: str, problems: list[Problem]) -> None:
    if len(value) < schema.get("minLength", 0):
        problems.append(invalid(path, value, f"{path} in body should be at least {schema['minLength']} chars long"))
    if len(value) > schema.get("maxLength", len(value)):
        problems.append(Problem(Cause.TOO_LONG, path, f"Too long: may not be more than {schema['maxLength']} bytes"))
        return
    if "pattern" in schema:
        compiled = _pattern(schema["pattern"])
        if compiled is not None and not compiled.search(value):
            problems.append(invalid(path, value, f"{path} in body should match '{schema['pattern']}'"))
    form = schema.get("format")
    if form in _FORMATS and not _FORMATS[form](value):
        problems.append(invalid(path, value, f"{path} in body must be of type {form}: {value!r}"))


def _is_ip(value: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(value).version == version
    except ValueError:
        return False


def _is_cidr(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return "/" in value


_FORMATS: dict[str, Callable[[str], bool]] = {
    "ipv4": lambda v: _is_ip(v, 4),
    "ipv6": lambda v: _is_ip(v, 6),
    "cidr": _is_cidr,
    "date-time": lambda v: re.match(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", v) is not None,
    "uuid": lambda v: re.match(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\Z", v) is not None,
}
_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def _validate_number(value: float, schema: Schema, path: str, problems: list[Problem]) -> None:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value < low or (schema.get("exclusiveMinimum") and value == low)):
        problems.append(invalid(path, value, f"{path} in body should be greater than or equal to {low}"))
    if high is not None and (value > high or (schema.get("exclusiveMaximum") and value == high)):
        problems.append(invalid(path, value, f"{path} in body should be less than or equal to {high}"))
    step = schema.get("multipleOf")
    if step and value % step:
        problems.append(invalid(path, value, f"{path} in body should be a multiple of {step}"))
    bounds = _RANGES.get(schema.get("format") or "")
    if bounds and not bounds[0] <= value <= bounds[1]:
        problems.append(invalid(path, value, f"must fit {schema['format']}"))


def _validate_combined(value: Any, schema: Schema, path: str, problems: list[Problem], depth: int) -> None:
    here = path or "<object>"

    def failures(inner: Schema) -> list[Problem]:
        found: list[Problem] = []
        _validate(value, inner, path, found, depth + 1)
        return found

    for inner in schema.get("allOf") or ():
        problems += failures(inner)
    options = schema.get("anyOf") or ()
    if options and not schema.get(_INT_OR_STRING):
        results = [failures(inner) for inner in options]
        if all(results):
            problems.append(invalid(here, "", f'"{here}" must validate at least one schema (anyOf)'))
            problems += min(results, key=len)
    options = schema.get("oneOf") or ()
    if options:
        results = [failures(inner) for inner in options]
        matching = sum(not result for result in results)
        if matching != 1:
            problems.append(
                invalid(here, "", f'"{here}" must validate one and only one schema (oneOf), and {matching} match')
            )
            if not matching:
                problems += min(results, key=len)
    if "not" in schema and not failures(schema["not"]):
        problems.append(invalid(here, "", f'"{here}" must not validate the schema (not)'))
