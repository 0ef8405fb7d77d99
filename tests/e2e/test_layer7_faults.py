"""Layer 7 under faults: processes are killed and streams cut under requests, connections and DNS.

Layer 4 never notices, nothing denied passes, and the first connection after a DNS answer is never dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import Cluster, eventually
from tests.e2e.faults import SPACE, codes, dns_proxies, home, outside, prepare, processes, target
from tests.e2e.outside import PORT, RESOLVER

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parent
LOAD4, LOAD7, NAMES = ((HERE / f"{name}.py").read_text() for name in ("load", "layer7_load", "first_connections"))
KILLS = 5
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def mesh(make_cluster: Callable[[str], Cluster]) -> Iterator[Cluster]:
    """Three nodes, the test pods, rules for client2 alone; behind the first node lies the outside."""
    cluster = make_cluster("faults")
    prepare(cluster)
    with outside(cluster):
        yield cluster


@pytest.fixture
def run(mesh: Cluster) -> Iterator[Run]:
    """`run(deployment, script, arguments…)` starts a script in a pod and returns when it says "ready".

    Many go on until their stdin is closed.
    """
    started: list[subprocess.Popen[str]] = []

    def start(deployment: str, script: str, *arguments: str) -> subprocess.Popen[str]:
        inside = ("exec", "-i", f"deploy/{deployment}", "--", "python3", "-c", script, *arguments)
        process = subprocess.Popen(
            [mesh.kubectl_path, "-n", SPACE, *inside],
            env=mesh.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
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


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=300)
    return json.loads(out.splitlines()[-1])


class Loads:
    """Connections of layer 4, requests and DNS, until `ended`."""

    def __init__(self, mesh: Cluster, run: Run) -> None:
        mesh.rolled_out("-n", "kube-system", "daemonset/cilium")
        near, far = target(mesh, "echo-same-node"), target(mesh, "echo-other-node")
        self._four = run("client", LOAD4, "50", "10", near, far)
        self._seven = run("client2", LOAD7, "500", far, RESOLVER, "50")

    def ended(self) -> dict[str, Any]:
        """What layer 7 saw; layer 4 has seen nothing."""
        four, seven = said(self._four), said(self._seven)
        print(f"layer 4: {four}\nlayer 7: {seven}")
        assert four["failed"] == 0, four
        assert seven["last"] == ["200"] * 10, seven
        # The server itself says 404 to /foo: an answer of its own would be a leak.
        assert not seven["denied"].keys() & {"200", "404"}, seven
        return seven


def kill_some(find: Callable[[], list[int]], kills: int, *, apart_s: float) -> None:
    """Kill -9 what there is, one after the other in turns."""
    killed = 0
    while killed < kills:
        for pid in find()[: kills - killed]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
                time.sleep(apart_s)
        time.sleep(0.1)


def only(seven: dict[str, Any], *, names: bool = True) -> None:
    """Not one request or query failed."""
    assert seven["allowed"].keys() == {"200"}, seven
    assert seven["denied"].keys() == {"403"}, seven
    assert not names or seven["names"].keys() == {"NOERROR"}, seven


def test_killed_agents_are_not_noticed(mesh: Cluster, run: Run) -> None:
    """Five agents, of all nodes in turns: nothing fails, and what is denied stays denied."""
    loads = Loads(mesh, run)
    kill_some(lambda: processes(mesh, b"mycel.agent"), KILLS, apart_s=1.5)
    only(loads.ended())


def test_killed_envoys_close_what_they_judge(mesh: Cluster, run: Run) -> None:
    """Five Envoys of the client's node: requests come back, DNS does not notice."""
    loads = Loads(mesh, run)
    node = home(mesh)
    for _ in range(KILLS):
        kill_some(lambda: processes(mesh, b"_bin/envoy", node=node), 1, apart_s=0)
        eventually(lambda: codes(mesh) == ["200", "403"], what="200 and 403 from the next Envoy")
    seven = loads.ended()
    assert seven["allowed"].keys() <= {"200", "503", "cut", "late", "ConnectionResetError"}, seven
    assert seven["names"].keys() == {"NOERROR"}, seven


def test_killed_dns_proxies_keep_what_they_learnt(mesh: Cluster, run: Run) -> None:
    """Five of the client's node: DNS comes back, requests do not notice, learnt addresses are let through."""
    loads = Loads(mesh, run)
    learnt = [f"198.18.1.{number}" for number in range(10)]  # by the load's queries
    node = home(mesh)
    eventually(lambda: dns_proxies(mesh, node), what="a DNS proxy")
    eventually(lambda: dial_all(mesh, learnt) == learnt, what="what the names of the load are")
    for _ in range(KILLS):
        kill_some(lambda: dns_proxies(mesh, node), 1, apart_s=0)
        assert dial_all(mesh, learnt) == learnt
    found = said(run("client2", NAMES, "0", "1", RESOLVER, str(PORT)))
    assert found["addresses"] == 1, "another DNS proxy answers"
    seven = loads.ended()
    only(seven, names=False)
    assert seven["names"].keys() <= {"NOERROR", "late"}, seven
    assert seven["names_last"] == 10, seven


def dial_all(cluster: Cluster, addresses: list[str]) -> list[str]:
    """What the addresses say to the client of the rules."""
    script = (
        "import json, socket, sys\n"
        "def dial(address):\n"
        "    try:\n"
        f"        return socket.create_connection((address, {PORT}), timeout=10).recv(64).decode()\n"
        "    except OSError as exc:\n"
        "        return str(exc)\n"
        "print(json.dumps([dial(address) for address in sys.argv[1:]]))"
    )
    found = cluster.kubectl("-n", SPACE, "exec", "deploy/client2", "--", "python3", "-c", script, *addresses)
    return json.loads(found.stdout)


@pytest.mark.parametrize("cuts", [5, pytest.param(20, marks=pytest.mark.long)])
def test_cut_streams_touch_no_listener(mesh: Cluster, run: Run, cuts: int) -> None:
    """Envoy's connections to the agent are cut every second: nothing fails, no listener is made anew or drained."""
    node = home(mesh)
    eventually(lambda: len(processes(mesh, b"_bin/envoy", node=node)) == 1, what="one Envoy")
    (envoy,) = processes(mesh, b"_bin/envoy", node=node)
    before = listener_statistics(mesh, node)
    loads = Loads(mesh, run)
    for _ in range(cuts):
        eventually(lambda: cut(envoy), what="a connection of Envoy's to its agent")
        time.sleep(1)
    only(loads.ended())
    assert listener_statistics(mesh, node) == before
    assert before["total_listeners_draining"] == 0
    log = statistics(mesh, node, "access_logs.open_telemetry_access_log.")
    assert log["logs_written"] > 0
    assert "logs_dropped" in log  # by which the agent tells what it never got


def cut(envoy: int) -> int:
    """End every connection a process has to the socket of its configuration, from its side; returns how many."""
    ended = 0
    process = os.pidfd_open(envoy)
    try:
        for each in list(Path(f"/proc/{envoy}/fd").iterdir()):
            with contextlib.suppress(OSError):
                if not str(each.readlink()).startswith("socket:"):
                    continue
                with socket.socket(fileno=_take(process, int(each.name))) as taken:
                    if str(taken.getpeername()).endswith("/xds.sock"):
                        taken.shutdown(socket.SHUT_RDWR)
                        ended += 1
    finally:
        os.close(process)
    return ended


def _take(process: int, descriptor: int) -> int:
    """A copy of another process's descriptor (pidfd_getfd(2)). Raises OSError."""
    found = ctypes.CDLL(None, use_errno=True).syscall(438, process, descriptor, 0)
    if found < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return found


def listener_statistics(cluster: Cluster, node: str) -> dict[str, int]:
    """What has happened to an Envoy's listeners."""
    named = statistics(cluster, node, "listener_manager.")
    return {name: value for name, value in named.items() if name.startswith(("listener_", "total_listeners"))}


def statistics(cluster: Cluster, node: str, prefix: str) -> dict[str, int]:
    """An Envoy's numbers, by their names without the prefix."""
    command = ("curl", "-s", "--unix-socket", "/var/run/cilium/envoy/admin.sock", "http://envoy/stats?format=json")
    found = json.loads(cluster.on_node(node, *command))["stats"]
    return {
        each["name"].removeprefix(prefix): each["value"] for each in found if each.get("name", "").startswith(prefix)
    }


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_the_first_connection_after_a_dns_answer_is_let_through(mesh: Cluster, run: Run, count: int) -> None:
    """Every name has an address nobody has seen; agents and the DNS proxy of the node are killed on the way.

    A query that was on its way when the proxy was killed is the client's to repeat: none is lost here, for the kills
    are between two runs.
    """
    node = home(mesh)
    for part in range(4):
        first = count * 10 + part * count // 4  # apart from what other runs have asked for
        found = said(run("client2", NAMES, str(first), str(count // 4), RESOLVER, str(PORT)))
        assert found == {"tries": count // 4, "addresses": count // 4, "failed": [], "again_failed": []}
        if part == 0:
            kill_some(lambda: processes(mesh, b"mycel.agent", node=node), 1, apart_s=0)
        if part == 1:
            eventually(lambda: dns_proxies(mesh, node), what="a DNS proxy")
            kill_some(lambda: dns_proxies(mesh, node), 1, apart_s=0)


def test_an_outside_address_is_the_same_in_every_flow(mesh: Cluster, run: Run) -> None:
    """Questions the DNS proxy saw, and their packets: the resolver has the identity of the policy's prefix in both."""

    def identities() -> dict[str, set[int]]:
        said(run("client2", NAMES, "1", "1", RESOLVER, str(PORT)))
        found: dict[str, set[int]] = {}
        listed = mesh.mycel("hubble", "observe", "--to-ip", RESOLVER, "--last", "50", "-o", "jsonpb").stdout
        for flow in (json.loads(line).get("flow", {}) for line in listed.splitlines()):
            if flow.get("IP", {}).get("destination") == RESOLVER:
                found.setdefault(flow["Type"], set()).add(flow["destination"]["identity"])
        return found

    eventually(lambda: len(identities()) == 2, what="flows of both layers")
    found = identities()
    assert found["L3_L4"] == found["L7"]
    assert min(found["L7"]) >= 1 << 24


def test_an_envoy_that_begins_without_an_agent_serves(mesh: Cluster, run: Run) -> None:
    """No agent anywhere, then the Envoy is killed: allowed passes, denied is 403; agents that come touch nothing."""
    node = home(mesh)
    mesh.kubectl("-n", "kube-system", "patch", "daemonset", "cilium", "--patch", agents_on("nowhere"))
    eventually(lambda: not processes(mesh, b"mycel.agent"), what="the end of all agents")
    try:
        kill_some(lambda: processes(mesh, b"_bin/envoy", node=node), 1, apart_s=0)

        def answers() -> bool:
            return codes(mesh) == ["200", "403"]

        eventually(answers, what="200 and 403 without an agent")
        before = listener_statistics(mesh, node)
    finally:
        mesh.kubectl("-n", "kube-system", "patch", "daemonset", "cilium", "--patch", agents_on("linux"))
    mesh.rolled_out("-n", "kube-system", "daemonset/cilium")
    eventually(lambda: "Envoy asks for its configuration" in agent_log(mesh, node), what="Envoy at the new agent")
    assert codes(mesh) == ["200", "403"]
    assert listener_statistics(mesh, node) == before


def agents_on(system: str) -> str:
    return json.dumps({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/os": system}}}}})


def agent_log(cluster: Cluster, node: str) -> str:
    pods = cluster.get("-n", "kube-system", "pods", "-l", "k8s-app=cilium")["items"]
    name = next(each["metadata"]["name"] for each in pods if each["spec"]["nodeName"] == node)
    return cluster.kubectl("-n", "kube-system", "logs", name, "-c", "cilium-agent").stdout
