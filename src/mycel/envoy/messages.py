"""Envoy's messages, from the descriptors in xds.binpb, in a pool of their own.

Generated modules of these messages collide with those other packages bring; a pool of our own cannot. What users write
comes in as JSON objects (`from_json`, for CiliumEnvoyConfigs too), and leaves as bytes and a version (`to_resource`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

from mycel.envoy.resources import Resource, TypeUrl, resource

_PREFIX = "type.googleapis.com/"
# What protobuf's JSON reader raises of input that is not what it expects (a number for an @type, half a character).
_REFUSALS = (
    json_format.ParseError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    SystemError,
    TypeError,
    ValueError,
)


class InvalidResource(ValueError):
    """A resource that Envoy's own schema does not know like this; the text says which field."""


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """The pool with Envoy's descriptors; filled at the first use."""
    result = descriptor_pool.DescriptorPool()
    described = descriptor_pb2.FileDescriptorSet.FromString((files("mycel.envoy") / "xds.binpb").read_bytes())
    for file in described.file:
        result.Add(file)
    return result


@cache
def message_class(name: str) -> type[Message]:
    """The class of a message by its full name, as `envoy.config.listener.v3.Listener`. Raises InvalidResource."""
    try:
        return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))
    except KeyError:
        raise InvalidResource(f"{name} is no message this Envoy is known to take: check the @type") from None


def from_json(type_url: TypeUrl, fields: Mapping[str, Any]) -> Message:
    """Make a message of its JSON form; `@type` of nested ones is resolved among Envoy's. Raises InvalidResource."""
    message = message_class(type_url.removeprefix(_PREFIX))()
    try:
        return json_format.ParseDict(dict(fields), message, descriptor_pool=pool())
    except _REFUSALS as error:
        raise InvalidResource(f"{type_url.rpartition('.')[2]}: {error}") from error


def to_resource(message: Message) -> Resource:
    """What is sent of a message: equal messages give equal versions."""
    return resource(message.SerializeToString(deterministic=True))
