"""Creating and deleting clusters: three times in a row, side by side, after crashes; nothing stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clusters import Cluster, eventually

pytestmark = [pytest.mark.root, pytest.mark.cluster]


def nft_tables() -> str:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


def traces(cluster: Cluster) -> dict[str, set[str]]:
    """Everything on the machine that could belong to `cluster`: by its folder, or by its token in a name."""
    import hashlib

    token = hashlib.sha256(str(cluster.state).encode()).hexdigest()[:8]
    folder = str(cluster.folder)
    links = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout)
    processes: set[str] = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "environ").read_bytes()
        except OSError:
            continue
        if f"MYCEL_RUN_DIR={folder}/run".encode() in words and path.name != str(os.getpid()):
            processes.add(path.name)
    return {
        "links": {link["ifname"] for link in links if token in link["ifname"]},
        "mounts": {line for line in Path("/proc/mounts").read_text().splitlines() if folder in line},
        "tables": {line for line in nft_tables().splitlines() if token in line},
        "groups": {str(path) for path in Path("/sys/fs/cgroup").glob(f"**/mycel-{token}") if path.is_dir()},
        "processes": processes,
        "files": {str(path) for name in ("state", "run") for path in (cluster.folder / name).rglob("*")},
    }


def nothing(cluster: Cluster) -> None:
    """Assert that no trace is left."""
    eventually(lambda: not any(traces(cluster).values()), what=f"no trace of {cluster.name}")
    assert not (cluster.folder / "kubeconfig").exists()


def test_three_creates_and_deletes_leave_nothing(make_cluster: Callable[[str], Cluster]) -> None:
    """With a pod running each time; deleting twice is fine."""
    cluster = make_cluster("thrice")
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {
            "hostNetwork": True,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "c", "image": "hashicorp/http-echo:0.2.3", "args": ["-text=x"]}],
            "volumes": [{"name": "m", "emptyDir": {"medium": "Memory"}}],
        },
    }
    for _ in range(3):
        cluster.create()
        assert cluster.kubectl("config", "current-context").stdout.strip() == "mycel-thrice"
        assert all(traces(cluster)[kind] for kind in ("links", "mounts", "tables", "groups", "processes", "files"))

        def accepted() -> bool:
            return cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest), check=False).returncode == 0

        eventually(accepted, what="a pod that is accepted")
        cluster.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
        cluster.delete()
        nothing(cluster)
    assert "There is no cluster" in cluster.mycel("cluster", "delete", "--name", "thrice").stdout


def test_clusters_live_side_by_side_and_survive_their_supervisor(make_cluster: Callable[[str], Cluster]) -> None:
    """Two names, two networks; a dead supervisor hurts nothing and `start` brings it back; stop and start keep
    objects. What a cluster left in the kernel that was never deleted goes, what a living one has stays.
    """
    hook = "type nat hook postrouting priority srcnat; ip saddr 192.0.2.0/24 masquerade;"
    left = f"table ip mycel-00000000 {{ chain postrouting {{ {hook} }}; }}"
    subprocess.run(["nft", "-f", "-"], input=left, text=True, check=True)
    one, two = make_cluster("one"), make_cluster("two")
    creating = subprocess.Popen(
        [str(Path(sys.executable).with_name("mycel")), "cluster", "create", "--name", "two"],
        env=two.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    one.create()
    assert creating.wait(300) == 0
    networks = [json.loads((cluster.state / "cluster.json").read_text())["network"] for cluster in (one, two)]
    assert networks[0] != networks[1]
    assert "mycel-00000000" not in nft_tables()
    assert all(len(traces(cluster)["tables"]) == 1 for cluster in (one, two))
    two.delete()
    nothing(two)
    supervisor = json.loads((one.folder / "run/one/proc/supervisor.json").read_text())["pid"]
    os.kill(supervisor, signal.SIGKILL)
    one.kubectl("create", "configmap", "kept")
    eventually(lambda: "degraded" in one.mycel("cluster", "list").stdout, what="a list that tells")
    before = json.loads((one.folder / "run/one/proc/apiserver.json").read_text())
    one.mycel("cluster", "start", "--name", "one")
    assert "running" in one.mycel("cluster", "list").stdout
    assert json.loads((one.folder / "run/one/proc/apiserver.json").read_text()) == before
    one.mycel("cluster", "stop", "--name", "one")
    assert not any(traces(one)[kind] for kind in ("links", "mounts", "tables", "groups", "processes"))
    one.mycel("cluster", "start", "--name", "one")
    one.kubectl("get", "configmap", "kept")
    one.delete()
    nothing(one)


def test_a_create_that_was_killed_can_be_deleted(make_cluster: Callable[[str], Cluster]) -> None:
    """At any moment of it."""
    for number, delay_s in enumerate((0.25, 0.6, 1.0)):
        cluster = make_cluster(f"cut{number}")
        creating = subprocess.Popen(
            [str(Path(sys.executable).with_name("mycel")), "cluster", "create", "--name", cluster.name],
            env=cluster.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            creating.wait(delay_s)
        except subprocess.TimeoutExpired:
            os.killpg(creating.pid, signal.SIGKILL)
            creating.wait()
        cluster.delete()
        nothing(cluster)


def test_wrong_files_are_refused_before_anything_is_made(make_cluster: Callable[[str], Cluster]) -> None:
    """Exit code 2, the field's path, no trace."""
    cluster = make_cluster("wrong")
    refused = cluster.mycel(
        "cluster", "create", "--config", "-", check=False,
        stdin="apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\nnodes: "
        "[{role: control-plane, kubeadmConfigPatches: []}]\n",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "nodes[0].kubeadmConfigPatches" in refused.stderr
    assert not any(traces(cluster).values())
