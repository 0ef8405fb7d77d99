"""Rows agents print (`cilium bpf <map> list -o json`): should be and is, side by side. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, cast

Fields = Mapping[str, Any]


class Sync(StrEnum):
    """How a row's two sides compare."""

    SAME = "same"
    MISSING = "missing"  # planned, and not in the kernel
    LEFT_OVER = "left over"  # in the kernel, and not planned
    DIFFERENT = "different"
    KERNEL = "kernel"  # the kernel's own: nothing plans it


class Row(NamedTuple):
    """One row of one node's map."""

    node: str
    key: Fields
    desired: Fields | None
    realized: Fields | None
    planned: bool = True

    @property
    def sync(self) -> Sync:
        """How the sides compare."""
        if not self.planned:
            return Sync.KERNEL
        if self.realized is None:
            return Sync.MISSING
        if self.desired is None:
            return Sync.LEFT_OVER
        return Sync.SAME if self.desired == self.realized else Sync.DIFFERENT

    def as_json(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "node": self.node,
            "key": self.key,
            "desired": self.desired,
            "realized": self.realized,
            "state": self.sync.value,
        }


# Maps the datapath fills by itself.
KERNEL_MAPS = frozenset({"ct", "nat", "metrics", "affinity", "fragments", "socket_nat"})


def parse_rows(node: str, table: str, answer: Any) -> list[Row]:
    """What an agent printed → rows. Raises ValueError when it is not a list of rows."""
    if not isinstance(answer, list):
        raise ValueError(f"the agent on {node} printed no list of rows")
    rows: list[Row] = []
    for item in cast("list[Any]", answer):
        if not isinstance(item, dict) or not isinstance(item.get("key"), dict):
            raise ValueError(f"the agent on {node} printed a row without a key")
        rows.append(Row(node, item["key"], item.get("desired"), item.get("realized"), table not in KERNEL_MAPS))
    return rows


def text(fields: Fields | None) -> str:
    """One cell: `name=value` pairs in their order; a lone value without its name."""
    if fields is None:
        return "-"
    if len(fields) == 1:
        return _value(next(iter(fields.values())))
    return " ".join(f"{name}={_value(value)}" for name, value in fields.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_value(item) for item in cast("list[Any]", value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
