"""Words to say structural schemas with, and the shapes several kinds share."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
PORT = r"^(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})$"
PORT_OR_NAME = rf"^({PORT[1:-1]}|([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*)$"


def string(says: str = "", **more: Any) -> Schema:
    return _described(says, {"type": "string"} | more)


def enum(*values: str, says: str = "", **more: Any) -> Schema:
    return string(says, enum=list(values), **more)


def boolean(says: str = "", **more: Any) -> Schema:
    return _described(says, {"type": "boolean"} | more)


def integer(says: str = "", **more: Any) -> Schema:
    return _described(says, {"type": "integer"} | more)


def array(items: Schema, says: str = "", **more: Any) -> Schema:
    return _described(says, {"type": "array", "items": items} | more)


def obj(properties: dict[str, Schema], says: str = "", *, required: tuple[str, ...] = (), **more: Any) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return _described(says, schema | more)


def mapping(values: Schema, says: str = "") -> Schema:
    return _described(says, {"type": "object", "additionalProperties": values})


def anything(says: str = "") -> Schema:
    """An object whose fields are not ours to check (they are kept as they are)."""
    return _described(says, {"type": "object", "x-kubernetes-preserve-unknown-fields": True})


def int_or_string(says: str = "", **more: Any) -> Schema:
    return _described(
        says, {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True} | more
    )


def one_of(*fields: str) -> list[Schema]:
    """Exactly (`oneOf`) or at least (`anyOf`) one of these fields."""
    return [{"properties": {field: {}}, "required": [field]} for field in fields]


def cidr(says: str = "") -> Schema:
    return string(says, format="cidr")


def selector(says: str = "") -> Schema:
    requirement = obj(
        {
            "key": string(),
            "operator": enum("In", "NotIn", "Exists", "DoesNotExist"),
            "values": array(string(), **{"x-kubernetes-list-type": "atomic"}),
        },
        required=("key", "operator"),
    )
    return obj(
        {
            "matchLabels": mapping(string(maxLength=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")),
            "matchExpressions": array(requirement, **{"x-kubernetes-list-type": "atomic"}),
        },
        says,
        **{"x-kubernetes-map-type": "atomic"},
    )


def conditions() -> Schema:
    condition = obj(
        {
            "type": string(),
            "status": enum("True", "False", "Unknown"),
            "reason": string(),
            "message": string(),
            "lastTransitionTime": string(format="date-time"),
            "observedGeneration": integer(format="int64"),
        },
        required=("type", "status"),
    )
    return array(condition, **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})


def _described(says: str, schema: Schema) -> Schema:
    return {"description": says} | schema if says else schema
