"""What is wrong with an object, with the path of the field: the words of metav1.Status causes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import Enum
from typing import Any, NamedTuple


class Cause(Enum):
    """Kubernetes' `details.causes[].reason`."""

    REQUIRED = "FieldValueRequired"
    INVALID = "FieldValueInvalid"
    NOT_SUPPORTED = "FieldValueNotSupported"
    DUPLICATE = "FieldValueDuplicate"
    FORBIDDEN = "FieldValueForbidden"
    TOO_LONG = "FieldValueTooLong"
    NOT_FOUND = "FieldValueNotFound"
    TYPE = "FieldValueTypeInvalid"


class Problem(NamedTuple):
    """One thing wrong with one field."""

    cause: Cause
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def shown(value: Any) -> str:
    """A value as error messages show it, cut to a readable length."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 120 else text[:117] + "..."


def required(field: str, detail: str = "") -> Problem:
    """The field must be there."""
    return Problem(Cause.REQUIRED, field, f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: Any, detail: str) -> Problem:
    """The field's value is not allowed."""
    return Problem(Cause.INVALID, field, f"Invalid value: {shown(value)}: {detail}")


def not_supported(field: str, value: Any, allowed: Iterable[str]) -> Problem:
    """The value is none of a closed set."""
    names = ", ".join(json.dumps(name) for name in allowed)
    return Problem(Cause.NOT_SUPPORTED, field, f"Unsupported value: {shown(value)}: supported values: {names}")


def duplicate(field: str, value: Any) -> Problem:
    """The value must be unique in its list and is not."""
    return Problem(Cause.DUPLICATE, field, f"Duplicate value: {shown(value)}")


def forbidden(field: str, detail: str) -> Problem:
    """The field must not be set or changed here."""
    return Problem(Cause.FORBIDDEN, field, f"Forbidden: {detail}")


def too_long(field: str, limit: int) -> Problem:
    """The value is longer than allowed."""
    return Problem(Cause.TOO_LONG, field, f"Too long: may not be more than {limit} bytes")


def not_found(field: str, value: Any) -> Problem:
    """The value names something that is not there."""
    return Problem(Cause.NOT_FOUND, field, f"Not found: {shown(value)}")


def wrong_type(field: str, value: Any, expected: str) -> Problem:
    """The value has another type than the field."""
    return Problem(Cause.TYPE, field, f"Invalid value: {shown(value)}: must be {expected}, not {json_type(value)}")


def json_type(value: Any) -> str:
    """The JSON name of a Python value's type."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
