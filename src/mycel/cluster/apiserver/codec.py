"""Request bodies to objects, objects to answers: JSON, YAML and Kubernetes' protobuf in, JSON or YAML out."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from mycel.cluster.apiserver.errors import bad_request, unsupported_media
from mycel.cluster.apiserver.protobuf import WireError, decode_message, unwrap
from mycel.cluster.apiserver.registry import Kind
from mycel.cluster.apiserver.schema.types import struct

Object = dict[str, Any]

BODY_LIMIT = 3 * 1024 * 1024  # as etcd's default request limit allows through the stock server
_MAX_NODES = 500_000
_MAX_DEPTH = 200
PROTOBUF = "application/vnd.kubernetes.protobuf"
_decode_json = msgspec.json.Decoder().decode
encode_json = msgspec.json.Encoder().encode


class _Loader(yaml.CSafeLoader):
    """YAML without dates: a timestamp stays the text it is, as Kubernetes reads it."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def media_type(header: str) -> str:
    """`application/json; charset=utf-8` → `application/json`."""
    return header.partition(";")[0].strip().lower()


def decode_json(body: bytes) -> Any:
    """A JSON value; ApiFault 400 when malformed."""
    try:
        return _decode_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"the request body is not JSON: {error}") from error
    except RecursionError as error:
        raise bad_request("the request body is nested too deeply") from error


def decode_yaml(body: bytes) -> Any:
    """A YAML document; ApiFault 400 when malformed, or when aliases blow it up."""
    if body.lstrip()[:1] == b"{":  # kubectl says YAML and sends JSON
        try:
            return _decode_json(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    try:
        _check_depth(body)
        value = yaml.load(body, Loader=_Loader)  # noqa: S506 (a safe loader, see above)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise bad_request(f"the request body is not YAML: {' '.join(str(error).split())[:300]}") from error
    except RecursionError as error:
        raise bad_request("the request body is nested too deeply") from error
    budget = _MAX_NODES
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        budget -= 1
        if budget < 0:
            raise bad_request(f"the YAML document has more than {_MAX_NODES} values")
        if isinstance(item, dict):
            if not all(isinstance(key, str) for key in item):
                raise bad_request("the YAML document has a key that is not a string")
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return value


def _check_depth(body: bytes) -> None:
    """Refuse deep nesting before the C library's recursive composer meets it."""
    depth = 0
    for event in yaml.parse(body, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise bad_request(f"the YAML document is nested deeper than {_MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def decode_object(content_type: str, body: bytes, kind: Kind) -> Object:
    """The object in a request's body; apiVersion and kind are filled in where the encoding leaves them out."""
    media = media_type(content_type)
    match media:
        case "application/json" | "" | "text/plain" | "application/octet-stream":
            value = decode_json(body)
        case "application/yaml":
            value = decode_yaml(body)
        case _ if media == PROTOBUF:
            return _decode_protobuf(body, kind)
        case _:
            raise unsupported_media(content_type, ("application/json", "application/yaml", PROTOBUF))
    if not isinstance(value, dict):
        raise bad_request("the request body is not an object")
    return value


def _decode_protobuf(body: bytes, kind: Kind) -> Object:
    if kind.struct is None:
        raise unsupported_media(PROTOBUF, ("application/json", "application/yaml"))
    try:
        api_version, name, raw = unwrap(body)
        decoded = decode_message(raw, struct(kind.struct))
    except WireError as error:
        raise bad_request(f"the request body is not a {kind.kind} in protobuf: {error}") from error
    return {"apiVersion": api_version or kind.api_version, "kind": name or kind.kind, **decoded}


def decode_options(content_type: str, body: bytes) -> Object:
    """The DeleteOptions of a DELETE request; {} when there is no body."""
    if not body.strip():
        return {}
    if media_type(content_type) == PROTOBUF:
        try:
            _, _, raw = unwrap(body)
            return decode_message(raw, struct("meta.v1.DeleteOptions"))
        except WireError as error:
            raise bad_request(f"the request body is not DeleteOptions in protobuf: {error}") from error
    value = decode_yaml(body) if media_type(content_type) == "application/yaml" else decode_json(body)
    if not isinstance(value, dict):
        raise bad_request("DeleteOptions is an object")
    return value


def to_yaml(value: Any) -> bytes:
    """For clients that accept YAML only."""
    return yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=True, allow_unicode=True).encode()


def quoted(text: str) -> str:
    """A quoted string for a header: printable ASCII, whatever the client sent us."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text[:500])
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
