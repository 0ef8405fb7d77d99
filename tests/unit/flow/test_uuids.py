"""Uuids lead back to flows."""

import uuid

import numpy as np
import pytest

from mycel.flow.uuids import UuidSpace


def test_round_trip() -> None:
    """A sequence number becomes a uuid and back."""
    space = UuidSpace(b"\xff" * 8)
    numbers = np.array([0, 1, 2**40, 2**62 - 1])
    texts = [row.tobytes().decode() for row in space.text(numbers)]
    assert numbers.tolist() == [space.sequence(text) for text in texts]
    assert all(uuid.UUID(text).version == 8 and uuid.UUID(text).variant == uuid.RFC_4122 for text in texts)


def test_strangers_are_no_sequence() -> None:
    """Another store's uuid, or no uuid at all, is nobody here."""
    other = UuidSpace(bytes(8)).text(np.array([5]))[0].tobytes().decode()
    assert UuidSpace(b"12345678").sequence(other) is None
    assert UuidSpace(bytes(8)).sequence("nonsense") is None


def test_seed_has_eight_bytes() -> None:
    """Anything else is a mistake of the caller."""
    with pytest.raises(ValueError, match="8 random bytes"):
        UuidSpace(b"")
