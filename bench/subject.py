"""The subject of the benchmarks: a whole cluster with the mesh, as a user gets it, nothing switched off."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Route, run
from mycel.cluster.lifecycle import cgroups, record
from mycel.cluster.lifecycle.paths import ClusterPaths

NAME = "bench"
NAMESPACE = "bench"
CONFIG = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}, {role: worker}, {role: worker}]
networking: {disableDefaultCNI: true}
"""


def pod(name: str, node: str) -> dict[str, object]:
    """A pod pinned to a node, with nothing to do."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "idle",
                    "image": "quay.io/cilium/alpine-curl:v1.4.0",
                    "command": ["sleep", "infinity"],
                }
            ],
        },
    }


def service(name: str, address: str, port: int) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"clusterIP": address, "ports": [{"port": port, "protocol": "TCP"}]},
    }


def endpoint_slice(name: str, addresses: list[str], port: int) -> dict[str, object]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-bench",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "bench"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
        "ports": [{"port": port, "protocol": "TCP"}],
    }


@dataclass(frozen=True, slots=True)
class Cluster:
    """Handles of the running subject."""

    kubeconfig: str
    workers: tuple[str, ...]
    seconds_to_first_curl: float
    seconds: dict[str, float]  # of each step on the way

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run("kubectl", "--kubeconfig", self.kubeconfig, *arguments, stdin=stdin)

    def apply(self, *objects: dict[str, object]) -> None:
        bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("create", "-f", "-", stdin=bundle)

    def address(self, name: str) -> str:
        return self.kubectl("-n", NAMESPACE, "get", "pod", name, "-o", "jsonpath={.status.podIP}")

    def inside(self, name: str) -> tuple[str, ...]:
        """A command prefix into the pod's network, and into its v2 control group, where the socket hooks are.

        Not `kubectl exec`: that would also put the tool five control groups deep in every v1 hierarchy, and context
        switches there cost what peers outside do not pay. What is compared is the network.
        """
        pid = self._process(name)
        group = next(line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
        procs = cgroups.hierarchies().unified / group.removeprefix("0::/") / "cgroup.procs"
        enter = f'echo $$ > {procs}; exec "$@"'
        return ("sh", "-c", enter, "sh", "nsenter", f"--net=/proc/{pid}/ns/net", "--")

    def _process(self, name: str) -> int:
        """A process of the pod, as this machine numbers it."""
        wanted = self.kubectl("-n", NAMESPACE, "exec", name, "--", "readlink", "/proc/self/ns/net").strip()
        found = record.read(ClusterPaths.of(NAME))
        for pid in cgroups.processes(found.cgroup) if found else ():
            with contextlib.suppress(OSError):
                if str(Path(f"/proc/{pid}/ns/net").readlink()) == wanted:
                    return pid
        raise RuntimeError(f"no process of pod {name} on this machine")

    def route(self, title: str, client: str, server: str, address: str, port: int = 7000) -> Route:
        return Route(title, self.inside(client), self.inside(server), address, port)


def mycel(*arguments: str, kubeconfig: str) -> str:
    done = subprocess.run(
        ["mycel", *arguments],
        env={**os.environ, "KUBECONFIG": kubeconfig},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"mycel {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


@contextlib.contextmanager
def cluster(demo: Path) -> Iterator[Cluster]:
    """A new cluster, timed up to the first curl between pods of the manifest `demo`, then deleted."""
    with tempfile.TemporaryDirectory() as folder:
        config, kubeconfig = Path(folder, "kind.yaml"), str(Path(folder, "kubeconfig"))
        config.write_text(CONFIG)
        seconds: dict[str, float] = {}
        start = last = time.monotonic()

        def lap(name: str) -> None:
            nonlocal last
            now = time.monotonic()
            seconds[name] = round(now - last, 2)
            last = now

        try:
            mycel("cluster", "create", "--name", NAME, "--config", str(config), kubeconfig=kubeconfig)
            lap("cluster create")
            mycel("install", "--wait", kubeconfig=kubeconfig)
            lap("install --wait")
            kubectl = ("kubectl", "--kubeconfig", kubeconfig)
            run(*kubectl, "apply", "-f", str(demo))
            run(
                *kubectl,
                "-n",
                "cilium-test",
                "wait",
                "--for=condition=Available",
                "deployment",
                "--all",
                "--timeout=90s",
            )
            lap("pods ready")
            run(
                *kubectl,
                "-n",
                "cilium-test",
                "exec",
                "deploy/client2",
                "--",
                "curl",
                "-sSf",
                "echo-other-node:8080/",
            )
            lap("first curl")
            nodes = run(*kubectl, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
            workers = tuple(sorted(node for node in nodes if "worker" in node))
            total = round(time.monotonic() - start, 1)
            run(*kubectl, "create", "namespace", NAMESPACE)
            yield Cluster(kubeconfig, workers, total, seconds)
        finally:
            mycel("cluster", "delete", "--name", NAME, kubeconfig=kubeconfig)
