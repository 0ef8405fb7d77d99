"""Server-side apply: the manager says what it wants, fields it no longer mentions go, conflicts are named."""

from __future__ import annotations

import copy
import json
from typing import Any

from mycel.cluster.apiserver.errors import ApiFault
from mycel.cluster.apiserver.patch.ownership import (
    BEFORE_FIRST_APPLY,
    FieldSet,
    Path,
    Shapes,
    decode_fields,
    encode_fields,
    entry,
    field_set,
    item_key,
    list_keys,
    value_at,
)
from mycel.cluster.apiserver.registry import Kind
from mycel.cluster.apiserver.schema.types import Field, Shape, Struct, struct

Object = dict[str, Any]


def apply_configuration(
    current: Object | None, wanted: Object, kind: Kind, *, manager: str, force: bool, now: str, subresource: str = ""
) -> Object:
    """`current` (None: to be created) after `manager` applied `wanted`; ApiFault 409 naming conflicting managers."""
    wanted = {**wanted, "metadata": dict(wanted.get("metadata") or {})}
    for name in ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"):
        wanted["metadata"].pop(name, None)
    mine = field_set(wanted, kind)
    if current is None:
        wanted["metadata"]["managedFields"] = [entry(manager, "Apply", kind, now, mine, subresource=subresource)]
        return wanted
    entries = _entries(current, kind)
    previous: FieldSet = frozenset()
    conflicts: list[tuple[str, Path]] = []
    kept: list[Object] = []
    for item in entries:
        owned = decode_fields(item.get("fieldsV1") or {})
        if (
            item.get("manager") == manager
            and item.get("operation") == "Apply"
            and item.get("subresource", "") == subresource
        ):
            previous = owned
            continue
        clashing = frozenset(
            path for path in owned & mine if path[-1] != "." and value_at(current, path) != value_at(wanted, path)
        )
        conflicts.extend((_described(item), path) for path in sorted(clashing))
        kept.append(item)
        if clashing:
            kept[-1] = {**item, "fieldsV1": encode_fields(owned - clashing)}
    if conflicts and not force:
        raise _conflict(conflicts)
    others = frozenset().union(*(decode_fields(item.get("fieldsV1") or {}) for item in kept))
    result = copy.deepcopy(current)
    for path in _removal_order(previous - mine - others, others):
        _remove(result, path)
    shapes = Shapes(kind)
    _merge(result, wanted, shapes.struct, shapes.schema, top=True)
    kept.append(entry(manager, "Apply", kind, now, mine, subresource=subresource))
    present = [item for item in kept if item.get("fieldsV1")]
    before = [item for item in entries if item.get("manager") == manager and item.get("operation") == "Apply"]
    if before and decode_fields(before[0].get("fieldsV1") or {}) == mine:
        present[-1] = {**present[-1], "time": before[0].get("time", now)}  # applying the same again changes nothing
    result["metadata"]["managedFields"] = present
    return result


def _entries(current: Object, kind: Kind) -> list[Object]:
    entries = current["metadata"].get("managedFields")
    if entries:
        return list(entries)
    owned = field_set({key: value for key, value in current.items() if key != "status"}, kind)
    return [entry(BEFORE_FIRST_APPLY, "Update", kind, current["metadata"].get("creationTimestamp", ""), owned)]


def _described(item: Object) -> str:
    using = f" using {item.get('apiVersion')}" if item.get("operation") == "Update" else ""
    return f'"{item.get("manager")}"{using}'


def _shown(path: Path) -> str:
    text = ""
    for element in path:
        if element.startswith("f:"):
            text += "." + element[2:]
        elif element.startswith("k:"):
            pairs = json.loads(element[2:])
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in pairs.items()) + "]"
        elif element.startswith("v:"):
            text += f"[={element[2:]}]"
    return text


def _conflict(conflicts: list[tuple[str, Path]]) -> ApiFault:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": _shown(path)}
        for who, path in conflicts
    ]
    said = "; ".join(f"conflict with {who}: {_shown(path)}" for who, path in conflicts[:10])
    count = f"{len(conflicts)} conflict" + ("s" if len(conflicts) > 1 else "")
    return ApiFault(409, "Conflict", f"Apply failed with {count}: {said}", details={"causes": causes})


def _merge(target: Object, wanted: Object, inner: Struct | None, schema: Object | None, *, top: bool) -> None:
    for name, value in wanted.items():
        if top and name == "metadata":
            _merge(target.setdefault("metadata", {}), value, struct("meta.v1.ObjectMeta"), None, top=False)
            continue
        field = inner.fields.get(name) if inner else None
        sub = None if schema is None else _property(schema, name)
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict) and isinstance(target.get(name), dict) and not _is_atomic(field, sub):
            deeper = field.type.struct if field and field.type.shape is Shape.STRUCT else None
            _merge(target[name], value, deeper, sub, top=False)
        elif isinstance(value, list) and isinstance(target.get(name), list):
            keys = list_keys(field, sub)
            target[name] = copy.deepcopy(value) if keys is None else _merge_items(target[name], value, keys, field, sub)
        else:
            target[name] = copy.deepcopy(value)


def _property(schema: Object, name: str) -> Object | None:
    found = (schema.get("properties") or {}).get(name)
    additional = schema.get("additionalProperties")
    return found if found is not None else additional if isinstance(additional, dict) else None


def _is_atomic(field: Field | None, schema: Object | None) -> bool:
    if field is not None:
        return field.atomic
    return (schema or {}).get("x-kubernetes-map-type") == "atomic"


def _merge_items(
    target: list[Any], wanted: list[Any], keys: tuple[str, ...], field: Field | None, schema: Object | None
) -> list[Any]:
    """Items of both, those of `wanted` merged into their namesakes; the target's order, new ones last."""
    element = field.type.items() if field else None
    inner = element.struct if element is not None and element.shape is Shape.STRUCT else None
    items_schema = (schema or {}).get("items")
    result = list(target)
    places = {item_key(item, keys, field): index for index, item in enumerate(result)}
    for item in wanted:
        key = item_key(item, keys, field)
        if key not in places:
            places[key] = len(result)
            result.append(copy.deepcopy(item))
        elif keys and isinstance(item, dict) and isinstance(result[places[key]], dict):
            _merge(result[places[key]], item, inner, items_schema, top=False)
    return result


def _removal_order(gone: FieldSet, others: FieldSet) -> list[Path]:
    """Whole list items first (unless others own parts of them), then fields, then maps that may be empty by now."""
    items = [path for path in gone if path[-1] == "." and path[-2].startswith(("k:", "v:"))]
    free = [path for path in items if not any(other[: len(path) - 1] == path[:-1] for other in others)]
    rest = [path for path in gone if path not in items]
    return [*sorted(free, key=len), *sorted(rest, key=lambda path: (path[-1] == ".", -len(path)))]


def _remove(obj: Any, path: Path) -> None:
    """Remove what lies at `path`, if it is there; a list item goes with its path's closing dot."""
    last = path[-1]
    parents = path[:-1] if last != "." else path[:-2]
    element = last if last != "." else path[-2] if len(path) > 1 else ""
    parent = value_at(obj, parents) if parents else obj
    if element.startswith("f:") and isinstance(parent, dict):
        if last == "." and parent.get(element[2:]):
            return  # a map that still has other owners' keys stays
        parent.pop(element[2:], None)
    elif isinstance(parent, list):
        found = value_at(parent, (element,))
        if found is not None:
            parent.remove(found)
