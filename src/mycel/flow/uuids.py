"""Identifiers of flows: a random half per store, and the flow's sequence number, as an RFC 9562 version 8
uuid.

A uuid therefore leads back to its flow without an index, and none is kept.
"""

import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mycel.flow.rows import Numbers

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_DIGITS_AT = np.array([place for place in range(36) if place not in (8, 13, 18, 23)])
_SEQUENCE_BITS = 62


class UuidSpace:
    """The uuids of one store."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 8:
            raise ValueError(f"a uuid space is made of 8 random bytes, not of {len(seed)}")
        head = int.from_bytes(seed, "big") & ~(0xF << 12) | 8 << 12  # version 8: made our own way
        self._head = head.to_bytes(8, "big")

    def text(self, sequences: Numbers) -> NDArray[np.uint8]:
        """One row of 36 ASCII characters per sequence number."""
        octets = np.empty((len(sequences), 16), np.uint8)
        octets[:, :8] = np.frombuffer(self._head, np.uint8)
        numbers = sequences.astype(np.uint64) | np.uint64(2 << _SEQUENCE_BITS)  # variant 10
        octets[:, 8:] = numbers.astype(">u8").view(np.uint8).reshape(-1, 8)
        characters: NDArray[Any] = np.full((len(sequences), 36), ord("-"), np.uint8)
        nibbles = np.empty((len(sequences), 32), np.uint8)
        nibbles[:, 0::2], nibbles[:, 1::2] = octets >> 4, octets & 15
        characters[:, _DIGITS_AT] = _HEX[nibbles]
        return characters

    def sequence(self, text: str) -> int | None:
        """The sequence number of a uuid of this space; None for any other text."""
        try:
            octets = uuid.UUID(text).bytes
        except ValueError:
            return None
        if octets[:8] != self._head or octets[8] >> 6 != 2:
            return None
        return int.from_bytes(octets[8:], "big") & (1 << _SEQUENCE_BITS) - 1
