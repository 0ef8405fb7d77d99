"""Strategic merge patch: a merge patch that knows which lists are keyed.

Directives: `$patch: replace|merge|delete` in a map or list item, `$deleteFromPrimitiveList/<field>`,
`$setElementOrder/<field>` and `$retainKeys`. Which list has which key comes from the type tables.
"""

from __future__ import annotations

import copy
from typing import Any

from mycel.cluster.apiserver.errors import ApiFault, bad_request
from mycel.cluster.apiserver.schema.types import Field, Shape, Struct

Object = dict[str, Any]
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"
_MAX_DEPTH = 64


def apply_strategic_patch(target: Object, patch: Any, struct: Struct) -> Object:
    """`target` changed by `patch`; ApiFault 400 when the patch does not fit the kind. Arguments stay unchanged."""
    if not isinstance(patch, dict):
        raise bad_request("a strategic merge patch is an object")
    merged = _merge_map(copy.deepcopy(target), copy.deepcopy(patch), struct, path="", depth=0)
    return merged if merged is not None else {}


def _directive(patch: Object, path: str) -> str | None:
    found = patch.pop("$patch", None)
    if found not in (None, "replace", "merge", "delete"):
        raise bad_request(f"{path or '<object>'}: unknown $patch directive {found!r}")
    return found


def _merge_map(target: Object, patch: Object, struct: Struct | None, *, path: str, depth: int) -> Object | None:
    if depth > _MAX_DEPTH:
        raise bad_request(f"{path}: the patch is nested deeper than {_MAX_DEPTH} levels")
    match _directive(patch, path):
        case "replace":
            return _clean(patch)
        case "delete":
            return None
        case _:
            pass
    retain = patch.pop("$retainKeys", None)
    if retain is not None:
        if not isinstance(retain, list):
            raise bad_request(f"{path}: $retainKeys is a list of field names")
        target = {key: value for key, value in target.items() if key in retain}
    orders = {key[len(_ORDER) :]: patch.pop(key) for key in [k for k in patch if k.startswith(_ORDER)]}
    removals = {key[len(_DELETE_FROM) :]: patch.pop(key) for key in [k for k in patch if k.startswith(_DELETE_FROM)]}
    for name, gone in removals.items():
        if not isinstance(gone, list):
            raise bad_request(f"{path}.{name}: $deleteFromPrimitiveList is a list")
        if isinstance(target.get(name), list):
            target[name] = [item for item in target[name] if item not in gone]
    for name, value in patch.items():
        field = struct.fields.get(name) if struct else None
        here = f"{path}.{name}" if path else name
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            inner = field.type.struct if field and field.type.shape is Shape.STRUCT else None
            current = target.get(name)
            if field and field.type.shape is Shape.SCALAR and field.type.name != "Any":
                raise _mismatch(here, value)
            base = current if isinstance(current, dict) else {}
            merged = _merge_map(base, value, inner, path=here, depth=depth + 1)
            if merged is None:
                target.pop(name, None)
            else:
                target[name] = merged
        elif isinstance(value, list) and field is not None and field.type.shape is Shape.LIST:
            target[name] = _merge_list(target.get(name), value, field, orders.pop(name, None), here, depth)
        else:
            target[name] = _clean(value)
    for name, order in orders.items():
        field = struct.fields.get(name) if struct else None
        if field is not None and isinstance(order, list) and isinstance(target.get(name), list):
            target[name] = _ordered(target[name], order, field.merge_key)
    return target


def _merge_list(current: Any, patch: list[Any], field: Field, order: Any, path: str, depth: int) -> list[Any]:
    base: list[Any] = current if isinstance(current, list) else []
    if "merge" not in field.patch:
        return [_clean(item) for item in patch if not (isinstance(item, dict) and item.get("$patch") == "delete")]
    if field.type.items().shape is Shape.SCALAR:
        merged = list(base)
        merged.extend(item for item in patch if item not in merged)
        return _ordered(merged, order, None) if isinstance(order, list) else merged
    key = field.merge_key or "name"
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [_clean(item) for item in patch if not (isinstance(item, dict) and "$patch" in item and len(item) == 1)]
    merged = list(base)
    element = field.type.items().struct
    for position, item in enumerate(patch):
        here = f"{path}[{position}]"
        if not isinstance(item, dict):
            raise _mismatch(here, item)
        if key not in item:
            raise bad_request(f"{here}: the patch does not contain the merge key {key!r}")
        at = next((i for i, old in enumerate(merged) if isinstance(old, dict) and old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            merged = [old for old in merged if not (isinstance(old, dict) and old.get(key) == item[key])]
        elif at is None:
            made = _merge_map({}, item, element, path=here, depth=depth + 1)
            if made is not None:
                merged.append(made)
        else:
            changed = _merge_map(merged[at], item, element, path=here, depth=depth + 1)
            if changed is not None:
                merged[at] = changed
    return _ordered(merged, order, key) if isinstance(order, list) else merged


def _ordered(items: list[Any], order: list[Any], key: str | None) -> list[Any]:
    """Items named in `order` in that order; the server's own ones keep their place before the next named one."""

    def identity(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    wanted = [identity(entry) for entry in order]
    named = [item for item in items if identity(item) in wanted]
    named.sort(key=lambda item: wanted.index(identity(item)))
    result: list[Any] = []
    queue = iter(named)
    for item in items:
        result.append(next(queue) if identity(item) in wanted else item)
    return result


def _clean(value: Any) -> Any:
    """A patch's value taken as it is: without nulls and directives."""
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items() if v is not None and not k.startswith("$")}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _mismatch(path: str, value: Any) -> ApiFault:
    return bad_request(f"{path}: the patch has {type(value).__name__} where the kind has something else")
