"""Rows of maps: should be and is."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cli.mesh.rows import Sync, parse_rows, text


@pytest.mark.parametrize(
    ("table", "desired", "realized", "expected"),
    [
        ("ipcache", {"identity": 1}, {"identity": 1}, Sync.SAME),
        ("ipcache", {"identity": 1}, None, Sync.MISSING),
        ("ipcache", None, {"identity": 1}, Sync.LEFT_OVER),
        ("ipcache", {"identity": 1}, {"identity": 2}, Sync.DIFFERENT),
        ("ct", None, {"packets": 1}, Sync.KERNEL),
    ],
)
def test_sync(table: str, desired: Any, realized: Any, expected: Sync) -> None:
    rows = parse_rows("n", table, [{"key": {"address": "10.0.0.1"}, "desired": desired, "realized": realized}])
    assert [row.sync for row in rows] == [expected]


@pytest.mark.parametrize("answer", [{}, "text", [1], [{"key": 1}], [{}]])
def test_wrong_answers(answer: Any) -> None:
    with pytest.raises(ValueError, match="the agent on n"):
        parse_rows("n", "ipcache", answer)


def test_cells() -> None:
    assert text(None) == "-"
    assert text({"address": "10.0.0.1"}) == "10.0.0.1"
    assert text({"a": 1, "b": True, "c": ["x", "y"], "d": []}) == "a=1 b=yes c=x,y d=none"
