"""JSON patch (RFC 6902) with JSON pointers (RFC 6901)."""

from __future__ import annotations

import copy
from typing import Any

from mycel.cluster.apiserver.errors import ApiFault, bad_request

_MAX_OPERATIONS = 10_000


def apply_json_patch(document: Any, operations: Any) -> Any:
    """`document` after all operations, which apply together or not at all; ApiFault 400 or 422 otherwise."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    if len(operations) > _MAX_OPERATIONS:
        raise bad_request(f"a JSON patch may have at most {_MAX_OPERATIONS} operations")
    result = copy.deepcopy(document)
    for index, operation in enumerate(operations):
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise bad_request(f"operation {index} of the JSON patch needs op and path")
        result = _apply_one(result, operation, index)
    return result


def _apply_one(document: Any, operation: dict[str, Any], index: int) -> Any:
    path = _pointer(operation["path"], index)
    match operation.get("op"):
        case "add":
            return _add(document, path, _value(operation, index), index)
        case "remove":
            return _remove(document, path, index)[0]
        case "replace":
            _get(document, path, index)
            if not path:
                return _value(operation, index)
            document, _ = _remove(document, path, index)
            return _add(document, path, _value(operation, index), index)
        case "move":
            source = _from(operation, index)
            if path[: len(source)] == source and path != source:
                raise _failed(index, "a value cannot be moved into itself")
            document, value = _remove(document, source, index)
            return _add(document, path, value, index)
        case "copy":
            return _add(document, path, copy.deepcopy(_get(document, _from(operation, index), index)), index)
        case "test":
            found = _get(document, path, index)
            wanted = _value(operation, index)
            if found != wanted or isinstance(found, bool) is not isinstance(wanted, bool):
                raise _failed(index, f"testing value {operation['path']} failed")
            return document
        case other:
            raise bad_request(f"operation {index} of the JSON patch has an unknown op {other!r}")


def _value(operation: dict[str, Any], index: int) -> Any:
    if "value" not in operation:
        raise bad_request(f"operation {index} of the JSON patch needs a value")
    return copy.deepcopy(operation["value"])


def _from(operation: dict[str, Any], index: int) -> tuple[str, ...]:
    if not isinstance(operation.get("from"), str):
        raise bad_request(f"operation {index} of the JSON patch needs from")
    return _pointer(operation["from"], index)


def _pointer(text: str, index: int) -> tuple[str, ...]:
    if text == "":
        return ()
    if not text.startswith("/"):
        raise bad_request(f"operation {index} of the JSON patch: path {text!r} must start with /")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))


def _failed(index: int, detail: str) -> ApiFault:
    return ApiFault(422, "Invalid", f"the server rejected our request: operation {index} of the JSON patch: {detail}")


def _position(container: list[Any], key: str, index: int, *, end: int) -> int:
    if not key.isdigit() or (len(key) > 1 and key[0] == "0") or len(key) > 9 or int(key) > end:
        raise _failed(index, f"there is no list element {key}")
    return int(key)


def _get(document: Any, path: tuple[str, ...], index: int) -> Any:
    for key in path:
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list):
            document = document[_position(document, key, index, end=len(document) - 1)]
        else:
            raise _failed(index, f"path {'/'.join(('', *path))} does not exist")
    return document


def _add(document: Any, path: tuple[str, ...], value: Any, index: int) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1], index)
    key = path[-1]
    if isinstance(parent, dict):
        parent[key] = value
    elif isinstance(parent, list):
        at = len(parent) if key == "-" else _position(parent, key, index, end=len(parent))
        parent.insert(at, value)
    else:
        raise _failed(index, f"path {'/'.join(('', *path))} does not exist")
    return document


def _remove(document: Any, path: tuple[str, ...], index: int) -> tuple[Any, Any]:
    if not path:
        raise _failed(index, "the whole object cannot be removed")
    value = _get(document, path, index)
    parent = _get(document, path[:-1], index)
    if isinstance(parent, list):
        del parent[int(path[-1])]
    else:
        del parent[path[-1]]
    return document, value
