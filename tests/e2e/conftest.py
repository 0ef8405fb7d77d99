"""Fixtures of the walkthrough's files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.walk import Follower, Walk


@pytest.fixture
def follow(walk: Walk) -> Iterator[Callable[..., Follower]]:
    """`follow(arguments…)` starts `mycel hubble observe -f` on the file's cluster; it ends with the test."""
    begun: list[Follower] = []

    def begin(*arguments: str) -> Follower:
        begun.append(Follower(walk.cluster, *arguments))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()
