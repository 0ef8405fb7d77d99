"""A cluster for faults: rules of layer 7 for one client, a network outside, and whose processes are whose."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.clusters import ROOT, Cluster, eventually, kind_file
from tests.e2e.outside import NETWORK, PORT, RESOLVER

SPACE = "cilium-test"
HTTP_RULES: Any = {"http": [{"method": "GET", "path": "/$"}]}
RULES: Any = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "rules", "namespace": SPACE},
    "spec": {
        "endpointSelector": {"matchLabels": {"other": "client"}},
        "egress": [
            {
                "toEndpoints": [{"matchLabels": {"kind": "echo"}}],
                "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}], "rules": HTTP_RULES}],
            },
            {
                "toCIDR": [f"{RESOLVER}/32"],
                "toPorts": [
                    {
                        "ports": [{"port": "53", "protocol": "UDP"}],
                        "rules": {"dns": [{"matchPattern": "*.outside.test"}]},
                    }
                ],
            },
            {
                "toFQDNs": [{"matchPattern": "*.outside.test"}],
                "toPorts": [{"ports": [{"port": str(PORT), "protocol": "TCP"}]}],
            },
        ],
    },
}


def prepare(cluster: Cluster) -> None:
    """Three nodes, the test pods, rules for client2 alone."""
    cluster.create(kind_file(workers=2))
    cluster.mycel("install", "--wait")
    cluster.kubectl("apply", "-f", str(ROOT / "examples" / "cilium-test.yaml"))
    cluster.wait("-n", SPACE, "--for=condition=Available", "deployment", "--all")
    cluster.apply(RULES)
    eventually(lambda: codes(cluster) == ["200", "403"], what="the rules")


@contextlib.contextmanager
def outside(cluster: Cluster) -> Iterator[None]:
    """A network that only the first node leads to, with a DNS server."""
    first, *others = cluster.nodes
    (node,) = [each for each in cluster.get("nodes")["items"] if each["metadata"]["name"] == first]
    address = next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
    cluster.on_node(first, "ip", "route", "add", "local", NETWORK, "dev", "lo")
    for each in others:
        cluster.on_node(each, "ip", "route", "add", NETWORK, "via", address)
    network = f"--net={cluster.folder}/run/{cluster.name}/ns/{first}.net"
    command = ["nsenter", network, sys.executable, "-m", "tests.e2e.outside"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def processes(cluster: Cluster, word: bytes, *, node: str = "") -> list[int]:
    """Process ids of the cluster whose command line has a word that ends so; `node`: of this one alone."""
    network = cluster.namespace(node).stat().st_ino if node else 0
    found: list[int] = []
    for pid in cluster.processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            here = not node or Path(f"/proc/{pid}/ns/net").stat().st_ino == network
        except (FileNotFoundError, ProcessLookupError):
            continue
        if here and any(each.endswith(word) for each in words[:4]):
            found.append(pid)
    return found


def pod_of(cluster: Cluster, deployment: str) -> dict[str, Any]:
    (pod,) = cluster.get("-n", SPACE, "pods", "-l", f"name={deployment}")["items"]
    return pod


def target(cluster: Cluster, deployment: str) -> str:
    return f"{pod_of(cluster, deployment)['status']['podIP']}:8080"


def codes(cluster: Cluster) -> list[str]:
    """What the client of the rules gets for what is allowed and for what is denied."""
    found: list[str] = []
    for path in ("/", "/foo"):
        curl = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10")
        inside = ("exec", "deploy/client2", "--", *curl, f"http://{target(cluster, 'echo-other-node')}{path}")
        found.append(cluster.kubectl("-n", SPACE, *inside, check=False).stdout)
    return found


def home(cluster: Cluster) -> str:
    """The node whose agent and proxies the rules are about."""
    return pod_of(cluster, "client2")["spec"]["nodeName"]


def dns_proxies(cluster: Cluster, node: str) -> list[int]:
    """The working one of a node: the child of the one that keeps it running."""
    found = processes(cluster, b"mycel.dnsproxy.supervise", node=node)
    return [pid for pid in found if int(Path(f"/proc/{pid}/stat").read_text().split()[3]) in found]
