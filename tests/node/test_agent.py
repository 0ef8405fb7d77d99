"""The whole agent on a bare node: the real program, a real API server, the plugin as a runtime runs it.

Everything is inside of one scratch network namespace, so nothing of the machine is touched.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mycel.k8s.client import ApiClient, Endpoint
from mycel.k8s.errors import NotFound
from mycel.k8s.resources import (
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_NODES,
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    Resource,
)
from mycel.operator import crds
from tests.bpf.bed import NODE, Bed
from tests.bpf.kernel import compiled
from tests.bpf.lab import inside, run
from tests.clusters import ROOT, eventually

pytestmark = pytest.mark.root
T = TypeVar("T")
NAME = "scratch"


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
            timeout=20,
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
            timeout=60,
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


def ping(namespace: str, address: str, *, count: int = 1) -> None:
    """Every echo request is answered."""
    run("ip", "netns", "exec", namespace, "ping", "-c", str(count), "-i", "0.05", "-W", "2", address)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("a node needs root")
    folder = tmp_path_factory.mktemp("agent")
    objects = folder / "objects"  # a copy: a build while the tests run must not change what the agent loads
    objects.mkdir()
    for path in compiled():
        shutil.copy(path, objects)
    made = World(Bed(folder), folder)
    try:
        _prepare(made)
        made.start_agent()
        yield made
    finally:
        for process in made.processes:
            if process.poll() is None:
                process.terminate()
        for process in made.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        made.bed.close()


def _prepare(world: World) -> None:
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
    }.items():
        (config / key).write_text(value)
    eventually(lambda: (state / "pki" / "ca.crt").exists(), what="the API server's certificates")
    text = Pki(state / "pki").kubeconfig("https://127.0.0.1:6443", context="scratch")
    (world.folder / "kubeconfig").write_text(text)

    async def fill(client: ApiClient) -> None:
        deadline = time.monotonic() + 20
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
                    "podCIDR": "10.244.91.0/24",
                    "podCIDRs": ["10.244.91.0/24"],
                    "taints": [{"key": "node.cilium.io/agent-not-ready", "effect": "NoSchedule"}],
                },
            },
        )
        address = {"type": "InternalIP", "address": str(NODE)}
        await client.patch(NODES, NAME, {"status": {"addresses": [address]}}, subresource="status")

    world.api(fill)


def test_the_node_is_announced(world: World) -> None:
    """Taint off, condition set, CiliumNode published, plugin and configuration in place."""

    def announced() -> bool:
        node, published = world.object(NODES, NAME), world.object(CILIUM_NODES, NAME)
        assert node is not None
        conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}
        keys = [taint["key"] for taint in node["spec"].get("taints") or []]
        return (
            published is not None
            and conditions.get("NetworkUnavailable") == "False"
            and "node.cilium.io/agent-not-ready" not in keys
        )

    eventually(announced, what="the node's announcement")
    published = world.object(CILIUM_NODES, NAME)
    assert published is not None
    assert published["spec"]["addresses"] == [
        {"type": "InternalIP", "ip": str(NODE)},
        {"type": "CiliumInternalIP", "ip": "10.244.91.1"},
    ]
    assert published["spec"]["ipam"]["podCIDRs"] == ["10.244.91.0/24"]
    assert (world.run_dir / "cilium.sock").stat().st_mode & 0o777 == 0o600
    assert world.cni("VERSION", "")[1]["supportedVersions"][-1] == "1.1.0"
    assert world.cni("STATUS", "")[0] == 0


def test_pods_talk_and_are_published(world: World) -> None:
    """Two pods of one label set but their names; each reaches the other, the node and is reached by it."""
    one, one_address = world.add_pod("one", app="x", **{"pod-template-hash": "1"})
    two, two_address = world.add_pod("two", app="x", **{"pod-template-hash": "2"})
    ping(one, two_address)
    ping(two, one_address)
    ping(one, str(NODE))
    with inside(world.bed.node):
        run("ping", "-c", "1", "-W", "2", one_address)
    assert world.cni("CHECK", "one", namespace=one)[0] == 0
    number, identity, address, state = world.endpoints()["one"]
    assert (address, state) == (one_address, "ready")

    def published() -> bool:
        return world.object(CILIUM_ENDPOINTS, "one", "default") is not None

    eventually(published, what="the pod's CiliumEndpoint")
    seen = world.object(CILIUM_ENDPOINTS, "one", "default")
    assert seen is not None
    assert seen["status"]["id"] == number
    assert seen["status"]["identity"]["id"] == identity
    assert seen["status"]["networking"] == {"addressing": [{"ipv4": one_address}], "node": str(NODE)}
    assert seen["metadata"]["ownerReferences"][0]["name"] == "one"
    labels = world.object(CILIUM_IDENTITIES, str(identity))
    assert labels is not None
    assert labels["security-labels"]["k8s:name"] == "one"
    assert "k8s:pod-template-hash" not in labels["security-labels"]


def test_nothing_changes_when_the_agent_is_killed(world: World) -> None:
    """kill -9 under traffic: not one echo is lost, and the next agent has the same pods with the same
    numbers.
    """
    one = f"{world.bed.tag}-one"
    before = world.endpoints()
    stream = subprocess.Popen(
        ["ip", "netns", "exec", one, "ping", "-i", "0.02", "-c", "150", "-W", "2", before["two"][2]],
        stdout=subprocess.PIPE,
    )
    world.kill_agent()
    world.start_agent()
    output, _ = stream.communicate(timeout=20)
    assert b"150 received" in output, output.decode()
    assert world.endpoints() == before
    assert "swapped_links=0" in world.log()


def test_a_pod_leaves_while_no_agent_runs(world: World) -> None:
    """DEL succeeds and is done later; a pod that came at that time is refused with the reason."""
    world.kill_agent()
    assert world.cni("DEL", "two")[0] == 0
    code, said = world.cni("ADD", "late", namespace=f"{world.bed.tag}-two")
    assert (code, said["code"]) == (1, 11)
    assert "cannot be reached" in said["msg"]
    world.start_agent()
    eventually(lambda: "two" not in world.endpoints(), what="the delayed DEL")
    eventually(lambda: world.object(CILIUM_ENDPOINTS, "two", "default") is None, what="its CiliumEndpoint to go")
    with inside(world.bed.node):
        assert run("ip", "-o", "link", "show", "type", "veth").count("lxc") == 1


def test_a_device_that_vanished_is_forgotten(world: World) -> None:
    """A pod's namespace went away without a DEL while the agent was down."""
    world.add_pod("three")
    world.kill_agent()
    with inside(world.bed.node):
        names = [line.split()[1].split("@")[0] for line in run("ip", "-o", "link").splitlines()]
        for name in sorted(name for name in names if name.startswith("lxc")):
            run("ip", "link", "delete", name)
    world.start_agent()
    assert world.endpoints() == {}
    assert world.cni("DEL", "three")[0] == 0


def test_changed_labels_change_the_identity(world: World) -> None:
    """The new number is in the kernel and published; the pod keeps talking."""
    four, address = world.add_pod("four", role="a")
    before = world.endpoints()["four"]
    body = {"metadata": {"labels": {"role": "b"}}}
    world.api(lambda client: client.patch(PODS, "four", body, namespace="default"))

    def changed() -> bool:
        seen = world.object(CILIUM_ENDPOINTS, "four", "default")
        now = world.endpoints()["four"]
        return (
            now[1] != before[1]
            and now[3] == "ready"
            and seen is not None
            and seen["status"]["identity"]["id"] == now[1]
        )

    eventually(changed, what="the new identity")
    rows = json.loads(world.cilium("bpf", "endpoint", "list"))
    (row,) = [each for each in rows if each["key"]["address"] == address]
    assert row["realized"] == row["desired"]
    assert row["realized"]["identity"] == world.endpoints()["four"][1]
    ping(four, str(NODE))


def test_labels_of_the_namespace_count(world: World) -> None:
    """A namespace's label is part of every identity in it."""
    before = world.endpoints()["four"][1]
    body = {"metadata": {"labels": {"team": "red"}}}
    world.api(lambda client: client.patch(NAMESPACES, "default", body))
    eventually(lambda: world.endpoints()["four"][1] != before, what="the new identity")


def test_a_deleted_identity_that_is_used_comes_back(world: World) -> None:
    """Somebody deletes the CiliumIdentity of a running pod: it is made again, under its number."""
    number = str(world.endpoints()["four"][1])
    world.api(lambda client: client.delete(CILIUM_IDENTITIES, number))
    eventually(lambda: world.object(CILIUM_IDENTITIES, number) is not None, what="the identity's return")
    assert str(world.endpoints()["four"][1]) == number


def test_a_pod_nobody_knows_is_refused_and_leaves_nothing(world: World) -> None:
    """No object, no identity: ADD fails, and neither device nor address stays behind."""
    namespace = world.bed.namespace("ghost")
    before = world.endpoints()
    code, said = world.cni("ADD", "ghost", namespace=namespace)
    assert code == 1
    assert 'pods "ghost" not found' in said["msg"]
    assert world.endpoints() == before
    assert "eth0" not in run("ip", "-n", namespace, "-o", "link")


def test_flows_are_served(world: World) -> None:
    """The Observer's socket is there, closed to others, and saw the pods."""
    socket = world.run_dir / "hubble.sock"
    eventually(socket.exists, what="the Observer")
    assert socket.stat().st_mode & 0o777 == 0o600
    ping(f"{world.bed.tag}-four", str(NODE))
    metrics = {each["name"] for each in json.loads(world.cilium("metrics", "list"))}
    assert "cilium_forward_count_total" in metrics


def test_twenty_kills_under_five_hundred_connections(world: World) -> None:
    """kill -9 and restart, twenty times, while 500 connections talk and new ones come, straight and by a
    service.
    """
    client, _ = world.add_pod("talker")
    server, address = world.add_pod("server")
    world.api(lambda api: _add_service(api, address))
    eventually(lambda: "10.96.7.7" in world.cilium("bpf", "lb", "list"), what="the service's rows")
    talkers = str(Path(__file__).with_name("talkers.py"))
    serving = subprocess.Popen(
        ["ip", "netns", "exec", server, sys.executable, talkers, "serve", "7777"], stdout=subprocess.PIPE
    )
    # Connections by the service are translated at connect(), for processes of the node's own cgroup.
    talking = subprocess.Popen(
        [
            *("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(world.bed.cgroup)),
            *("ip", "netns", "exec", client),
            *(sys.executable, talkers, "talk", f"{address}:7777,10.96.7.7:80", "500"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert serving.stdout is not None and talking.stdout is not None
        assert serving.stdout.readline() == b"up\n"
        assert talking.stdout.readline() == b"talking\n"
        world.kill_agent()
        for moment in range(19):
            # Every stage of a start is met: imports, adoption, lists, the first plan, readiness.
            world.spawn_agent()
            time.sleep(0.1 + 0.1 * moment)
            world.kill_agent()
        world.start_agent()
        output, _ = talking.communicate(timeout=60)
    finally:
        for process in (talking, serving):
            process.kill()
            process.communicate()
    found = json.loads(output)
    assert found["failures"] == []
    assert found["kept"] == 500
    assert found["opened"] > 20
    assert world.log().count("adopted_programs=False") == 1


async def _add_service(api: ApiClient, address: str) -> None:
    metadata = {"name": "talk", "namespace": "default"}
    ports = [{"name": "t", "protocol": "TCP", "port": 80, "targetPort": 7777}]
    await api.create(SERVICES, {"metadata": metadata, "spec": {"clusterIP": "10.96.7.7", "ports": ports}})
    await api.create(
        ENDPOINT_SLICES,
        {
            "metadata": metadata | {"labels": {"kubernetes.io/service-name": "talk"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}, "nodeName": NAME}],
            "ports": [{"name": "t", "protocol": "TCP", "port": 7777}],
        },
    )


def test_nothing_alarming_was_logged(world: World) -> None:
    """Restarts and refusals are ordinary: no errors, no warnings, no tracebacks of the agent."""
    bad = [
        line
        for line in world.log().splitlines()
        if "level=error" in line or "level=warn" in line or "Traceback" in line
    ]
    assert bad == []
