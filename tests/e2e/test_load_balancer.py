"""Services of type LoadBalancer without any other load balancer: addresses of a pool, answered for by one node.

Typed with a real kubectl; curl runs on this machine, beside the nodes. Leases are short, so that a node's death is
noticed soon, and long enough that an agent which does not get to run for some seconds keeps its own.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.clusters import Cluster, eventually, kind_file
from tests.e2e.walk import MANIFESTS, pool, rows

pytestmark = pytest.mark.cluster

LEASE_S = 7
TIMES = (f"lease-duration={LEASE_S}s", "renew-deadline=5s", "retry-period=500ms")
CURL = "quay.io/cilium/alpine-curl:v1.4.0"


@pytest.fixture(scope="module")
def mesh(make_cluster: Callable[[str], Cluster]) -> Cluster:
    """Two workers with the mesh, the walkthrough's pool (in this cluster's network) and its two servers."""
    cluster = make_cluster("loadbalancer")
    cluster.create(kind_file(workers=2))
    settings = [word for each in TIMES for word in ("--config", f"l2-announcements-{each}")]
    cluster.mycel("install", "--wait", *settings)
    cluster.kubectl("apply", "-f", "-", stdin=pool(cluster))
    cluster.kubectl("apply", "-f", str(MANIFESTS / "foo-bar.yaml"))
    for number, node in enumerate(cluster.nodes):
        cluster.kubectl(
            "run", f"client{number}", f"--image={CURL}", "--command", "--overrides",
            f'{{"spec":{{"nodeName":"{node}"}}}}', "--", "sleep", "1000000",
        )  # fmt: skip
    cluster.wait("--for=condition=Ready", "pod", "--all")
    cluster.kubectl("expose", "pod", "foo-app", "--name=foo", "--type=LoadBalancer", "--port=80", "--target-port=5678")
    return cluster


def address(cluster: Cluster, service: str = "foo") -> str:
    """The EXTERNAL-IP of a service; empty while it has none."""
    shown = {row[0]: row[3] for row in rows(cluster.kubectl("get", "svc").stdout)}
    return "" if shown[service] == "<pending>" else shown[service]


def curl(place: str) -> str:
    """What a client on this machine gets; empty when nobody answers."""
    command = ["curl", "-sS", "--max-time", "5", f"http://{place}/"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def holder(cluster: Cluster, service: str = "foo") -> str:
    """The node that announces a service."""
    lease = cluster.kubectl("-n", "kube-system", "get", "lease", f"cilium-l2announce-default-{service}",
                            "-o", "jsonpath={.spec.holderIdentity}", check=False)  # fmt: skip
    return lease.stdout


@contextlib.contextmanager
def cut_off(cluster: Cluster, node: str) -> Iterator[None]:
    """The node's link is down: for everybody else it is dead."""
    peer = re.search(r"eth0@if(\d+)", cluster.on_node(node, "ip", "-o", "link", "show", "eth0"))
    assert peer is not None
    device = socket.if_indextoname(int(peer[1]))
    subprocess.run(["ip", "link", "set", device, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "set", device, "up"], check=True)


def test_a_service_has_an_address_that_this_machine_reaches(mesh: Cluster) -> None:
    """Out of the pool, answered for by ARP; the same from pods of every node."""
    eventually(lambda: address(mesh), what="the address")
    place = address(mesh)
    assert place.endswith(".255.200")
    eventually(lambda: curl(place) == "foo", what="an answer")
    for number in range(len(mesh.nodes)):
        ask = ("exec", f"client{number}", "--", "curl", "-sS", "--max-time", "10", f"http://{place}/")
        eventually(lambda ask=ask: mesh.kubectl(*ask, check=False).stdout.strip() == "foo", what="an answer to a pod")
    (shown,) = rows(mesh.kubectl("get", "ippools").stdout)
    assert shown[1:4] == ["false", "False", "50"]
    assert holder(mesh) in mesh.nodes


def test_the_address_moves_when_its_node_dies(mesh: Cluster) -> None:
    """Another node takes it after the lease, and keeps it when the first is back."""
    place, before = address(mesh), holder(mesh)
    with cut_off(mesh, before):
        eventually(lambda: holder(mesh) != before, what="another holder")
        after = holder(mesh)
        server = mesh.get("pod", "foo-app")["spec"]["nodeName"]
        if server != before:
            eventually(lambda: curl(place) == "foo", what="an answer from the other node")
    eventually(lambda: curl(place) == "foo", what="an answer when the node is back")
    time.sleep(LEASE_S)
    assert holder(mesh) == after


def test_an_agents_restart_costs_no_request(mesh: Cluster) -> None:
    """The kernel answers meanwhile, whether or not another node takes the lease before the new agent is there."""
    place, before = address(mesh), holder(mesh)
    (pod,) = [
        each["metadata"]["name"]
        for each in mesh.get("-n", "kube-system", "pods", "-l", "k8s-app=cilium")["items"]
        if each["spec"]["nodeName"] == before
    ]
    mesh.kubectl("-n", "kube-system", "delete", "pod", pod)
    # What clients know of the address is forgotten each time, so each asks anew.
    asked = [(_forget(place), curl(place))[1] for _ in range(30)]
    mesh.rolled_out("-n", "kube-system", "daemonset/cilium")
    asked += [(_forget(place), curl(place))[1] for _ in range(10)]
    assert asked == ["foo"] * 40


def _forget(place: str) -> None:
    subprocess.run(["ip", "neigh", "flush", "to", place], check=True, capture_output=True)


def test_an_address_asked_for_by_name(mesh: Cluster) -> None:
    """The service moves there; nobody answers at the old one."""
    before = address(mesh)
    wanted = before.replace(".255.200", ".255.222")
    mesh.kubectl("annotate", "svc", "foo", f"lbipam.cilium.io/ips={wanted}")
    eventually(lambda: address(mesh) == wanted, what="the address asked for")
    eventually(lambda: curl(wanted) == "foo", what="an answer there")
    eventually(lambda: (_forget(before), curl(before))[1] == "", what="nobody at the old one")
    mesh.kubectl("annotate", "svc", "foo", "lbipam.cilium.io/ips-")
    assert address(mesh) == wanted


def test_local_traffic_is_announced_where_it_is_served(mesh: Cluster) -> None:
    """The holder is the node of the pod, which is the only one that serves."""
    mesh.kubectl("patch", "svc", "foo", "-p", '{"spec":{"externalTrafficPolicy":"Local"}}')
    try:
        node = mesh.get("pod", "foo-app")["spec"]["nodeName"]
        eventually(lambda: holder(mesh) == node, what="the pod's node as the holder")
        place = address(mesh)
        eventually(lambda: (_forget(place), curl(place))[1] == "foo", what="an answer")
    finally:
        mesh.kubectl("patch", "svc", "foo", "-p", '{"spec":{"externalTrafficPolicy":"Cluster"}}')


def test_external_addresses_are_announced_when_asked_for(mesh: Cluster) -> None:
    """spec.externalIPs need a policy that says so."""
    place = address(mesh).replace(".255.", ".254.")
    mesh.kubectl("patch", "svc", "bar-app", "-p", f'{{"spec":{{"externalIPs":["{place}"]}}}}')
    mesh.kubectl(
        "patch", "svc", "bar-app", "--type=json", "-p", '[{"op":"replace","path":"/spec/ports/0/port","value":80}]'
    )
    _forget(place)
    assert curl(place) == ""
    mesh.kubectl(
        "patch", "ciliuml2announcementpolicy", "default", "--type=merge", "-p", '{"spec":{"externalIPs":true}}'
    )
    eventually(lambda: curl(place) == "bar", what="an answer")


def test_a_policy_that_cannot_be_used_is_refused(mesh: Cluster) -> None:
    """And takes nothing from what others announce."""
    policy = {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumL2AnnouncementPolicy",
        "metadata": {"name": "bad"},
        "spec": {"loadBalancerIPs": True, "interfaces": ["("]},
    }
    said = mesh.kubectl("apply", "-f", "-", stdin=json.dumps(policy), check=False).stderr
    assert 'The CiliumL2AnnouncementPolicy "bad" is invalid: spec.interfaces[0]: is not a regular expression' in said
    (condition,) = mesh.get("ciliuml2announcementpolicies", "default")["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("Valid", "True")
    eventually(lambda: curl(address(mesh)) == "foo", what="an answer as before")


def test_the_pool_goes_and_with_it_the_address(mesh: Cluster) -> None:
    """The service says why; nobody answers any more."""
    place = address(mesh)
    mesh.kubectl("delete", "ippool", "default")
    eventually(lambda: not address(mesh), what="no address")

    def told() -> list[tuple[str, str]]:
        return [(each["type"], each["reason"]) for each in mesh.get("svc", "foo")["status"]["conditions"]]

    eventually(lambda: told() == [("cilium.io/IPAMRequestSatisfied", "no_pool")], what="why it has none")
    eventually(lambda: (_forget(place), curl(place))[1] == "", what="nobody answering")
    mesh.kubectl("delete", "svc", "foo", "bar-app")
    eventually(lambda: not holder(mesh) and not holder(mesh, "bar-app"), what="no lease left behind")
