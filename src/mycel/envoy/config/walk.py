"""Going through a message of Envoy's with everything inside of it, also what is packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from mycel.envoy.messages import message_class
from mycel.policy.errors import PolicyInvalid

ANY = "google.protobuf.Any"
_PREFIX = "type.googleapis.com/"
Step = Callable[[Any, str], None]
"""(message, path): looks at a message, changes it, or raises PolicyInvalid."""


def walk(message: Message, path: str, *, before: Step, after: Step, allowed: frozenset[str]) -> None:
    """Call `before` on a message before and `after` when its parts are done. Packed messages must be of a type in
    `allowed`, and are packed again when they are done. Raises PolicyInvalid.
    """
    if message.DESCRIPTOR.full_name == ANY:
        _packed(message, path, before=before, after=after, allowed=allowed)
        return
    before(message, path)
    for part, where in parts(message, path):
        walk(part, where, before=before, after=after, allowed=allowed)
    after(message, path)


def parts(message: Message, path: str) -> Iterator[tuple[Message, str]]:
    """The messages that are directly in a message, with their paths."""
    for field, value in cast("Any", message).ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        where = f"{path}.{field.name}"
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_MESSAGE:
                for key in sorted(value):
                    yield value[key], f"{where}[{key}]"
        elif field.is_repeated:
            for index, each in enumerate(value):
                yield each, f"{where}[{index}]"
        else:
            yield value, where


def _packed(message: Message, path: str, *, before: Step, after: Step, allowed: frozenset[str]) -> None:
    packed = cast("Any", message)
    name = str(packed.type_url).removeprefix(_PREFIX)
    if name not in allowed:
        raise PolicyInvalid(path, f"{name or 'no type'} is not allowed here: see docs/envoy-config.md for what is")
    inner = message_class(name).FromString(packed.value)
    walk(inner, path, before=before, after=after, allowed=allowed)
    packed.value = inner.SerializeToString(deterministic=True)
