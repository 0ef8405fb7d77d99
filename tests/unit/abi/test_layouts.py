"""Generated layouts: what is packed is what C would have written."""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mycel import abi
from mycel.abi import layouts

STRUCTS = [each for each in vars(layouts).values() if isinstance(each, type) and hasattr(each, "SIZE")]


def sample(layout: Any) -> Any:
    """A value with every field different."""
    dtype = np.dtype(layout.DTYPE)
    raw = bytearray((7 * at + 3) % 251 for at in range(layout.SIZE))
    covered = bytearray(layout.SIZE)
    for kind, offset, *_ in dtype.fields.values():
        covered[offset : offset + kind.itemsize] = b"\1" * kind.itemsize
    return layout.unpack(bytes(byte if seen else 0 for byte, seen in zip(raw, covered, strict=True)))


@pytest.mark.parametrize("layout", STRUCTS, ids=lambda each: each.__name__)
def test_pack_and_unpack_agree(layout: Any) -> None:
    """A value survives the way to memory and back, alone and in rows."""
    value = sample(layout)
    raw = value.pack()
    assert layout.SIZE == len(raw) == struct.calcsize(layout.FORMAT)
    assert value == layout.unpack(raw)
    assert value == layout.unpack(b"xy" + raw, 2)
    assert [value, value] == layout.unpack_many(raw * 2)
    assert hash(value) == hash(layout.unpack(raw))


@pytest.mark.parametrize("layout", STRUCTS, ids=lambda each: each.__name__)
def test_numpy_sees_the_same(layout: Any) -> None:
    """The numpy dtype reads every scalar field as `unpack` does."""
    value = sample(layout)
    row = np.frombuffer(value.pack(), np.dtype(layout.DTYPE))[0]
    assert row.dtype.itemsize == layout.SIZE
    for name in row.dtype.names:
        field = getattr(value, name)
        if isinstance(field, int):
            assert field == int(row[name]), name
        elif isinstance(field, bytes):
            assert field == row[name].tobytes(), name


def test_wire_order_is_hidden() -> None:
    """A port is a number here and big-endian in memory; host-order fields are little-endian."""
    raw = abi.ServiceKey(bytes(range(16)), 0x1F90, 6).pack()
    assert bytes(range(16)) + b"\x1f\x90\x06" + bytes(5) == raw
    assert abi.SlotKey(1, 0).pack()[:4] == b"\x01\x00\x00\x00"


def test_padding_is_zero() -> None:
    """Keys are compared byte by byte in the kernel, so padding must never hold anything."""
    assert bytes(24) == abi.ServiceKey(bytes(16), 0, 0).pack()


def test_enums_lose_their_prefix() -> None:
    """C's DROP_POLICY_DENIED is DropReason.POLICY_DENIED, and flags combine."""
    assert abi.DropReason.POLICY_DENIED == 133
    assert abi.EndpointFlags(3) == abi.EndpointFlags.READY | abi.EndpointFlags.HOST


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """tools/gen_abi.py as a module."""
    path = Path(__file__).parents[3] / "tools" / "gen_abi.py"
    spec = importlib.util.spec_from_file_location("gen_abi", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gen_abi"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def integer(number: int, name: str, size: int) -> dict[str, Any]:
    return {"id": number, "kind": "INT", "name": name, "size": size, "encoding": "(none)"}


def test_unnamed_padding_is_refused(generator: ModuleType) -> None:
    """A hole would hold whatever the stack held: the generator wants it named."""
    members = [
        {"name": "small", "type_id": 1, "bits_offset": 0},
        {"name": "large", "type_id": 2, "bits_offset": 32},
    ]
    record = {"id": 3, "kind": "STRUCT", "name": "holey", "size": 8, "members": members}
    btf = generator.Btf([integer(1, "__u8", 1), integer(2, "__u32", 4), record])
    with pytest.raises(generator.Unsupported, match="hole before large"):
        generator.struct_class(btf.layout("holey"))


def test_types_without_a_python_form_are_refused(generator: ModuleType) -> None:
    """Pointers and bit fields mean nothing on the other side."""
    pointer = {"id": 1, "kind": "PTR", "name": "(anon)", "type_id": 0}
    record = {
        "id": 2,
        "kind": "STRUCT",
        "name": "pointing",
        "size": 8,
        "members": [{"name": "to", "type_id": 1, "bits_offset": 0}],
    }
    with pytest.raises(generator.Unsupported, match="PTR"):
        generator.Btf([pointer, record]).layout("pointing")
    bits = dict(record, name="bits", members=[{"name": "b", "type_id": 1, "bits_offset": 0, "bitfield_size": 3}])
    with pytest.raises(generator.Unsupported, match="bit fields"):
        generator.Btf([integer(1, "__u32", 4), bits]).layout("bits")


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["DROP_A", "DROP_B_C"], "DROP_"),
        (["TRACE_TO_HOST", "TRACE_TO_PROXY"], "TRACE_TO_"),
        (["ONE_ALONE_HERE"], "ONE_"),
        (["A", "B"], ""),
    ],
)
def test_common_prefix(generator: ModuleType, names: list[str], prefix: str) -> None:
    """What all members begin with goes, whole words only."""
    assert prefix == generator.common_prefix(names)
