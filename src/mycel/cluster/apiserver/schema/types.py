"""The type tables, parsed: structs, their fields, and what a field's value may be.

A table (`tables/<group>.<version>.types`) has one struct per unindented line and below it one field per line:

    <protobuf number> <JSON name> <type> <flags> [inline] [key=K] [patch=S] [map=K,K] [set] [atomic]

Types: string int32 int64 bool double bytes Time MicroTime Quantity IntOrString Any FieldsV1, `<A|B>` an enumeration,
`.Name` a struct of the same table, `group.version.Name` one of another, `[]T` a list, `{}T` a map. Flags: `!` always
present in JSON, `*` pointer (zero is not absent), `o` left out when zero, `-` none. An `inline` struct is a message
of its own in protobuf, while its fields lie directly in the parent in JSON.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum
from importlib import resources


class Shape(Enum):
    """How a value looks in JSON."""

    SCALAR = "scalar"
    STRUCT = "struct"
    LIST = "list"
    MAP = "map"


@dataclass(frozen=True, slots=True)
class Type:
    """A field's type. `name` is the scalar's or the struct's; `element` that of a list or map."""

    shape: Shape
    name: str = ""
    element: Type | None = None
    values: tuple[str, ...] = ()

    @property
    def struct(self) -> Struct:
        """The struct this type names."""
        return struct(self.name)

    def items(self) -> Type:
        """The element type of a list or map."""
        assert self.element is not None, "only lists and maps have elements"
        return self.element


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a struct."""

    number: int
    name: str
    type: Type
    required: bool
    pointer: bool
    omit_zero: bool
    inline: bool
    merge_key: str | None
    patch: tuple[str, ...]
    map_keys: tuple[str, ...]
    is_set: bool
    atomic: bool


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct: `fields` as JSON has them (inline ones flattened), `numbered` as protobuf has them."""

    name: str
    fields: dict[str, Field]
    numbered: dict[int, Field]


_SCALARS = frozenset(
    ("string", "int32", "int64", "bool", "double", "bytes", "byte", "Time", "MicroTime", "Quantity")
) | {"IntOrString", "Any", "FieldsV1"}


@functools.cache
def struct(name: str) -> Struct:
    """The struct with a full name such as `core.v1.Pod`; KeyError when no table has it."""
    package, _, short = name.rpartition(".")
    return _table(package)[short]


def struct_names() -> list[str]:
    """Full names of all structs of all tables."""
    folder = resources.files("mycel.cluster.apiserver.schema") / "tables"
    packages = sorted(entry.name.removesuffix(".types") for entry in folder.iterdir())
    return [f"{package}.{short}" for package in packages for short in _lines(package)]


@functools.cache
def _lines(package: str) -> dict[str, list[str]]:
    path = f"tables/{package}.types"
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in (resources.files("mycel.cluster.apiserver.schema") / path).read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith(" "):
            current.append(line)
        else:
            current = found.setdefault(line.strip(), [])
    return found


class _Table(dict[str, Struct]):
    """Structs of one table, parsed when first asked for."""

    def __init__(self, package: str) -> None:
        super().__init__()
        self.package = package

    def __missing__(self, short: str) -> Struct:
        made = _parse_struct(self.package, short, _lines(self.package)[short])
        self[short] = made
        return made


@functools.cache
def _table(package: str) -> _Table:
    return _Table(package)


def _parse_struct(package: str, short: str, lines: list[str]) -> Struct:
    fields: dict[str, Field] = {}
    numbered: dict[int, Field] = {}
    for line in lines:
        field = _parse_field(package, line)
        numbered[field.number] = field
        if field.inline:
            fields.update(field.type.struct.fields)
        else:
            fields[field.name] = field
    return Struct(f"{package}.{short}", fields, numbered)


def _parse_field(package: str, line: str) -> Field:
    number, name, kind, flags, *extra = line.split()
    options = {word: value for word, _, value in (part.partition("=") for part in extra)}
    return Field(
        number=int(number),
        name=name,
        type=_parse_type(package, kind),
        required="!" in flags,
        pointer="*" in flags,
        omit_zero="o" in flags,
        inline="inline" in options,
        merge_key=options.get("key"),
        patch=tuple(options["patch"].split(",")) if "patch" in options else (),
        map_keys=tuple(options["map"].split(",")) if "map" in options else (),
        is_set="set" in options,
        atomic="atomic" in options,
    )


@functools.cache
def _parse_type(package: str, text: str) -> Type:
    if text.startswith("[]"):
        return Type(Shape.LIST, element=_parse_type(package, text[2:]))
    if text.startswith("{}"):
        return Type(Shape.MAP, element=_parse_type(package, text[2:]))
    if text.startswith("<"):
        values = tuple("" if part == '""' else part for part in text[1:-1].split("|"))
        return Type(Shape.SCALAR, name="string", values=values)
    if text in _SCALARS:
        return Type(Shape.SCALAR, name=text)
    return Type(Shape.STRUCT, name=package + text if text.startswith(".") else text)


def join(path: str, name: str) -> str:
    """`spec` and `containers` make `spec.containers`."""
    return f"{path}.{name}" if path else name


__all__ = ["Field", "Shape", "Struct", "Type", "join", "struct", "struct_names"]
