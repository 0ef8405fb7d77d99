"""Kubernetes' binary request bodies (proto2 in an envelope), decoded to the JSON shape by the type tables.

The envelope is four magic bytes and a runtime.Unknown{typeMeta, raw, contentEncoding, contentType}. Go's encoder
writes zero values of plain fields always; they are dropped where JSON would leave them out.
"""

from __future__ import annotations

import base64
import datetime
import struct as binary
from collections.abc import Iterator
from typing import Any

import msgspec

from mycel.cluster.apiserver.schema.types import Field, Shape, Struct, Type

MAGIC = b"k8s\x00"
_MAX_DEPTH = 64


class WireError(ValueError):
    """The bytes are no such message."""


def unwrap(body: bytes) -> tuple[str, str, bytes]:
    """(apiVersion, kind, message) of an envelope; WireError otherwise."""
    if not body.startswith(MAGIC):
        raise WireError("the body does not start with the Kubernetes protobuf magic")
    api_version, kind, raw = "", "", b""
    for number, value in _fields(body[4:]):
        if number == 1 and isinstance(value, bytes):
            for inner, text in _fields(value):
                if inner == 1 and isinstance(text, bytes):
                    api_version = _text(text)
                elif inner == 2 and isinstance(text, bytes):
                    kind = _text(text)
        elif number == 2 and isinstance(value, bytes):
            raw = value
        elif number == 3 and value:
            raise WireError("an encoded protobuf body is not supported")
    return api_version, kind, raw


def decode_message(data: bytes, struct: Struct, *, depth: int = 0) -> dict[str, Any]:
    """A message as the JSON object it stands for; WireError when it is malformed."""
    if depth > _MAX_DEPTH:
        raise WireError("the message is nested too deeply")
    result: dict[str, Any] = {}
    for number, value in _fields(data):
        field = struct.numbered.get(number)
        if field is None:
            continue
        if field.inline:
            result.update(decode_message(_bytes(value), field.type.struct, depth=depth + 1))
            continue
        kind = field.type
        match kind.shape:
            case Shape.LIST:
                items = result.setdefault(field.name, [])
                element = kind.items()
                if isinstance(value, bytes) and element.shape is Shape.SCALAR and element.name in _VARINT:
                    items.extend(_scalar(number, element) for number in _packed(value))
                else:
                    items.append(_value(value, element, depth))
            case Shape.MAP:
                _map_entry(result.setdefault(field.name, {}), _bytes(value), kind.items(), depth)
            case Shape.SCALAR | Shape.STRUCT:
                decoded = _value(value, kind, depth)
                if not _is_absent(decoded, field):
                    result[field.name] = decoded
    return result


_VARINT = frozenset({"int32", "int64", "bool", "byte"})


def _is_absent(value: Any, field: Field) -> bool:
    if value is None:
        return True
    return field.omit_zero and not field.pointer and value in ("", 0, False, {})


def _map_entry(target: dict[str, Any], data: bytes, element: Type, depth: int) -> None:
    key, found = "", None
    for number, value in _fields(data):
        if number == 1:
            key = _text(_bytes(value))
        elif number == 2:
            if element.shape is Shape.LIST:  # a Go map of slices is a map of messages with one repeated field
                found = [_value(item, element.items(), depth) for _, item in _fields(_bytes(value))]
            else:
                found = _value(value, element, depth)
    if found is None:
        found = {} if element.shape is Shape.STRUCT else [] if element.shape is Shape.LIST else ""
    target[key] = found


def _value(value: int | bytes, kind: Type, depth: int) -> Any:
    if kind.shape is Shape.STRUCT:
        return decode_message(_bytes(value), kind.struct, depth=depth + 1)
    return _scalar(value, kind)


def _scalar(value: int | bytes, kind: Type) -> Any:
    match kind.name:
        case "string":
            return _text(_bytes(value))
        case "bytes":
            return base64.b64encode(_bytes(value)).decode()
        case "bool":
            return bool(value)
        case "int32" | "int64" | "byte":
            if isinstance(value, bytes):
                raise WireError("a number was expected")
            return value - (1 << 64) if value >= 1 << 63 else value
        case "double":
            raw = _bytes(value)
            if len(raw) != 8:
                raise WireError("a double was expected")
            return binary.unpack("<d", raw)[0]
        case "Time" | "MicroTime":
            return _time(_bytes(value), micro=kind.name == "MicroTime")
        case "Quantity":
            return next((_text(_bytes(text)) for number, text in _fields(_bytes(value)) if number == 1), "0")
        case "IntOrString":
            return _int_or_string(_bytes(value))
        case _:
            return _embedded_json(_bytes(value))


def _time(data: bytes, *, micro: bool) -> str | None:
    parts = dict(_fields(data))
    seconds = parts.get(1, 0)
    if not isinstance(seconds, int) or not seconds:
        return None
    seconds = seconds - (1 << 64) if seconds >= 1 << 63 else seconds
    nanos = parts.get(2, 0)
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise WireError("a time is out of range") from error
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if micro:
        text += f".{(nanos if isinstance(nanos, int) else 0) // 1000:06d}"
    return text + "Z"


def _int_or_string(data: bytes) -> int | str:
    parts = dict(_fields(data))
    if parts.get(1, 0) == 1:
        text = parts.get(3, b"")
        return _text(_bytes(text))
    number = parts.get(2, 0)
    if not isinstance(number, int):
        raise WireError("a number was expected")
    return number - (1 << 64) if number >= 1 << 63 else number


def _embedded_json(data: bytes) -> Any:
    raw = next((value for number, value in _fields(data) if number == 1), b"")
    if not raw:
        return None
    try:
        return msgspec.json.decode(_bytes(raw))
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"embedded JSON is malformed: {error}") from error


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WireError("a string is not UTF-8") from error


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise WireError("a length-delimited field was expected")
    return value


def _packed(data: bytes) -> Iterator[int]:
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        yield value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result, shift = 0, 0
    while True:
        if position >= len(data) or shift > 63:
            raise WireError("a varint is cut off")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & ((1 << 64) - 1), position
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field: varints as int, the rest as bytes."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        match wire:
            case 0:
                value, position = _varint(data, position)
                yield number, value
                continue
            case 1:
                size = 8
            case 2:
                size, position = _varint(data, position)
            case 5:
                size = 4
            case _:
                raise WireError(f"unknown wire type {wire}")
        if position + size > end:
            raise WireError("a field is cut off")
        yield number, data[position : position + size]
        position += size
