"""Pure rules of the lifecycle: networks, kubeconfig, backoff, names."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mycel.cluster.lifecycle import kubeconfig, network, record, supervisor
from mycel.cluster.lifecycle.errors import LifecycleError
from mycel.cluster.lifecycle.paths import ClusterPaths


def test_the_first_free_network_is_chosen() -> None:
    """172.18 when free, else the next that meets nothing."""
    assert network.choose([]) == IPv4Network("172.18.0.0/16")
    taken = [IPv4Network("172.18.0.0/24"), IPv4Network("172.19.4.4/32")]
    assert network.choose(taken) == IPv4Network("172.20.0.0/16")
    with pytest.raises(LifecycleError):
        network.choose([IPv4Network("172.0.0.0/8")])


def test_interface_names_fit_the_kernel() -> None:
    """At most 15 characters, different for different folders."""
    one, other = (
        ClusterPaths("a", Path("/x/clusters/a"), Path("/r/a")),
        ClusterPaths("a", Path("/y/clusters/a"), Path("/r/a")),
    )
    assert len(one.bridge) <= 15
    assert len(one.veth(99)) <= 15
    assert one.bridge != other.bridge


def test_a_context_goes_in_and_out_of_a_kubeconfig_without_touching_others() -> None:
    """Merge then remove leaves what was there, apart from current-context."""
    foreign = {
        "clusters": [{"name": "x"}],
        "users": [{"name": "x"}],
        "contexts": [{"name": "x"}],
        "current-context": "x",
    }
    ours = {
        "clusters": [{"name": "mycel-k", "cluster": {}}], "users": [{"name": "mycel-k"}],
        "contexts": [{"name": "mycel-k"}],
        "current-context": "mycel-k",
    }  # fmt: skip
    merged = kubeconfig.merge(foreign, ours)
    assert merged["current-context"] == "mycel-k"
    assert [entry["name"] for entry in merged["clusters"]] == ["x", "mycel-k"]
    assert kubeconfig.merge(merged, ours) == merged
    left = kubeconfig.without(merged, "mycel-k")
    assert left == foreign | {"current-context": ""}


def test_uninstall_removes_a_file_that_held_only_our_context(tmp_path: Path) -> None:
    """Nothing is left behind."""
    path = tmp_path / "config"
    ours = {"clusters": [{"name": "c"}], "users": [{"name": "c"}], "contexts": [{"name": "c"}], "current-context": "c"}
    kubeconfig.install(path, ours)
    assert path.stat().st_mode & 0o777 == 0o600
    kubeconfig.uninstall(path, "c")
    assert not path.exists()


def test_restarts_back_off() -> None:
    """Doubling from 0.2 s to 10 s."""
    assert [supervisor.backoff_s(n) for n in (1, 2, 3, 20)] == [0.2, 0.4, 0.8, 10.0]


def test_a_damaged_record_is_a_sentence(tmp_path: Path) -> None:
    """Not a traceback."""
    paths = ClusterPaths("a", tmp_path, tmp_path / "run")
    assert record.read(paths) is None
    paths.record.write_text("{")
    with pytest.raises(LifecycleError, match="damaged"):
        record.read(paths)
