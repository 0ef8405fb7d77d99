"""Numbers of identities."""

from __future__ import annotations

from itertools import islice

import pytest

from mycel.identity.numbering import FIRST, LAST, NumbersExhausted, candidates, index_by_labels, unused
from mycel.model.workload import Identity, IdentityId

WEB, DB = ("k8s:app=web",), ("k8s:app=db",)


def identity(number: int, labels: tuple[str, ...]) -> Identity:
    return Identity(IdentityId(number), labels)


def test_the_lowest_of_equal_objects_wins() -> None:
    """Two agents that raced end up with the same number."""
    objects = [identity(400, WEB), identity(300, WEB), identity(500, DB)]
    assert index_by_labels(objects) == {WEB: 300, DB: 500}
    assert index_by_labels(reversed(objects)) == {WEB: 300, DB: 500}


def test_agents_try_the_same_numbers() -> None:
    """The order depends on the labels alone, so a race collides instead of making two."""
    assert list(islice(candidates(WEB, {}), 5)) == list(islice(candidates(WEB, {}), 5))
    assert next(candidates(WEB, {})) != next(candidates(DB, {}))


def test_taken_numbers_are_skipped_and_the_range_is_kept() -> None:
    """No number is given twice, none outside of 256..65535."""
    first, second = islice(candidates(WEB, {}), 2)
    assert next(candidates(WEB, {first: None})) == second
    assert all(FIRST <= number <= LAST for number in candidates_all({}))
    assert len(set(candidates_all({}))) == LAST - FIRST + 1


def candidates_all(taken: dict[IdentityId, object]) -> list[int]:
    return list(islice(candidates(WEB, taken), LAST - FIRST + 1))


def test_exhaustion_is_an_error() -> None:
    """A full range is said, not wrapped around."""
    taken = {IdentityId(number): None for number in range(FIRST, LAST + 1)}
    with pytest.raises(NumbersExhausted):
        next(candidates(WEB, taken))


def test_unused() -> None:
    """What no endpoint names, reserved numbers aside."""
    objects = [identity(300, WEB), identity(301, DB), identity(4, ())]
    assert unused(objects, [300]) == {301}
