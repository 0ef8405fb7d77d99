"""metadata.managedFields: which manager set which field (server-side apply's memory).

Ownership is kept only for objects somebody has applied to. Until then an object carries no managedFields; its
first apply finds all existing fields owned by `before-first-apply`, as Kubernetes does for objects older than the
feature. A field set is a set of paths; a path element is `f:name`, `k:{"name":"x"}` (item of a keyed list),
`v:"x"` (member of a set); a path ending in `.` is the item or map itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mycel.cluster.apiserver.registry import Kind
from mycel.cluster.apiserver.schema.types import Field, Shape, Struct, struct

Object = dict[str, Any]
Path = tuple[str, ...]
FieldSet = frozenset[Path]

BEFORE_FIRST_APPLY = "before-first-apply"
_NEVER = frozenset({"f:apiVersion", "f:kind"})
_META_KEPT = frozenset({"f:labels", "f:annotations", "f:finalizers", "f:ownerReferences"})


class Shapes:
    """How lists merge: from the type tables, or from a CRD's schema."""

    def __init__(self, kind: Kind) -> None:
        self.struct = struct(kind.struct) if kind.struct else None
        self.schema = kind.custom.schema if kind.custom else None


def list_keys(field: Field | None, schema: Object | None) -> tuple[str, ...] | None:
    """Keys of a keyed list, () for a set, None for an atomic list."""
    if field is not None:
        if field.map_keys:
            return field.map_keys
        if field.is_set:
            return ()
        if field.merge_key and not field.atomic:
            return (field.merge_key,)
        return None
    if schema is not None:
        kind = schema.get("x-kubernetes-list-type")
        if kind == "map":
            return tuple(schema.get("x-kubernetes-list-map-keys") or ())
        if kind == "set":
            return ()
    return None


def item_key(item: Any, keys: tuple[str, ...], field: Field | None) -> str:
    """The path element of one list item."""
    if not keys:
        return "v:" + json.dumps(item, sort_keys=True, separators=(",", ":"))
    identity: Object = {}
    for key in keys:
        value = item.get(key) if isinstance(item, dict) else None
        if value is None and key == "protocol":
            value = "TCP"
        if value is not None:
            identity[key] = value
    return "k:" + json.dumps(identity, sort_keys=True, separators=(",", ":"))


def field_set(obj: Object, kind: Kind) -> FieldSet:
    """All paths of `obj` that somebody can own."""
    shapes = Shapes(kind)
    return frozenset(path for path in _paths(obj, shapes.struct, shapes.schema, ()) if not _is_system(path))


def _is_system(path: Path) -> bool:
    if path[0] in _NEVER:
        return True
    return path[0] == "f:metadata" and (len(path) < 2 or path[1] not in _META_KEPT)


def _paths(value: Object, inner: Struct | None, schema: Object | None, prefix: Path) -> Iterator[Path]:
    for name, item in value.items():
        here = (*prefix, f"f:{name}")
        if not prefix and name == "metadata":
            yield from _paths(item, struct("meta.v1.ObjectMeta"), None, here)
            continue
        field = inner.fields.get(name) if inner else None
        sub = _sub_schema(schema, name)
        yield from _value_paths(item, field, sub, here)


def _sub_schema(schema: Object | None, name: str) -> Object | None:
    if schema is None:
        return None
    found = (schema.get("properties") or {}).get(name)
    if found is None:
        additional = schema.get("additionalProperties")
        found = additional if isinstance(additional, dict) else None
    return found


def _value_paths(item: Any, field: Field | None, schema: Object | None, here: Path) -> Iterator[Path]:
    if isinstance(item, dict):
        if not item or (field is not None and field.atomic):
            yield here
            return
        if field is not None and field.type.shape is Shape.STRUCT:
            yield from _paths(item, field.type.struct, None, here)
        elif field is not None and field.type.shape is Shape.MAP:
            yield (*here, ".")
            for name in item:
                yield (*here, f"f:{name}")
        elif field is not None or (schema or {}).get("x-kubernetes-map-type") == "atomic":
            yield here
        else:
            yield from _paths(item, None, schema, here)
        return
    if isinstance(item, list):
        keys = list_keys(field, schema)
        if keys is None or not item:
            yield here
            return
        element = field.type.items() if field else None
        inner = element.struct if element is not None and element.shape is Shape.STRUCT else None
        items_schema = (schema or {}).get("items")
        for entry in item:
            at = (*here, item_key(entry, keys, field))
            yield (*at, ".") if keys else at
            if keys and isinstance(entry, dict):
                yield from _paths(entry, inner, items_schema, at)
        return
    yield here


def encode_fields(paths: FieldSet) -> Object:
    """A field set as managedFields has it (FieldsV1)."""
    root: Object = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
    return root


def decode_fields(tree: Object) -> FieldSet:
    """The paths of a FieldsV1 tree: its leaves."""

    def walk(node: Object, prefix: Path) -> Iterator[Path]:
        for name, inner in node.items():
            here = (*prefix, name)
            if isinstance(inner, dict) and inner:
                yield from walk(inner, here)
            else:
                yield here

    return frozenset(walk(tree, ()))


def value_at(obj: Any, path: Path) -> Any:
    """The value at a path, or None."""
    for element in path:
        if element == ".":
            return True if obj is not None else None
        if element.startswith("f:"):
            obj = obj.get(element[2:]) if isinstance(obj, dict) else None
        elif isinstance(obj, list):
            obj = next((item for item in obj if _matches(item, element)), None)
        else:
            return None
        if obj is None:
            return None
    return obj


def _matches(item: Any, element: str) -> bool:
    wanted = json.loads(element[2:])
    if element.startswith("v:"):
        return item == wanted
    return isinstance(item, dict) and all(
        item.get(key, "TCP" if key == "protocol" else None) == value for key, value in wanted.items()
    )


def entry(manager: str, operation: str, kind: Kind, now: str, paths: FieldSet, *, subresource: str = "") -> Object:
    """One managedFields entry."""
    return {
        "manager": manager,
        "operation": operation,
        "apiVersion": kind.api_version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": encode_fields(paths),
        **({"subresource": subresource} if subresource else {}),
    }


def note_update(old: Object, new: Object, manager: str, *, subresource: str, now: str, kind: Kind) -> None:
    """After a plain write: what changed belongs to `manager` and to nobody else. Changes `new`'s metadata."""
    meta = new["metadata"]
    entries = old["metadata"].get("managedFields")
    if not entries:
        meta.pop("managedFields", None)
        return
    if meta.get("managedFields") == []:
        return  # the documented way to reset ownership
    before, after = field_set(kind.present(old), kind), field_set(kind.present(new), kind)
    changed = frozenset(path for path in after if path not in before or value_at(old, path) != value_at(new, path))
    result: list[Object] = []
    mine: FieldSet = changed
    for item in entries:
        owned = decode_fields(item.get("fieldsV1") or {})
        is_mine = (
            item.get("manager") == manager
            and item.get("operation") == "Update"
            and item.get("subresource", "") == subresource
        )
        kept = (owned & after) if is_mine else (owned & after) - changed
        if is_mine:
            mine = mine | kept
        elif kept == owned:
            result.append(item)
        elif kept:
            result.append({**item, "fieldsV1": encode_fields(kept)})
    if mine and changed:
        result.append(entry(manager, "Update", kind, now, mine, subresource=subresource))
    elif mine:
        result.extend(
            item
            for item in entries
            if item.get("manager") == manager
            and item.get("operation") == "Update"
            and item.get("subresource", "") == subresource
        )
    if result == list(entries):
        meta["managedFields"] = entries
    else:
        meta["managedFields"] = result
