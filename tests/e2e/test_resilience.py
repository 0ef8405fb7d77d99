"""What works goes on working: agents are killed under load, and a hundred pods come up on one node at once."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import ROOT, Cluster, eventually, kind_file

pytestmark = pytest.mark.cluster

LOAD = (Path(__file__).parent / "load.py").read_text()
CONNECTIONS = 500
KILLS = 20
PODS = 100
PAIRS = 500


@pytest.fixture(scope="module")
def mesh(make_cluster: Callable[[str], Cluster]) -> Cluster:
    """A control plane and two workers with the mesh and the test deployments."""
    cluster = make_cluster("resilience")
    cluster.create(kind_file(workers=2))
    cluster.mycel("install", "--wait")
    cluster.kubectl("apply", "-f", str(ROOT / "examples" / "cilium-test.yaml"))
    cluster.wait("-n", "cilium-test", "--for=condition=Available", "deployment", "--all")
    return cluster


def agents(cluster: Cluster) -> dict[int, str]:
    """Process ids of the agents and the nodes they run on."""
    found: dict[int, str] = {}
    for pid in cluster.processes():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if b"mycel.agent" in words:
                found[pid] = next(e.partition(b"=")[2].decode() for e in environment if e.startswith(b"K8S_NODE_NAME="))
    return found


def ready_agents(cluster: Cluster) -> int:
    return int(cluster.get("-n", "kube-system", "daemonset", "cilium")["status"].get("numberReady", 0))


def targets(cluster: Cluster) -> list[str]:
    """Both echo pods by address, and both by service."""
    pods = cluster.get("-n", "cilium-test", "pods", "-l", "kind=echo")["items"]
    services = cluster.get("-n", "cilium-test", "services")["items"]
    addresses = [pod["status"]["podIP"] for pod in pods] + [service["spec"]["clusterIP"] for service in services]
    return [f"{address}:8080" for address in addresses]


@pytest.fixture
def load(mesh: Cluster) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """`load()` starts the traffic of load.py in client2 and returns once all its connections are open. It goes on
    until its stdin is closed.
    """
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        arguments = [str(CONNECTIONS), "20", *targets(mesh)]
        command = [mesh.kubectl_path, "-n", "cilium-test", "exec", "-i", "deploy/client2", "--", "python3", "-c", LOAD]
        process = subprocess.Popen(
            [*command, *arguments], env=mesh.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)


def test_killed_agents_break_no_connection(mesh: Cluster, load: Callable[[], subprocess.Popen[str]]) -> None:
    """Twenty kill -9 of agents under 500 open connections and new ones: none fails; every agent comes back."""
    everyone = ready_agents(mesh)
    traffic = load()
    killed = 0
    while killed < KILLS:
        for pid, node in agents(mesh).items():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed += 1
            if killed == KILLS:
                break
            # A fresh pod instead of the kubelet's growing back-off, so that twenty fit into a test.
            field = f"spec.nodeName={node}"
            mesh.kubectl(
                "-n", "kube-system", "delete", "pod", "-l", "k8s-app=cilium", "--field-selector", field,
                "--grace-period=0", "--force", "--wait=false",
            )  # fmt: skip
        eventually(lambda: len(agents(mesh)) == everyone, what="agents started again")
    printed, _ = traffic.communicate(timeout=300)
    seen = json.loads(printed.splitlines()[-1])

    assert seen["failures"] == []
    assert seen["held"] == CONNECTIONS
    assert seen["answers"] > CONNECTIONS * 2
    assert seen["new"] > KILLS
    eventually(lambda: ready_agents(mesh) == everyone, what="every agent Ready")


def test_a_restarted_agent_keeps_identities_and_endpoints(mesh: Cluster) -> None:
    """Endpoint numbers, addresses and identities are what they were before the agents were killed."""

    def view() -> list[tuple[Any, ...]]:
        return sorted(
            (e["metadata"]["name"], e["status"]["id"], e["status"]["identity"]["id"], str(e["status"]["networking"]))
            for e in mesh.get("ciliumendpoints", "-A")["items"]
        )

    before = view()
    killed = agents(mesh).keys()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(agents(mesh).keys() - killed) == 3, what="agents started again")
    eventually(lambda: ready_agents(mesh) == 3, what="every agent Ready")

    assert view() == before


def test_a_hundred_pods_on_one_node(mesh: Cluster) -> None:
    """Made in one go they all become Ready, and talk: each to the next in a ring, and 500 random pairs."""
    node = next(name for name in mesh.nodes if name.endswith("worker"))
    mesh.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hundred"}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "echo", "namespace": "hundred"},
            "spec": {
                "replicas": PODS,
                "selector": {"matchLabels": {"app": "echo"}},
                "template": {
                    "metadata": {"labels": {"app": "echo"}},
                    "spec": {
                        "nodeSelector": {"kubernetes.io/hostname": node},
                        "terminationGracePeriodSeconds": 0,
                        "containers": [
                            {
                                "name": "echo",
                                "image": "hashicorp/http-echo:0.2.3",
                                "args": ["-text=$(POD_NAME)", "-listen=:5678"],
                                "env": [
                                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
                                ],
                                "readinessProbe": {"tcpSocket": {"port": 5678}, "periodSeconds": 1},
                            }
                        ],
                    },
                },
            },
        },
    )
    mesh.kubectl("-n", "hundred", "rollout", "status", "deployment/echo", "--timeout=400s", timeout_s=420)
    pods = mesh.get("-n", "hundred", "pods")["items"]
    names = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}
    assert len(set(names.values())) == PODS
    ring = sorted(names)
    chance = random.Random(1)
    pairs = [(name, ring[(i + 1) % PODS]) for i, name in enumerate(ring)]
    pairs += [tuple(chance.sample(ring, 2)) for _ in range(PAIRS)]

    wrong = [pair for pair in pairs if not answers(mesh, node, names, *pair)]

    assert wrong == []
    mesh.kubectl("delete", "namespace", "hundred", "--wait=false")


def answers(mesh: Cluster, node: str, names: dict[str, str], source: str, target: str) -> bool:
    """Whether `target` answers `source`, dialled inside of source's network."""
    network = networks(mesh, node)[names[source]]
    done = subprocess.run(
        ["nsenter", f"--net={network}", "--", "curl", "-sS", "--max-time", "20", f"http://{names[target]}:5678/"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() == target


_networks: dict[str, str] = {}


def networks(mesh: Cluster, node: str) -> dict[str, str]:
    """Pod address → the network namespace of one of its processes. Dialling a pair this way costs one process."""
    if not _networks:
        seen: set[str] = set()
        for pid in mesh.processes():
            try:
                namespace = str(Path(f"/proc/{pid}/ns/net").readlink())
                if namespace in seen:
                    continue
                table = Path(f"/proc/{pid}/net/fib_trie").read_text()
            except OSError:
                continue
            seen.add(namespace)
            lines = table.splitlines()
            for line, following in itertools.pairwise(lines):
                if "/32 host LOCAL" in following and "127.0.0" not in line:
                    _networks[line.split()[-1]] = f"/proc/{pid}/ns/net"
    return _networks


def test_the_mesh_is_healthy_after_all(mesh: Cluster) -> None:
    """After all that the mesh is healthy."""
    eventually(lambda: mesh.mycel("status", check=False).returncode == 0, what="mycel status healthy")
