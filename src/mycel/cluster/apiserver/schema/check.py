"""Does an object of a built-in kind have the shape its table says?

Two passes. `normalize` runs on a request's body: it finds values of wrong types, collects and removes unknown
fields, and turns null into absent, as decoding into typed structs would. `validate_structure` runs after defaults:
required fields and enumerations.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from typing import Any

from mycel.cluster.apiserver.schema.problems import Problem, invalid, not_supported, required, wrong_type
from mycel.cluster.apiserver.schema.quantity import is_quantity
from mycel.cluster.apiserver.schema.types import Shape, Struct, Type, join

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z")
_INTEGERS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1), "byte": (0, 255)}
_ZERO: dict[str, Any] = {"string": "", "int32": 0, "int64": 0, "bool": False, "double": 0.0, "bytes": ""}
_MAX_DEPTH = 64

# Fields whose Go type is always written but which the API accepts when they are absent.
_LENIENT = frozenset(
    {
        ("discovery.v1.EndpointSlice", "endpoints"),
        ("discovery.v1.EndpointSlice", "ports"),
        ("authentication.v1.TokenRequestSpec", "audiences"),
        ("authentication.v1.TokenRequestSpec", "expirationSeconds"),
        ("authentication.v1.TokenRequestSpec", "boundObjectRef"),
        ("rbac.v1.ClusterRole", "rules"),
        ("rbac.v1.Role", "rules"),
        ("networking.v1.NetworkPolicySpec", "podSelector"),
        ("meta.v1.LabelSelectorRequirement", "values"),
        ("apps.v1.StatefulSetSpec", "serviceName"),
        ("scheduling.v1.PriorityClass", "value"),
        ("core.v1.Event", "involvedObject"),
        ("core.v1.Event", "metadata"),
        ("events.v1.Event", "eventTime"),
        ("core.v1.NamespaceSpec", "finalizers"),
        ("apiextensions.v1.CustomResourceDefinition", "status"),
    }
)


@dataclass(slots=True)
class Shapes:
    """What `normalize` found."""

    wrong: list[Problem] = field(default_factory=list[Problem])
    unknown: list[str] = field(default_factory=list[str])


def normalize(obj: Any, struct: Struct, path: str = "") -> Shapes:
    """Check types in place; unknown fields and nulls are removed from `obj`."""
    found = Shapes()
    if not isinstance(obj, dict):
        found.wrong.append(wrong_type(path or "<object>", obj, "object"))
        return found
    _normalize_struct(obj, struct, path, found=found, depth=0)
    return found


def _normalize_struct(obj: dict[str, Any], struct: Struct, path: str, *, found: Shapes, depth: int) -> None:
    if depth > _MAX_DEPTH:
        found.wrong.append(invalid(path, "...", f"nested deeper than {_MAX_DEPTH} levels"))
        return
    fields = struct.fields
    for name in list(obj):
        known = fields.get(name)
        if known is None:
            if depth == 0 and name in ("apiVersion", "kind"):
                continue
            found.unknown.append(join(path, name))
            del obj[name]
            continue
        value = obj[name]
        if value is None:
            del obj[name]
            continue
        obj[name] = _normalize_value(value, known.type, join(path, name), found=found, depth=depth)


def _normalize_value(value: Any, kind: Type, path: str, *, found: Shapes, depth: int) -> Any:
    match kind.shape:
        case Shape.SCALAR:
            return _normalize_scalar(value, kind, path, found=found)
        case Shape.STRUCT:
            if not isinstance(value, dict):
                found.wrong.append(wrong_type(path, value, "object"))
            else:
                _normalize_struct(value, kind.struct, path, found=found, depth=depth + 1)
        case Shape.LIST:
            if not isinstance(value, list):
                found.wrong.append(wrong_type(path, value, "array"))
                return value
            element = kind.items()
            for index, item in enumerate(value):
                here = f"{path}[{index}]"
                value[index] = _normalize_value(_or_zero(item, element), element, here, found=found, depth=depth)
        case Shape.MAP:
            if not isinstance(value, dict):
                found.wrong.append(wrong_type(path, value, "object"))
                return value
            element = kind.items()
            for key, item in value.items():
                here = f"{path}[{key}]"
                value[key] = _normalize_value(_or_zero(item, element), element, here, found=found, depth=depth)
    return value


def _or_zero(value: Any, kind: Type) -> Any:
    """A null inside a list or map is the zero value, as in Go."""
    if value is not None:
        return value
    match kind.shape:
        case Shape.LIST:
            return []
        case Shape.STRUCT | Shape.MAP:
            return {}
        case Shape.SCALAR:
            return _ZERO.get(kind.name)


def _normalize_scalar(value: Any, kind: Type, path: str, *, found: Shapes) -> Any:
    name = kind.name
    match name:
        case "string":
            if not isinstance(value, str):
                found.wrong.append(wrong_type(path, value, "string"))
        case "bool":
            if not isinstance(value, bool):
                found.wrong.append(wrong_type(path, value, "boolean"))
        case "int32" | "int64" | "byte":
            if isinstance(value, bool) or not isinstance(value, int):
                found.wrong.append(wrong_type(path, value, "integer"))
            else:
                low, high = _INTEGERS[name]
                if not low <= value <= high:
                    found.wrong.append(invalid(path, value, f"does not fit {name}"))
        case "double":
            if isinstance(value, bool) or not isinstance(value, int | float):
                found.wrong.append(wrong_type(path, value, "number"))
        case "IntOrString":
            if isinstance(value, bool) or not isinstance(value, int | str):
                found.wrong.append(wrong_type(path, value, "integer or string"))
        case "Quantity":
            if isinstance(value, int | float) and not isinstance(value, bool):
                value = str(value)
            if not isinstance(value, str):
                found.wrong.append(wrong_type(path, value, "a quantity such as 100m or 1Gi"))
            elif not is_quantity(value):
                found.wrong.append(invalid(path, value, "must be a quantity such as 100m, 0.5 or 1Gi"))
        case "Time" | "MicroTime":
            if not isinstance(value, str):
                found.wrong.append(wrong_type(path, value, "a time as in RFC 3339"))
            elif value and not _TIME.match(value):
                found.wrong.append(invalid(path, value, "must be a time as in RFC 3339"))
        case "bytes":
            _check_base64(value, path, found)
        case "FieldsV1":
            if not isinstance(value, dict):
                found.wrong.append(wrong_type(path, value, "object"))
        case _:
            pass
    return value


def _check_base64(value: Any, path: str, found: Shapes) -> None:
    if not isinstance(value, str):
        found.wrong.append(wrong_type(path, value, "a base64 string"))
        return
    try:
        binascii.a2b_base64(value.encode("ascii", "replace"), strict_mode=bool(value))
    except binascii.Error as error:
        found.wrong.append(Problem(wrong_type(path, "", "").cause, path, f"Invalid value: not base64: {error}"))


def validate_structure(obj: dict[str, Any], struct: Struct, path: str = "") -> list[Problem]:
    """Required fields and enumerations of `obj`, which has passed `normalize`; `status` is not looked at."""
    problems: list[Problem] = []
    _validate_struct(obj, struct, path, problems)
    return problems


def _validate_struct(obj: dict[str, Any], struct: Struct, path: str, problems: list[Problem]) -> None:
    for name, known in struct.fields.items():
        if name == "status" and not path:
            continue
        value = obj.get(name)
        if value is None:
            if known.required and (struct.name, name) not in _LENIENT:
                problems.append(required(join(path, name)))
            continue
        if known.required and value == "" and known.type.shape is Shape.SCALAR and name in ("name", "key", "mountPath"):
            problems.append(required(join(path, name)))
            continue
        _validate_value(value, known.type, join(path, name), problems)


def _validate_value(value: Any, kind: Type, path: str, problems: list[Problem]) -> None:
    match kind.shape:
        case Shape.STRUCT:
            if kind.name not in ("meta.v1.ObjectMeta", "apiextensions.v1.JSONSchemaProps"):
                _validate_struct(value, kind.struct, path, problems)
        case Shape.LIST:
            element = kind.items()
            if element.shape is not Shape.SCALAR or element.values:
                for index, item in enumerate(value):
                    _validate_value(item, element, f"{path}[{index}]", problems)
        case Shape.MAP:
            element = kind.items()
            if element.shape is not Shape.SCALAR:
                for key, item in value.items():
                    _validate_value(item, element, f"{path}[{key}]", problems)
        case Shape.SCALAR:
            if kind.values and value and value not in kind.values:
                problems.append(not_supported(path, value, [name for name in kind.values if name]))
