"""A bare node for tests: the real agent, a real API server, and the plugin as a runtime runs it.

Everything is inside of one scratch network namespace, so nothing of the machine is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mycel.k8s.client import ApiClient, Endpoint
from mycel.k8s.errors import NotFound
from mycel.k8s.resources import CILIUM_NETWORK_POLICIES, NODES, PODS, Resource
from mycel.operator import crds
from tests.bpf.bed import NODE, Bed
from tests.bpf.kernel import compiled
from tests.bpf.lab import inside
from tests.clusters import ROOT, eventually

T = TypeVar("T")
NAME = "scratch"
POD_NETWORK = "10.244.91.0/24"


@dataclass
class World:
    """A node with its API server; the agent comes and goes."""

    bed: Bed
    folder: Path
    agent: subprocess.Popen[bytes] | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    @property
    def run_dir(self) -> Path:
        return self.folder / "run-cilium"

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """A process in the node's network."""
        words = ["nsenter", f"--net=/run/netns/{self.bed.node}", "--", *command]
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(words, env=os.environ | environment, stdout=log, stderr=log, cwd=ROOT)
        self.processes.append(process)
        return process

    def start_agent(self) -> None:
        """Start it and wait until it is ready."""
        self.spawn_agent()
        eventually(self.is_ready, what=f"an agent that is ready; see {self.folder}")

    def spawn_agent(self) -> None:
        """Start it."""
        self.agent = self.start(
            *(sys.executable, "-m", "mycel.agent", "--config-dir", str(self.folder / "config")),
            *("--kubeconfig", str(self.folder / "kubeconfig")),
            K8S_NODE_NAME=NAME,
            K8S_NODE_IP=str(NODE),
            CNI_CONF_DIR=str(self.folder / "net.d"),
            CNI_BIN_DIR=str(self.folder / "bin"),
            MYCEL_BPF_DIR=str(self.folder / "objects"),
        )

    def is_ready(self) -> bool:
        """Ready, and not ended."""
        assert self.agent is not None and self.agent.poll() is None, self.log()
        answer = self.cilium("status", check=False)
        return (self.folder / "net.d" / "05-cilium.conflist").exists() and '"Ok"' in answer

    def kill_agent(self) -> None:
        """kill -9."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGKILL)
        self.agent.wait()

    def log(self) -> str:
        """What every process said."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def cilium(self, *words: str, check: bool = True) -> str:
        """`cilium WORDS -o json`."""
        done = subprocess.run(
            [sys.executable, "-m", "mycel.agent.dbg", *words, "-o", "json"],
            env=os.environ | {"CILIUM_RUN_DIR": str(self.run_dir)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert not check or (done.returncode == 0 and not done.stderr), done.stderr + self.log()
        return done.stdout

    def cni(self, command: str, pod: str, *, namespace: str = "") -> tuple[int, dict[str, Any]]:
        """Run the installed plugin as a runtime does: exit code and what it printed."""
        config = {"cniVersion": "1.0.0", "name": "cilium", "type": "cilium-cni", "run-dir": str(self.run_dir)}
        done = subprocess.run(
            [str(self.folder / "bin" / "cilium-cni")],
            input=json.dumps(config),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": f"container-{pod}",
                "CNI_IFNAME": "eth0",
                "CNI_NETNS": f"/run/netns/{namespace}" if namespace else "",
                "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}",
            },
        )
        assert not done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def api(self, call: Callable[[ApiClient], Awaitable[T]]) -> T:
        """One conversation with the API server, from inside of the node."""

        async def talk() -> T:
            async with ApiClient(Endpoint.from_kubeconfig(self.folder / "kubeconfig")) as client:
                return await call(client)

        with inside(self.bed.node):
            return asyncio.run(talk())

    def object(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """An object, or None."""
        try:
            return self.api(lambda client: client.get(resource, name, namespace=namespace))
        except NotFound:
            return None

    def add_pod(self, name: str, **labels: str) -> tuple[str, str]:
        """A pod of the API and a namespace of its own, wired: (namespace, address)."""
        body = {
            "metadata": {"name": name, "namespace": "default", "labels": {"name": name, **labels}},
            "spec": {"nodeName": NAME, "containers": [{"name": "c", "image": "pause"}]},
        }
        self.api(lambda client: client.create(PODS, body))
        namespace = self.bed.namespace(name)
        code, result = self.cni("ADD", name, namespace=namespace)
        assert code == 0, f"{result}\n{self.log()}"
        return namespace, result["ips"][0]["address"].split("/")[0]

    @contextlib.contextmanager
    def no_policy(self, name: str) -> Iterator[None]:
        """Without a CiliumNetworkPolicy of that name, before and afterwards."""

        async def delete(client: ApiClient) -> None:
            with contextlib.suppress(NotFound):
                await client.delete(CILIUM_NETWORK_POLICIES, name, namespace="default")

        self.api(delete)
        eventually(lambda: f'\\"{name}\\"' not in self.cilium("policy", "get"), what=f"policy {name} is gone")
        try:
            yield
        finally:
            self.api(delete)

    def endpoints(self) -> dict[str, tuple[int, int, str, str]]:
        """Pod → (endpoint number, identity, address, state)."""
        found: dict[str, tuple[int, int, str, str]] = {}
        for each in json.loads(self.cilium("endpoint", "list")):
            status = each["status"]
            if "pod-name" in status["external-identifiers"]:
                pod = status["external-identifiers"]["k8s-pod-name"]
                address = status["networking"]["addressing"][0]["ipv4"]
                found[pod] = (each["id"], status["identity"]["id"], address, status["state"])
        return found


@contextlib.contextmanager
def bare_node(
    folder: Path, *, pod_network: str = POD_NETWORK, settings: Mapping[str, str] | None = None
) -> Iterator[World]:
    """A node with its agent ready; all of it goes in the end."""
    objects = folder / "objects"  # a copy: a build while the tests run must not change what the agent loads
    objects.mkdir()
    for path in compiled():
        shutil.copy(path, objects)
    made = World(Bed(folder), folder)
    try:
        _prepare(made, pod_network, settings or {})
        made.start_agent()
        yield made
    finally:
        for process in made.processes:
            if process.poll() is None:
                process.terminate()
        for process in made.processes:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        made.bed.close()


def _prepare(world: World, pod_network: str, settings: Mapping[str, str]) -> None:
    """An API server with the mesh's kinds and one node; the agent's settings."""
    from mycel.cluster.apiserver.pki import Pki

    state = world.folder / "api"
    world.start(
        *(sys.executable, "-m", "mycel.cluster.apiserver", "--state", str(state), "--no-controllers"),
        *("--listen", "127.0.0.1:6443"),
    )
    config = world.folder / "config"
    config.mkdir()
    for key, value in {
        "state-dir": str(world.run_dir),
        "bpf-root": str(world.bed.bpffs),
        "cgroup-root": str(world.bed.cgroup),
        "hubble-event-buffer-capacity": "1023",
        **settings,
    }.items():
        (config / key).write_text(value)
    pki = Pki(state / "pki")
    eventually(lambda: pki.pair("apiserver").certificate.exists(), what="the API server's certificates")  # its last
    text = pki.kubeconfig("https://127.0.0.1:6443", context="scratch")
    (world.folder / "kubeconfig").write_text(text)

    async def fill(client: ApiClient) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                await crds.ensure(client, crds.load())
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
        await client.create(
            NODES,
            {
                "metadata": {"name": NAME},
                "spec": {
                    "podCIDR": pod_network,
                    "podCIDRs": [pod_network],
                    "taints": [{"key": "node.cilium.io/agent-not-ready", "effect": "NoSchedule"}],
                },
            },
        )
        address = {"type": "InternalIP", "address": str(NODE)}
        await client.patch(NODES, NAME, {"status": {"addresses": [address]}}, subresource="status")

    world.api(fill)
