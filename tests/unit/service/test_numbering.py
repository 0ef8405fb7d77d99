"""Numbers that stay."""

from __future__ import annotations

import pytest

from mycel.service.numbering import Numbering


def test_numbers_stay_and_restart_where_they_were() -> None:
    """A new process that reads the kernel's rows gives the same numbers."""
    before: Numbering[str] = Numbering()
    given = {key: before.number(key) for key in "abc"}
    after = Numbering(given)
    assert {key: after.number(key) for key in "cab"} == given
    assert after.number("d") not in given.values()


def test_released_numbers_come_back_last() -> None:
    """The datapath may still hold a released one."""
    numbering: Numbering[str] = Numbering(most=3)
    assert [numbering.number(key) for key in "abc"] == [1, 2, 3]
    numbering.keep("bc")
    assert numbering.number("d") == 1
    with pytest.raises(OverflowError):
        numbering.number("e")


def test_leftovers_that_clash_are_not_adopted() -> None:
    """Two keys with one number: the second gets another."""
    numbering = Numbering({"a": 1, "b": 1, "c": 0})
    assert sorted(numbering.number(key) for key in "abc") == [1, 2, 3]
