"""The whole agent on a bare node: the real program, a real API server, the plugin as a runtime runs it.

Everything is inside of one scratch network namespace, so nothing of the machine is touched.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mycel.dnsproxy.agent import Agent as DnsAgent
from mycel.k8s.client import ApiClient
from mycel.k8s.resources import (
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_NODES,
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
)
from mycel.plan.dns import NamesAnswer, NamesRequest, Wanted
from tests.bpf.bed import NODE
from tests.bpf.lab import inside, run
from tests.clusters import eventually, settles
from tests.node.bare_node import NAME, World, bare_node

pytestmark = pytest.mark.root


def ping(namespace: str, address: str, *, count: int = 1) -> None:
    """Every echo request is answered."""
    run("ip", "netns", "exec", namespace, "ping", "-c", str(count), "-i", "0.05", "-W", "20", address)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("a node needs root")
    with bare_node(tmp_path_factory.mktemp("agent")) as made:
        yield made


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


def test_identities_for_names(world: World) -> None:
    """The DNS proxy's own client asks; what it is given is in the file a next agent goes on with."""
    agent = DnsAgent(world.run_dir / "cilium.sock")
    wanted = Wanted(("a.test.",), "0.0.0.0/0")
    (number,) = asyncio.run(agent.ask(NamesRequest(wanted=(wanted,)))).identities
    assert number >> 24 == 1
    assert asyncio.run(agent.ask(NamesRequest(wanted=(wanted,), live=("192.0.2.9",)))) == NamesAnswer((number,))
    path = world.run_dir / "dns-proxy" / "rules.json"
    assert path.stat().st_mode & 0o777 == 0o600
    world.kill_agent()
    world.start_agent()
    assert asyncio.run(agent.ask(NamesRequest(wanted=(wanted,)))).identities == (number,)


def test_pods_talk_and_are_published(world: World) -> None:
    """Two pods of one label set but their names; each reaches the other, the node and is reached by it."""
    one, one_address = world.add_pod("one", app="x", **{"pod-template-hash": "1"})
    two, two_address = world.add_pod("two", app="x", **{"pod-template-hash": "2"})
    ping(one, two_address)
    ping(two, one_address)
    ping(one, str(NODE))
    with inside(world.bed.node):
        run("ping", "-c", "1", "-W", "20", one_address)
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
        ["ip", "netns", "exec", one, "ping", "-i", "0.02", "-c", "150", "-W", "20", before["two"][2]],
        stdout=subprocess.PIPE,
    )
    world.kill_agent()
    world.start_agent()
    output, _ = stream.communicate(timeout=120)
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
        links = ("ip", "-o", "link", "show", "type", "veth")
        eventually(lambda: run(*links).count("lxc") == 1, what="its device to go")


def test_a_device_that_vanished_is_forgotten(world: World) -> None:
    """A pod's namespace went away without a DEL while the agent was down."""
    world.add_pod("three")
    world.kill_agent()
    with inside(world.bed.node):
        names = [line.split()[1].split("@")[0] for line in run("ip", "-o", "link").splitlines()]
        for name in sorted(name for name in names if name.startswith("lxc")):
            run("ip", "link", "delete", name)
    world.start_agent()
    eventually(lambda: world.endpoints() == {}, what="no endpoint")
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

    def in_the_kernel() -> None:
        rows = json.loads(world.cilium("bpf", "endpoint", "list"))
        found = [each for each in rows if each["key"]["address"] == address]
        assert [each["realized"] for each in found] == [each["desired"] for each in found]
        assert [each["realized"]["identity"] for each in found] == [world.endpoints()["four"][1]]

    settles(in_the_kernel)
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

    def served() -> bool:
        rows = json.loads(world.cilium("bpf", "lb", "list"))
        return any(row["realized"] and "10.96.7.7" in str(row["key"]) for row in rows)

    eventually(served, what="the service's rows in the kernel")
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
        output, _ = talking.communicate(timeout=300)
        ended, listens = serving.poll(), run("ip", "netns", "exec", server, "ss", "-Hlnt")
    finally:
        for process in (talking, serving):
            process.kill()
            process.communicate()
    found = json.loads(output)
    assert found["failures"] == [], f"{found}; the server has ended: {ended}, it listens: {listens}"
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
