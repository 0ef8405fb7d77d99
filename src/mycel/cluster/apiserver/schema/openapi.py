"""OpenAPI v3 documents, made from the type tables and the CRDs: what kubectl validates, patches and explains with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from mycel.cluster.apiserver.registry import Kind, Registry
from mycel.cluster.apiserver.schema.types import Field, Shape, Struct, Type, struct

Object = dict[str, Any]
_REF = "#/components/schemas/"

_PACKAGES = {
    "meta.v1": "io.k8s.apimachinery.pkg.apis.meta.v1",
    "apiextensions.v1": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
}
_SCALARS: dict[str, Object] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "byte": {"type": "integer", "format": "byte"},
    "double": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "Time": {"type": "string", "format": "date-time"},
    "MicroTime": {"type": "string", "format": "date-time"},
    "Quantity": {"type": "string"},
    "IntOrString": {"type": "string", "format": "int-or-string"},
    "FieldsV1": {"type": "object"},
    "Any": {},
}


def schema_name(name: str) -> str:
    """`core.v1.Pod` → `io.k8s.api.core.v1.Pod`."""
    package, _, short = name.rpartition(".")
    return f"{_PACKAGES.get(package, 'io.k8s.api.' + package)}.{short}"


def type_schema(kind: Type, *, ref: str = _REF) -> Object:
    """The schema of a field's type."""
    match kind.shape:
        case Shape.STRUCT:
            return {"$ref": ref + schema_name(kind.name)}
        case Shape.LIST:
            return {"type": "array", "items": type_schema(kind.items(), ref=ref)}
        case Shape.MAP:
            return {"type": "object", "additionalProperties": type_schema(kind.items(), ref=ref)}
        case Shape.SCALAR:
            # A known enumeration stays plain text here: the server's own error is the better one.
            return dict(_SCALARS[kind.name])


def _property(field: Field) -> Object:
    inner = type_schema(field.type)
    result: Object = {"allOf": [inner]} if "$ref" in inner else inner
    if field.patch:
        result["x-kubernetes-patch-strategy"] = ",".join(field.patch)
    if field.merge_key:
        result["x-kubernetes-patch-merge-key"] = field.merge_key
    if field.map_keys:
        result["x-kubernetes-list-type"] = "map"
        result["x-kubernetes-list-map-keys"] = list(field.map_keys)
    elif field.is_set:
        result["x-kubernetes-list-type"] = "set"
    elif field.atomic and field.type.shape is Shape.LIST:
        result["x-kubernetes-list-type"] = "atomic"
    elif field.atomic:
        result["x-kubernetes-map-type"] = "atomic"
    return result


def struct_schema(shape: Struct, kind: Kind | None) -> Object:
    """The schema of a struct; `kind` when it is a top-level object."""
    properties: Object = {}
    if kind is not None:
        properties = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    properties |= {name: _property(field) for name, field in sorted(shape.fields.items())}
    result: Object = {"type": "object", "properties": properties}
    needed = sorted(name for name, field in shape.fields.items() if field.required)
    if needed:
        result["required"] = needed
    if kind is not None:
        result["x-kubernetes-group-version-kind"] = [_gvk(kind)]
    return result


def _gvk(kind: Kind) -> Object:
    return {"group": kind.group, "kind": kind.kind, "version": kind.version}


def reachable(names: Iterable[str]) -> list[str]:
    """Full names of all structs that the named ones contain."""
    seen: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        for field in struct(name).fields.values():
            kind = field.type
            while kind.element is not None:
                kind = kind.element
            if kind.shape is Shape.STRUCT:
                queue.append(kind.name)
    return sorted(seen)


def custom_schema_name(kind: Kind) -> str:
    """`com.example.v1.Widget` for group example.com."""
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def custom_schema(kind: Kind) -> Object:
    """A CRD version's schema with metadata and group-version-kind."""
    assert kind.custom is not None
    given: Object = kind.custom.schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    meta = {"allOf": [{"$ref": _REF + schema_name("meta.v1.ObjectMeta")}]}
    properties = {**(given.get("properties") or {}), "metadata": meta}
    properties.setdefault("apiVersion", {"type": "string"})
    properties.setdefault("kind", {"type": "string"})
    return {**given, "properties": properties, "x-kubernetes-group-version-kind": [_gvk(kind)]}


def _parameter(name: str, kind: str = "string") -> Object:
    return {"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": True}}


def _operations(kind: Kind, name: str) -> dict[str, Object]:
    body = {"$ref": _REF + name}
    gvk = _gvk(kind)

    def operation(action: str, *, media: tuple[str, ...] = (), parameters: tuple[str, ...] = ()) -> Object:
        result: Object = {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
            "operationId": f"{action}{kind.group.split('.')[0].title()}{kind.version.title()}{kind.kind}",
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": body}}}},
        }
        if parameters:
            result["parameters"] = [_parameter(parameter) for parameter in parameters]
        if media:
            content = {each: {"schema": body if action != "patch" else {"type": "object"}} for each in media}
            result["requestBody"] = {"content": content, "required": True}
        return result

    writing = ("dryRun", "fieldManager", "fieldValidation")
    prefix = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    base = f"{prefix}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{prefix}/{kind.plural}"
    patches = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")
    if kind.custom is None:
        patches = (*patches, "application/strategic-merge-patch+json")
    json = ("application/json",)
    paths: dict[str, Object] = {base: {"post": operation("post", media=json, parameters=writing)}}
    if "get" in kind.verbs:
        paths[base]["get"] = operation("list")
        paths[base + "/{name}"] = {
            "get": operation("get"),
            "put": operation("put", media=json, parameters=writing),
            "patch": operation("patch", media=patches, parameters=(*writing, "force")),
            "delete": operation("delete", parameters=("dryRun",)),
        }
    return paths


def document(registry: Registry, group: str, version: str) -> Object | None:
    """The OpenAPI v3 document of one group version; None when nothing is served there."""
    kinds = [kind for kind in registry.kinds() if kind.group == group and kind.version == version]
    if not kinds:
        return None
    schemas: Object = {}
    paths: Object = {}
    tops = {kind.struct: kind for kind in kinds if kind.struct}
    for name in reachable([*tops, "meta.v1.ObjectMeta", "meta.v1.DeleteOptions", "meta.v1.Status"]):
        schemas[schema_name(name)] = struct_schema(struct(name), tops.get(name))
    for kind in kinds:
        name = schema_name(kind.struct) if kind.struct else custom_schema_name(kind)
        if kind.struct is None:
            schemas[name] = custom_schema(kind)
        paths.update(_operations(kind, name))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.32.4"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def index(registry: Registry) -> Object:
    """/openapi/v3: where the documents are, with hashes so that clients may keep them."""
    paths: Object = {}
    for group, versions in registry.group_versions().items():
        for version in versions:
            where = f"apis/{group}/{version}" if group else f"api/{version}"
            paths[where] = {"serverRelativeURL": f"/openapi/v3/{where}?hash={_digest(registry, group, version)}"}
    return {"paths": paths}


def _digest(registry: Registry, group: str, version: str) -> str:
    kinds = [kind for kind in registry.kinds() if kind.group == group and kind.version == version]
    told = [(kind.plural, kind.kind, kind.struct, kind.custom.schema if kind.custom else None) for kind in kinds]
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:32].upper()
