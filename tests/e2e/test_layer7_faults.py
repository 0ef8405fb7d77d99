"""Layer 7 under faults: agents and Envoys are killed under requests; layer 4 never notices, nothing denied passes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mycel.cluster.lifecycle import cgroups
from tests.clusters import ROOT, Cluster

pytestmark = pytest.mark.cluster

CONFIG = """\
apiVersion: kind.x-k8s.io/v1alpha4
kind: Cluster
nodes:
- role: control-plane
- role: worker
- role: worker
networking:
  disableDefaultCNI: true
"""
SPACE = "cilium-test"
HERE = Path(__file__).parent
REQUESTS, LOAD = (HERE / "requests.py").read_text(), (HERE / "load.py").read_text()
KILLS = 5
RULES = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "rules", "namespace": SPACE},
    "spec": {
        "endpointSelector": {"matchLabels": {"other": "client"}},
        "egress": [
            {
                "toEndpoints": [{"matchLabels": {"kind": "echo"}}],
                "toPorts": [{"ports": [{"port": "8080"}], "rules": {"http": [{"method": "GET", "path": "/$"}]}}],
            }
        ],
    },
}
RULES["spec"]["egress"][0]["toPorts"][0]["ports"][0]["protocol"] = "TCP"  # type: ignore[index]


@pytest.fixture(scope="module")
def mesh(make_cluster: Callable[[str], Cluster]) -> Cluster:
    """Three nodes, the test pods, HTTP rules for client2 alone."""
    cluster = make_cluster("faults")
    cluster.create(CONFIG)
    cluster.mycel("install", "--wait")
    cluster.kubectl("apply", "-f", str(ROOT / "examples" / "cilium-test.yaml"))
    cluster.kubectl(
        "-n", SPACE, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=90s", timeout_s=100
    )
    cluster.apply(RULES)
    return cluster


def processes(cluster: Cluster, word: bytes) -> list[int]:
    """Process ids of the cluster whose command line has a word that ends so."""
    record = json.loads((cluster.state / "cluster.json").read_text())
    found: list[int] = []
    for pid in cgroups.processes(record["cgroup"]):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(each.endswith(word) for each in words[:4]):
            found.append(pid)
    return found


@pytest.fixture
def run(mesh: Cluster) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`run(deployment, script, arguments…)` starts a script in a pod and returns when it says "ready"."""
    started: list[subprocess.Popen[str]] = []

    def start(deployment: str, script: str, *arguments: str) -> subprocess.Popen[str]:
        command = [
            mesh.kubectl_path,
            "-n",
            SPACE,
            "exec",
            "-i",
            f"deploy/{deployment}",
            "--",
            "python3",
            "-",
            *arguments,
        ]
        process = subprocess.Popen(
            command, env=mesh.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdin and process.stdout
        process.stdin.write(script)
        process.stdin.close()
        process.stdin = None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=90)
    return json.loads(out.splitlines()[-1])


def target(cluster: Cluster, deployment: str) -> str:
    (pod,) = cluster.get("-n", SPACE, "pods", "-l", f"name={deployment}")["items"]
    return f"{pod['status']['podIP']}:8080"


def kill_some(cluster: Cluster, word: bytes, *, apart_s: float) -> int:
    """Kill -9 one process after the other, every one of the cluster in turns; returns how many were."""
    killed = 0
    while killed < KILLS:
        for pid in processes(cluster, word):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed += 1
            time.sleep(apart_s)
            if killed == KILLS:
                break
        time.sleep(0.2)
    return killed


def test_killed_agents_are_not_noticed(mesh: Cluster, run: Callable[..., subprocess.Popen[str]]) -> None:
    """Five agents, under requests on both layers: not one fails, and what is denied stays denied."""
    near, far = target(mesh, "echo-same-node"), target(mesh, "echo-other-node")
    layer4 = run("client", LOAD, "50", "10", "12", near, far)
    layer7 = run("client2", REQUESTS, "12", far)
    assert kill_some(mesh, b"mycel.agent", apart_s=1.5) == KILLS
    four, seven = said(layer4), said(layer7)
    assert four["failed"] == 0, four
    assert set(seven["allowed"]) == {"200"}, seven
    assert set(seven["denied"]) == {"403"}, seven


def test_killed_envoys_close_what_they_judge(mesh: Cluster, run: Callable[..., subprocess.Popen[str]]) -> None:
    """Five Envoys: layer 4 goes on; requests come back; nothing denied ever reaches a server."""
    near, far = target(mesh, "echo-same-node"), target(mesh, "echo-other-node")
    layer4 = run("client", LOAD, "50", "10", "20", near, far)
    layer7 = run("client2", REQUESTS, "20", far)
    assert kill_some(mesh, b"_bin/envoy", apart_s=1.5) == KILLS
    four, seven = said(layer4), said(layer7)
    print(f"layer 7 was away for at most {seven['longest_s']} s: {seven['allowed']}, {seven['denied']}")
    assert four["failed"] == 0, four
    assert seven["last"] == ["200"] * 10, seven
    # The server itself says 404 to /foo: an answer of its own would be a leak.
    assert not set(seven["denied"]) & {"200", "404"}, seven
