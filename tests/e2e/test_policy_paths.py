"""Every way a packet can take to a pod that policy closes, and every way a pod can lie: what passes, what is dropped,
and under which name it is told. One cluster with two workers; real connections, and frames as a hostile pod makes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.bpf.frames import ICMP, SCTP, UDP, Frame
from tests.clusters import Cluster, eventually, kind_file

pytestmark = pytest.mark.cluster

IMAGE = "quay.io/cilium/alpine-curl:v1.4.0"
SPACE = "paths"
WIRE = (Path(__file__).parent / "wire.py").read_text()
OWN_MAC, GATEWAY_MAC, OTHER_MAC = (
    ":".join(f"{letter:02x}" for letter in word) for word in (b"MMMMMM", b"GGGGGG", b"XXXXXX")
)
SERVER = """
import socket, threading
def tcp(port):
    server = socket.create_server(("", port))
    while True:
        connection, _ = server.accept()
        connection.sendall(b"hello")
        connection.close()
for port in (8080, 8081):
    threading.Thread(target=tcp, args=(port,)).start()
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 9000))
while True:
    data, peer = server.recvfrom(65535)
    server.sendto(data, peer)
"""


@dataclass
class Paths:
    """The cluster, with its pods' addresses."""

    cluster: Cluster
    addresses: dict[str, str] = field(default_factory=dict[str, str])
    nodes: dict[str, str] = field(default_factory=dict[str, str])  # pod → its node's address

    def probe(self, pod: str, *probes: dict[str, Any], wait_s: int = 2) -> dict[str, Any]:
        """Answers by probe id, of probes run inside a pod. What should be answered is given more than usual to wait."""
        listed = [{"id": str(number), "wait_s": wait_s} | each for number, each in enumerate(probes)]
        script = f"PROBES = {listed!r}\n{WIRE}"
        done = self.cluster.kubectl("-n", SPACE, "exec", "-i", pod, "--", "python3", "-", stdin=script)
        return json.loads(done.stdout)

    def drops(self, **wanted: Any) -> list[dict[str, Any]]:
        """Drop flows of the last minutes with these fields: source, destination (addresses) and port."""
        said = self.cluster.mycel("hubble", "observe", "--verdict", "DROPPED", "--last", "500", "-o", "json").stdout
        flows = [json.loads(line)["flow"] for line in said.splitlines() if line.startswith("{")]
        return [flow for flow in flows if all(_field(flow, name) == value for name, value in wanted.items())]


def _field(flow: dict[str, Any], name: str) -> Any:
    ip, l4 = flow.get("IP", {}), next(iter(flow.get("l4", {}).values()), {})
    return {"source": ip.get("source"), "destination": ip.get("destination"), "port": l4.get("destination_port")}[name]


def verdicts(flows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that tell what policy said."""
    return [flow for flow in flows if flow["event_type"]["type"] == 5]


def _pod(name: str, node: str, *, role: str = "", server: bool = False) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "c", "image": IMAGE, "command": ["sleep", "infinity"]}
    container["securityContext"] = {"capabilities": {"add": ["NET_RAW"]}}
    if server:
        container["command"] = ["python3", "-c", SERVER]
        container["ports"] = [{"containerPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE, "labels": {"name": name, "role": role or name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def _service(name: str, pod: str, port: int) -> dict[str, Any]:
    ports = [{"name": "t", "port": 80, "targetPort": 8080, "nodePort": port}]
    spec = {"type": "NodePort", "selector": {"name": pod}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": SPACE}, "spec": spec}


POLICY = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "closed", "namespace": SPACE},
    "spec": {
        "endpointSelector": {"matchLabels": {"role": "closed"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"role": "friend"}}],
                "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}, {"port": "9000", "protocol": "UDP"}]}],
            }
        ],
        "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"role": "enemy"}}]}],
    },
}
NODE_PORTS = {"near": 30081, "far": 30082}


@pytest.fixture(scope="module")
def paths(make_cluster: Callable[[str], Cluster]) -> Paths:
    """Closed pods on both workers; a friend, an enemy and a stranger on the first."""
    cluster = make_cluster("paths")
    cluster.create(kind_file(workers=2))
    cluster.mycel("install", "--wait")
    here, there = (node for node in cluster.nodes if "worker" in node)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    cluster.apply(
        *(_pod(name, here) for name in ("friend", "enemy", "stranger")),
        _pod("near", here, role="closed", server=True),
        _pod("far", there, role="closed", server=True),
        *(_service(name, name, port) for name, port in NODE_PORTS.items()),
        POLICY,
    )
    cluster.wait("-n", SPACE, "--for=condition=Ready", "pod", "--all")
    made = Paths(cluster)
    for pod in cluster.get("-n", SPACE, "pods")["items"]:
        made.addresses[pod["metadata"]["name"]] = pod["status"]["podIP"]
        made.nodes[pod["metadata"]["name"]] = pod["status"]["hostIP"]
    services = {
        each["metadata"]["name"]: each["spec"]["clusterIP"] for each in cluster.get("-n", SPACE, "services")["items"]
    }
    made.addresses |= {f"{name}-service": address for name, address in services.items()}
    eventually(
        lambda: not any(made.probe("stranger", _tcp(made, name))["0"] for name in ("near", "far")), what="the policy"
    )
    eventually(lambda: all(made.probe("friend", *ways(made).values()).values()), what="the friend's ways")
    return made


def _tcp(paths: Paths, name: str, port: int = 8080) -> dict[str, Any]:
    return {"kind": "tcp", "host": paths.addresses[name], "port": port}


def ways(paths: Paths) -> dict[str, dict[str, Any]]:
    """The ways to the closed pods' open port."""
    return {
        "same node": _tcp(paths, "near"),
        "other node": _tcp(paths, "far"),
        "ClusterIP": _tcp(paths, "near-service", 80),
        "ClusterIP on another node": _tcp(paths, "far-service", 80),
        "NodePort here": {"kind": "tcp", "host": paths.nodes["friend"], "port": NODE_PORTS["near"]},
        "NodePort there": {"kind": "tcp", "host": paths.nodes["far"], "port": NODE_PORTS["far"]},
        "UDP": {"kind": "udp", "host": paths.addresses["far"], "port": 9000},
        "fragments": {"kind": "udp", "host": paths.addresses["far"], "port": 9000, "size": 4000},
    }


@pytest.mark.parametrize(("pod", "reason"), [("friend", ""), ("stranger", "POLICY_DENIED"), ("enemy", "POLICY_DENY")])
def test_by_every_way_policy_is_the_same(paths: Paths, pod: str, reason: str) -> None:
    """And what is dropped is told with its reason and the policy that did it."""
    asked = ways(paths)
    answers = paths.probe(pod, *asked.values(), wait_s=2 if reason else 20)
    assert dict(zip(asked, answers.values(), strict=True)) == dict.fromkeys(asked, not reason)
    if not reason:
        return
    for target, port in (("near", 8080), ("far", 8080), ("far", 9000)):
        ends = {"source": paths.addresses[pod], "destination": paths.addresses[target], "port": port}
        what = f"a policy verdict about {pod} to {target}:{port}"
        eventually(lambda ends=ends: verdicts(paths.drops(**ends)), what=what)
        found = paths.drops(**ends)
        assert {flow["drop_reason_desc"] for flow in found} == {reason}, f"{pod} to {target}:{port}"
        for flow in verdicts(found):
            assert flow["traffic_direction"] == "INGRESS"
            assert [each["name"] for each in flow["ingress_denied_by"]] == ["closed"]
            assert (flow.get("policy_match_type", 0) == 0) == (reason == "POLICY_DENIED")


def test_what_allowed_is_named(paths: Paths) -> None:
    """A verdict that allows tells its rule and what it matched by."""
    assert paths.probe("friend", _tcp(paths, "near"), wait_s=20)["0"] is True
    source = paths.addresses["friend"]
    command = ("hubble", "observe", "--from-ip", source, "--type", "policy-verdict", "--last", "50", "-o", "json")
    found: list[dict[str, Any]] = []

    def told() -> list[dict[str, Any]]:
        flows = (json.loads(line)["flow"] for line in paths.cluster.mycel(*command).stdout.splitlines())
        found[:] = [each for each in flows if each["IP"]["destination"] == paths.addresses["near"]]
        return found

    eventually(told, what="the verdict")
    allowed = found[0]
    assert allowed["verdict"] == "FORWARDED"
    assert [(each["name"], each["namespace"]) for each in allowed["ingress_allowed_by"]] == [("closed", SPACE)]
    assert "mycel:rule=spec.ingress[0]" in allowed["ingress_allowed_by"][0]["labels"]
    assert allowed["policy_match_type"] == 2  # by identity and port


def test_an_api_server_that_is_no_node_is_of_the_world_and_one_of_the_api_servers(paths: Paths) -> None:
    """The embedded cluster's is: pods reach it by its labels, by address and by service, and flows tell them."""
    cluster = paths.cluster
    (server,) = cluster.get("-n", "default", "endpoints", "kubernetes")["subsets"]
    address, port = server["addresses"][0]["ip"], server["ports"][0]["port"]
    service = cluster.get("-n", "default", "service", "kubernetes")["spec"]["clusterIP"]
    dial = "(curl -sk -m 1 -o /dev/null https://$place && echo yes || echo no) &"
    script = f"for place in {address}:{port} {service}:443; do {dial} done; wait"

    def reached() -> list[str]:
        return cluster.kubectl("-n", SPACE, "exec", "stranger", "--", "sh", "-c", script).stdout.split()

    for entry, expected in (
        ({"toEntities": ["remote-node"]}, "no"),
        ({"toEntities": ["kube-apiserver"]}, "yes"),
        ({"toCIDRSet": [{"cidr": "0.0.0.0/0", "except": [f"{address}/32"]}]}, "no"),
        ({"toEntities": ["world"]}, "yes"),
    ):
        metadata = {"name": "api", "namespace": SPACE}
        spec = {"endpointSelector": {"matchLabels": {"role": "stranger"}}, "egress": [entry]}
        cluster.apply({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec})
        eventually(lambda: reached() == [expected] * 2, what=f"{entry}: {expected}")  # noqa: B023 - at once
    ends = ("--from-ip", paths.addresses["stranger"], "--to-ip", address)
    said = cluster.mycel("hubble", "observe", *ends, "--type", "policy-verdict", "--last", "1", "-o", "json").stdout
    end = json.loads(said.splitlines()[-1])["flow"]["destination"]
    assert set(end["labels"]) == {"reserved:world", "reserved:world-ipv4", "reserved:kube-apiserver"}
    agent = cluster.get("-n", "kube-system", "pods", "-l", "k8s-app=cilium")["items"][0]["metadata"]["name"]
    listed = cluster.kubectl("-n", "kube-system", "exec", agent, "--", "cilium", "identity", "list").stdout
    assert f"cidr:{address}/32,reserved:kube-apiserver" in listed
    cluster.kubectl("-n", SPACE, "delete", "cnp", "api")
    eventually(lambda: reached() == ["yes", "yes"], what="everything open again")


def test_the_host_and_a_pod_itself(paths: Paths) -> None:
    """A node enters its own pods; another node's is a stranger; a pod meets itself behind its service."""
    here = next(node for node in paths.cluster.nodes if "worker" in node)
    for pod, reached, wait_s in (("near", "yes", 20), ("far", "no", 2)):
        script = f"timeout {wait_s} nc -z -w {wait_s} {paths.addresses[pod]} 8080 && echo yes || echo no"
        assert paths.cluster.on_node(here, "sh", "-c", script).strip() == reached
    itself = {"kind": "tcp", "host": paths.addresses["near-service"], "port": 80}
    node = {"kind": "ping", "host": paths.nodes["near"]}
    assert paths.probe("near", itself, node, wait_s=20) == {"0": True, "1": True}


def lies(paths: Paths) -> dict[str, tuple[Frame, str]]:
    """What a hostile pod may put on its wire, each to a port of its own, and the name it is dropped under."""
    own, friend = paths.addresses["stranger"], paths.addresses["friend"]
    near, far = paths.addresses["near"], paths.addresses["far"]

    def udp(source: str, target: str, number: int, **fields: Any) -> Frame:
        made = Frame(
            source, target, UDP, (5000, number), payload=b"lie", source_mac=OWN_MAC, destination_mac=GATEWAY_MAC
        )
        return made.but(**fields)

    unheard = Frame(near, own, UDP, (9000, 777))
    return {
        "another pod's address": (udp(friend, near, 6001), "INVALID_SOURCE_IP"),
        "the node's address": (udp(paths.nodes["stranger"], far, 6002), "INVALID_SOURCE_IP"),
        "another MAC": (udp(own, near, 6003, source_mac=OTHER_MAC), "INVALID_SOURCE_MAC"),
        "VXLAN to its node": (udp(own, paths.nodes["stranger"], 8472), "ENCAPSULATION_TRAFFIC_IS_PROHIBITED"),
        "VXLAN to the other node": (
            udp(own, paths.nodes["far"], 8472, ports=(5001, 8472)),
            "ENCAPSULATION_TRAFFIC_IS_PROHIBITED",
        ),
        "IPv6": (udp("fd00::1", "fd00::2", 6004), "UNSUPPORTED_L3_PROTOCOL"),
        "a fragment without a first": (
            udp(own, near, 0, fragment=(1480, False)),
            "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND",
        ),
        "SCTP": (udp(own, near, 6005, protocol=SCTP), "POLICY_DENIED"),
        "an error about nothing": (
            udp(own, near, 0, protocol=ICMP, icmp=(3, 3), quoted=unheard),
            "CT_TRUNCATED_OR_INVALID_HEADER",
        ),
    }


def _is_about(flow: dict[str, Any], frame: Frame) -> bool:
    """Whether a flow tells of a frame. Ports are not looked at in a family that is switched off."""
    ends = (_field(flow, "source"), _field(flow, "destination")) == (frame.source, frame.destination)
    if frame.v6:
        return ends
    layer = {UDP: "UDP", SCTP: "SCTP", ICMP: "ICMPv4"}[frame.protocol]
    return ends and layer in flow["l4"] and (frame.protocol == ICMP or (_field(flow, "port") or 0) == frame.ports[1])


def test_lies_are_dropped_and_named(paths: Paths) -> None:
    told = lies(paths)
    before = {each["uuid"] for each in paths.drops()}
    paths.probe("stranger", *({"kind": "frame", "frame": bytes(frame).hex()} for frame, _ in told.values()))
    found: dict[str, set[str]] = {}

    def seen() -> bool:
        fresh = [each for each in paths.drops() if each["uuid"] not in before]
        for name, (frame, _) in told.items():
            found[name] = {flow["drop_reason_desc"] for flow in fresh if _is_about(flow, frame)}
        return all(found.values())

    try:
        eventually(seen, what="a flow of every lie")
    finally:
        print(found)
    assert found == {name: {reason} for name, (_, reason) in told.items()}
