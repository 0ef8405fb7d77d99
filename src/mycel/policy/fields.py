"""Reading manifests with care: every value with its path, every field known, absent and empty kept apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

from mycel.model.address import Address, parse_address, parse_prefix
from mycel.policy.errors import PolicyInvalid
from mycel.policy.labels import SOURCES, Operator, Requirement, Selector, split_key
from mycel.policy.rules import Network

T = TypeVar("T")
_KEY = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


class Field(NamedTuple):
    """A value of a manifest and where it is. `None` stands for absent and for null, as in Kubernetes."""

    value: Any
    path: str

    def fail(self, problem: str) -> PolicyInvalid:
        """The error to raise about this value."""
        return PolicyInvalid(self.path, problem)

    @property
    def absent(self) -> bool:
        """Whether nothing was said."""
        return self.value is None

    def __getitem__(self, name: str) -> Field:  # type: ignore[override]  # a field's part, not a tuple's item
        """A field of a mapping; absent when it is not there. Raises PolicyInvalid."""
        value = self.mapping().get(name)
        return Field(value, f"{self.path}.{name}" if self.path else name)

    def mapping(self) -> dict[str, Any]:
        """The value as a mapping; an absent one is empty. Raises PolicyInvalid."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.fail(f"must be a mapping, not {_kind(self.value)}")
        return cast("dict[str, Any]", self.value)

    def knows(self, *names: str) -> Field:
        """Check that a mapping has no other fields: a misspelt one must not silently widen a rule."""
        for name in self.mapping():
            if name not in names:
                close = [known for known in names if known.lower() == str(name).lower()]
                hint = f"; did you mean {close[0]}?" if close else ""
                raise PolicyInvalid(f"{self.path}.{name}".lstrip("."), f"there is no such field{hint}")
        return self

    def items(self) -> Iterator[Field]:
        """The items of a list; none when it is absent. Raises PolicyInvalid."""
        if self.value is None:
            return
        if not isinstance(self.value, list):
            raise self.fail(f"must be a list, not {_kind(self.value)}")
        for index, item in enumerate(cast("list[Any]", self.value)):
            yield Field(item, f"{self.path}[{index}]")

    def list_of(self, parse: Callable[[Field], T]) -> tuple[T, ...] | None:
        """A list's items, parsed; None when it is absent."""
        return None if self.value is None else tuple(parse(item) for item in self.items())

    def text(self, default: str | None = None) -> str:
        """A string. Raises PolicyInvalid; also when it is absent and there is no default."""
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str):
            raise self.fail(f"must be a string, not {_kind(self.value)}")
        return self.value

    def flag(self) -> bool | None:
        """A boolean, None when absent. Raises PolicyInvalid."""
        if self.value is not None and not isinstance(self.value, bool):
            raise self.fail(f"must be true or false, not {_kind(self.value)}")
        return self.value

    def number(self, *, least: int, most: int) -> int | None:
        """A whole number within bounds, None when absent. Raises PolicyInvalid."""
        if self.value is None:
            return None
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.fail(f"must be a whole number, not {_kind(self.value)}")
        if not least <= self.value <= most:
            raise self.fail(f"must be from {least} to {most}, not {self.value}")
        return self.value

    def choice(self, *allowed: str, default: str | None = None) -> str:
        """One of a closed set of words. Raises PolicyInvalid."""
        value = self.text(default)
        if value not in allowed:
            raise self.fail(f"is {value!r}: it may be {', '.join(allowed)}")
        return value


def _kind(value: Any) -> str:
    if value is None:
        return "absent"
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "true or false", int: "a number"}
    return names.get(type(value), type(value).__name__)


def read_address(field: Field) -> Address:
    """An address. Raises PolicyInvalid."""
    text = field.text()
    try:
        return parse_address(text)
    except ValueError:
        raise field.fail(f"{text!r} is not an address") from None


def network(field: Field) -> Network:
    """`10.0.0.0/8`, or one address. Raises PolicyInvalid."""
    text = field.text()
    try:
        return Network(*parse_prefix(text))
    except ValueError:
        raise field.fail(f"{text!r} is not an address or a prefix such as 10.0.0.0/8") from None


def within(field: Field, outer: Network) -> Network:
    """A network that lies in another one (of its family). Raises PolicyInvalid."""
    inner = network(field)
    if inner.is_ipv4 != outer.is_ipv4 or not outer.contains(inner):
        raise field.fail(f"{inner} does not lie within {outer}")
    return inner


def selector(field: Field, *, sources: bool = True) -> Selector:
    """A LabelSelector. With `sources`, keys may name one (`k8s:app`); else they are a pod's own.

    Raises PolicyInvalid.
    """
    field.knows("matchLabels", "matchExpressions")
    found: list[Requirement] = []
    labels = field["matchLabels"]
    for key in labels.mapping():
        at = Field(labels.mapping()[key], f"{labels.path}.{key}")
        source, name = _key(at, str(key), sources=sources)
        value = _value(at)
        if source == "reserved" and not value:
            found.append(Requirement(source, name, Operator.EXISTS))
        else:
            found.append(Requirement(source, name, Operator.IN, (value,)))
    for each in field["matchExpressions"].items():
        each.knows("key", "operator", "values")
        source, name = _key(each["key"], each["key"].text(), sources=sources)
        operator = Operator(each["operator"].choice(*(one.value for one in Operator)))
        values = each["values"].list_of(lambda item: item.text()) or ()
        takes = operator in (Operator.IN, Operator.NOT_IN)
        if takes and not values:
            raise each["values"].fail(f"{operator.value} needs at least one value")
        if not takes and values:
            raise each["values"].fail(f"{operator.value} takes no values")
        found.append(Requirement(source, name, operator, values))
    return Selector(tuple(found))


def labels_of(field: Field) -> dict[str, str]:
    """Labels of an object. Raises PolicyInvalid."""
    found: dict[str, str] = {}
    for key in field.mapping():
        at = Field(field.mapping()[key], f"{field.path}.{key}")
        found[str(key)] = _value(at)
        _key(at, str(key), sources=False)
    return found


def _value(field: Field) -> str:
    value = field.text("")
    if len(value) > 63 or not _VALUE.fullmatch(value):
        raise field.fail(f"{value!r} cannot be the value of a label")
    return value


def _key(field: Field, text: str, *, sources: bool) -> tuple[str, str]:
    source, name = split_key(text) if sources else ("k8s", text)
    if source not in SOURCES:
        raise field.fail(f"{text!r} names a source of labels there is not: {', '.join(sorted(SOURCES))}")
    if len(name) > 317 or not (_KEY.fullmatch(name) or (source not in ("any", "k8s") and name)):
        raise field.fail(f"{text!r} cannot be the key of a label")
    return source, name
