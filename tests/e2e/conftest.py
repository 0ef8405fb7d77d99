"""Fixtures of the walkthrough's files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.clusters import Cluster
from tests.conftest import making_clusters
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


@pytest.fixture(scope="module")
def make_cluster(tmp_path_factory: pytest.TempPathFactory, kubectl_path: str) -> Iterator[Callable[[str], Cluster]]:
    """`make_cluster("name")` gives a cluster to create; it goes with its file, so that few run at a time."""
    yield from making_clusters(tmp_path_factory, kubectl_path)
