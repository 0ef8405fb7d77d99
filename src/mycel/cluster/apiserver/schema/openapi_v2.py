"""OpenAPI v2 in gnostic's protobuf form: what kubectl before 1.27 validates and patches with.

Field numbers are those of gnostic's openapi_v2.proto. Only what clients read is written: definitions with types,
required fields, patch hints and group-version-kinds, and paths that say which kinds take dryRun.
"""

from __future__ import annotations

import json
from typing import Any

from mycel.cluster.apiserver.registry import Kind, Registry
from mycel.cluster.apiserver.schema.openapi import (
    custom_schema_name,
    reachable,
    schema_name,
    struct_schema,
)
from mycel.cluster.apiserver.schema.types import struct

Object = dict[str, Any]
CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_V3 = "#/components/schemas/"
_V2 = "#/definitions/"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode())


def _named(number: int, name: str, value: bytes) -> bytes:
    return _bytes(number, _text(1, name) + _bytes(2, value))


def _extension(number: int, name: str, value: Any) -> bytes:
    """A vendor extension: NamedAny{name, Any{yaml}}; JSON is YAML."""
    return _named(number, name, _text(2, json.dumps(value)))


def _schema(schema: Object) -> bytes:
    """gnostic's Schema message."""
    out = b""
    inner = schema.get("allOf")
    if isinstance(inner, list) and len(inner) == 1 and "$ref" in inner[0]:
        out += _text(1, inner[0]["$ref"].replace(_V3, _V2))
    if "$ref" in schema:
        out += _text(1, schema["$ref"].replace(_V3, _V2))
    if "format" in schema:
        out += _text(2, schema["format"])
    for name in schema.get("required") or ():
        out += _text(19, name)
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        out += _bytes(21, _bytes(1, _schema(additional)))
    if "type" in schema:
        out += _bytes(22, _text(1, schema["type"]))
    if isinstance(schema.get("items"), dict):
        out += _bytes(23, _bytes(1, _schema(schema["items"])))
    properties = schema.get("properties")
    if properties:
        out += _bytes(25, b"".join(_named(1, name, _schema(value)) for name, value in properties.items()))
    for name, value in schema.items():
        if name.startswith("x-kubernetes-"):
            out += _extension(31, name, value)
    return out


def _operation(kind: Kind, action: str) -> bytes:
    query = _text(2, "query") + _text(4, "dryRun")
    parameter = _bytes(1, _bytes(2, _bytes(3, query)))
    gvk = {"group": kind.group, "kind": kind.kind, "version": kind.version}
    return (
        _text(5, f"{action}{kind.group}{kind.version}{kind.kind}")
        + _bytes(8, parameter)
        + _extension(13, "x-kubernetes-action", action)
        + _extension(13, "x-kubernetes-group-version-kind", gvk)
    )


def document_v2(registry: Registry) -> bytes:
    """The whole document, for all groups."""
    kinds = list(registry.kinds())
    tops = {kind.struct: kind for kind in kinds if kind.struct}
    definitions = b""
    for name in reachable([*tops, "meta.v1.DeleteOptions", "meta.v1.Status"]):
        definitions += _named(1, schema_name(name), _schema(struct_schema(struct(name), tops.get(name))))
    paths = b""
    for kind in kinds:
        if kind.custom is not None:
            # Custom kinds are validated by the server; here they are objects with any fields.
            told = {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "x-kubernetes-group-version-kind": [{"group": kind.group, "kind": kind.kind, "version": kind.version}],
            }
            definitions += _named(1, custom_schema_name(kind), _schema(told))
        prefix = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        middle = "/namespaces/{namespace}/" if kind.namespaced else "/"
        item = _bytes(8, _operation(kind, "patch")) + _bytes(5, _operation(kind, "delete"))
        paths += _named(2, f"{prefix}{middle}{kind.plural}/{{name}}", item)
    info = _text(1, "Kubernetes") + _text(2, "v1.32.4")
    return _text(1, "2.0") + _bytes(2, info) + _bytes(8, paths) + _bytes(9, definitions)
