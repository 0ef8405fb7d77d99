"""Fixtures that several folders share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.clusters import Cluster, eventually, kind_file
from tests.kubectls import kubectls

# The same examples in every run; MYCEL_HYPOTHESIS=random looks for new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("random", derandomize=False)
settings.load_profile(os.environ.get("MYCEL_HYPOTHESIS", "same"))


@pytest.fixture(scope="session")
def kubectl_path() -> str:
    """The newest kubectl here; tests that need one are skipped without."""
    found = kubectls()
    if not found:
        pytest.skip("no kubectl on this machine: apt-get install kubernetes-client")
    return found[max(found, key=lambda version: [int(part) for part in version.split(".")])]


def making_clusters(tmp_path_factory: pytest.TempPathFactory, kubectl_path: str) -> Iterator[Callable[[str], Cluster]]:
    """What `make_cluster` gives; whatever is left of the clusters is deleted in the end."""
    if os.geteuid() != 0:
        pytest.skip("a cluster needs root")
    made: list[Cluster] = []

    def make(name: str) -> Cluster:
        cluster = Cluster(name, Path(tmp_path_factory.mktemp(name)), kubectl_path)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.delete()


@pytest.fixture(scope="session")
def make_cluster(tmp_path_factory: pytest.TempPathFactory, kubectl_path: str) -> Iterator[Callable[[str], Cluster]]:
    """`make_cluster("name")` gives a cluster to create; it lives as long as the tests."""
    yield from making_clusters(tmp_path_factory, kubectl_path)


@pytest.fixture(scope="session")
def cluster(make_cluster: Callable[[str], Cluster]) -> Cluster:
    """One cluster for many tests: a control plane and a worker, both Ready, with the test network (no mesh)."""
    found = make_cluster(f"t{os.getpid()}")
    found.create(kind_file(workers=1))
    found.install_test_network()

    def ready() -> bool:
        conditions = [entry for node in found.get("nodes")["items"] for entry in node["status"]["conditions"]]
        return [entry["status"] for entry in conditions if entry["type"] == "Ready"] == ["True", "True"]

    eventually(ready, what="both nodes Ready")
    return found
