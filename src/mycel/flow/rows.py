"""Rows: a kernel event plus the numbers of its names, 168 bytes, the unit that is stored, filtered and
encoded.

Rows come from `enrich`, live in the store of `observe`, and are grouped by `group` into kinds: rows that
are equal in everything but time, ports and the like.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mycel import abi

Rows = NDArray[np.void]
"""Array of ROW records."""

Events = NDArray[np.void]
"""Array of EVENT records, as read from the kernel's rings."""

Words = NDArray[np.uint64]
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

_EVENT_LAYOUT: Any = abi.FlowEvent.DTYPE
EVENT: np.dtype[Any] = np.dtype(_EVENT_LAYOUT)
NAMES = (
    "source_record",
    "destination_record",
    "source_service",
    "destination_service",
    "source_names",
    "destination_names",
    "interface",
    "policies",
    "l7",
)
"""Columns with numbers of interned records."""

ROW: np.dtype[Any] = np.dtype(
    [("event", EVENT), ("wall_ns", "<u8"), *((name, "<u4") for name in NAMES), ("pad", "<u4")]
)
assert ROW.itemsize % 8 == 0

PORT_PROTOCOLS = (6, 17, 132)
"""TCP, UDP, SCTP."""

_NOT_OF_A_KIND = (
    "time_ns",
    "original",
    "length",
    "policy_rule",
    "policy_revision",
    "source_port",
    "destination_port",
    "original_port",
    "endpoint_id",
)


def _kind_mask() -> Words:
    mask = np.zeros(1, ROW)
    octets = mask.view(np.uint8)
    octets[:] = 0xFF
    for name in _NOT_OF_A_KIND:
        field, offset = EVENT.fields[name][:2]  # type: ignore[index]
        octets[offset : offset + field.itemsize] = 0
    octets[ROW.fields["wall_ns"][1] : ROW.fields["source_record"][1]] = 0  # type: ignore[index]
    return mask.view(np.uint64)


KIND_MASK = _kind_mask()
"""What of a row, as 8-byte words, belongs to its kind."""


def words(records: NDArray[np.void]) -> Words:
    """Records of a multiple of 8 bytes as rows of words, without a copy."""
    records = np.ascontiguousarray(records)
    return records.view(np.uint64).reshape(len(records), records.dtype.itemsize // 8)


def _digest(keys: Words) -> NDArray[np.uint64]:
    digest = np.zeros(len(keys), np.uint64)
    for column in keys.T:
        digest = (digest ^ column) * np.uint64(0x9E3779B97F4A7C15)
        digest ^= digest >> np.uint64(29)
    return digest


def group(keys: Words) -> tuple[Numbers, Numbers]:
    """Group equal rows of `keys`: the place of one row of each group, and the group of each row.

    Rows are compared by a 64-bit digest, 20 times faster than by content, and every row is then checked
    against its group's: on a collision the slow way decides.
    """
    digest = _digest(keys)
    _, first, group_of = np.unique(digest, return_index=True, return_inverse=True)
    if len(first) and not np.array_equal(keys, keys[first[group_of]]):
        content = np.ascontiguousarray(keys).view(np.dtype((np.void, keys.shape[1] * 8))).ravel()
        _, first, group_of = np.unique(content, return_index=True, return_inverse=True)
    return first, group_of


def kind_keys(rows: Rows) -> Words:
    """What tells kinds apart, one row of words per row."""
    return words(rows) & KIND_MASK


def has_ports(rows: Rows) -> Mask:
    """Which rows are of a protocol with ports."""
    return np.isin(rows["event"]["protocol"], PORT_PROTOCOLS)


def is_blank(rows: Rows) -> Mask:
    """Which rows are none: room that was kept for a record that turned out to be unusable."""
    mask: Mask = rows["event"]["kind"] == 0
    return mask
