"""Real packets between pods, nodes and the outside, through the attached programs."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from mycel import abi
from tests.bpf import talk
from tests.bpf.frames import UDP as UDP_PROTOCOL
from tests.bpf.frames import Frame
from tests.bpf.lab import UNDERLAY, Lab, Node, Pod, run
from tests.bpf.rows import addr, text

pytestmark = pytest.mark.root

CLUSTER_IP = "10.96.7.7"
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
OUTSIDE = f"{UNDERLAY}.1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("lab"))
    try:
        node1, node2 = made.nodes
        made.pod(node1, "a", identity=1001)
        made.pod(node1, "b", identity=1002)
        made.pod(node2, "c", identity=1003)
        yield made
    finally:
        made.close()


@pytest.fixture
def pods(lab: Lab) -> tuple[Pod, Pod, Pod]:
    for node in lab.nodes:
        node.datapath.events()
    return lab.nodes[0].pods[0], lab.nodes[0].pods[1], lab.nodes[1].pods[0]


def points(node: Node, protocol: int) -> list[tuple[str, bool, str]]:
    """Trace events as (point, reply, TCP flags)."""
    names = {1: "FIN", 2: "SYN", 4: "RST", 8: "PSH", 16: "ACK"}
    return [
        (
            abi.TracePoint(each.sub_type).name,
            bool(each.is_reply),
            ",".join(name for bit, name in names.items() if each.tcp_flags & bit),
        )
        for each in node.datapath.events()
        if each.kind == abi.EventKind.TRACE and each.protocol == protocol
    ]


def drops(node: Node) -> list[str]:
    return [abi.DropReason(each.sub_type).name for each in node.datapath.events() if each.kind == abi.EventKind.DROP]


def ping(namespace: str, target: str, *options: str) -> bool:
    out = run("ip", "netns", "exec", namespace, "ping", "-c1", "-W1", *options, target, check=False)
    return "1 received" in out


@contextlib.contextmanager
def service(
    lab: Lab, backends: list[tuple[str, int, bool]], *, protocol: int, flags: int = 0, node_port: int = 0
) -> Iterator[None]:
    """A service of these backends (address, port, on node 1) at CLUSTER_IP:80 and maybe a node port, on both nodes."""
    for number, node in enumerate(lab.nodes, 1):
        mine = sorted(backends, key=lambda each: each[2] != (number == 1))
        local = sum(each[2] == (number == 1) for each in backends)
        write = node.datapath.write
        write({"backends": {abi.BackendKey(9000 + i): abi.BackendValue(addr(ip), port, protocol, 0)
                            for i, (ip, port, _) in enumerate(mine)}})  # fmt: skip
        write({"service_slots": {abi.SlotKey(77, i + 1): abi.SlotValue(9000 + i) for i in range(len(mine))}})
        value = abi.ServiceValue(77, len(mine), flags | abi.ServiceFlags.CLUSTER_IP, 60, local, 0, 0)
        write({"services": {abi.ServiceKey(addr(CLUSTER_IP), 80, protocol): value}})
        if node_port:
            value = abi.ServiceValue(77, len(mine), flags | abi.ServiceFlags.NODE_PORT, 60, local, 0, 0)
            write({"services": {abi.ServiceKey(addr("0.0.0.0"), node_port, protocol): value}})
    try:
        yield
    finally:
        for node in lab.nodes:
            for name in ("services", "service_slots", "backends", "affinity", "nat", "ct", "socket_nat"):
                node.datapath.maps[name].remove(list(node.datapath.maps[name].dump()))


@pytest.mark.parametrize("target", ["b", "c", "node", "router", "other node", "other router", "outside"])
def test_a_pod_pings(lab: Lab, pods: tuple[Pod, Pod, Pod], target: str) -> None:
    """Everything a pod may reach answers, and whole datagrams of several fragments do too."""
    node1, node2 = lab.nodes
    ip = {
        "b": pods[1].ip,
        "c": pods[2].ip,
        "node": node1.ip,
        "router": node1.router,
        "other node": node2.ip,
        "other router": node2.router,
        "outside": OUTSIDE,
    }[target]
    assert ping(pods[0].namespace, ip)
    assert ping(pods[0].namespace, ip, "-s", "4000")


@pytest.mark.parametrize("target", [0, 1, 2])
def test_a_node_pings_pods(lab: Lab, pods: tuple[Pod, Pod, Pod], target: int) -> None:
    """The node itself reaches pods of its own and of other nodes."""
    assert ping(lab.nodes[0].namespace, pods[target].ip)


def test_same_node_connection_shows_its_flags(lab: Lab, pods: tuple[Pod, Pod, Pod]) -> None:
    """One connection of two pods on a node: an event per new flag and direction, and nothing else."""
    with talk.listen(pods[1].namespace, pods[1].ip, 8080, TCP) as server:
        seen = talk.tcp(pods[0].namespace, (pods[1].ip, 8080), server)
    assert seen == talk.Talk(pods[0].ip, pods[1].ip)
    shown = points(lab.nodes[0], socket.IPPROTO_TCP)
    assert {each[0] for each in shown} == {"TO_ENDPOINT"}
    forward = [flags for _, reply, flags in shown if not reply]
    assert forward == ["SYN", "ACK", "PSH,ACK", "FIN,ACK"]
    backward = [flags for _, reply, flags in shown if reply]
    assert backward[0] == "SYN,ACK"
    assert backward[-1] == "FIN,ACK"
    assert len(backward) <= 3


def test_other_node_connection_is_seen_on_both(lab: Lab, pods: tuple[Pod, Pod, Pod]) -> None:
    """To another node: to-overlay where it leaves, to-endpoint where it arrives."""
    with talk.listen(pods[2].namespace, pods[2].ip, 8080, TCP) as server:
        seen = talk.tcp(pods[0].namespace, (pods[2].ip, 8080), server, payload=b"x" * 50000)
    assert seen == talk.Talk(pods[0].ip, pods[2].ip)
    assert ("TO_OVERLAY", False, "SYN") in points(lab.nodes[0], socket.IPPROTO_TCP)
    assert ("TO_ENDPOINT", False, "SYN") in points(lab.nodes[1], socket.IPPROTO_TCP)


@pytest.mark.parametrize("kind", [TCP, UDP])
def test_outside_sees_the_node(lab: Lab, pods: tuple[Pod, Pod, Pod], kind: socket.SocketKind) -> None:
    """A pod's way to the outside is masqueraded, and the answer finds it."""
    with talk.listen(lab.outside, OUTSIDE, 7000, kind) as server:
        seen = (talk.tcp if kind == TCP else talk.udp)(pods[0].namespace, (OUTSIDE, 7000), server)
    assert seen == talk.Talk(lab.nodes[0].ip, OUTSIDE)
    assert points(lab.nodes[0], socket.IPPROTO_TCP if kind == TCP else socket.IPPROTO_UDP)[0][0] == "TO_NETWORK"


def test_icmp_error_from_outside_reaches_the_pod(lab: Lab, pods: tuple[Pod, Pod, Pod]) -> None:
    """A closed port outside refuses at once: the error is translated back to the pod's own packet."""
    with talk.dialler(pods[0].namespace, UDP) as client:
        client.connect((OUTSIDE, 7001))
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(16)


@pytest.mark.parametrize("target", [1, 2])
def test_icmp_error_between_pods(lab: Lab, pods: tuple[Pod, Pod, Pod], target: int) -> None:
    """A closed port of a pod refuses at once, on the same node and on another."""
    with talk.dialler(pods[0].namespace, UDP) as client:
        client.connect((pods[target].ip, 7001))
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(16)


def test_big_datagrams(lab: Lab, pods: tuple[Pod, Pod, Pod]) -> None:
    """UDP in fragments, to another node and to the outside."""
    with talk.listen(pods[2].namespace, pods[2].ip, 8081, UDP) as server:
        assert talk.udp(pods[0].namespace, (pods[2].ip, 8081), server, size=9000).server_saw == pods[0].ip
    with talk.listen(lab.outside, OUTSIDE, 7002, UDP) as server:
        assert talk.udp(pods[0].namespace, (OUTSIDE, 7002), server, size=9000).server_saw == lab.nodes[0].ip


@pytest.mark.parametrize("hooked", [True, False], ids=["socket", "packet"])
@pytest.mark.parametrize("kind", [TCP, UDP])
@pytest.mark.parametrize("backend", ["same node", "other node", "itself", "own node", "other node's own", "outside"])
def test_cluster_ip(lab: Lab, pods: tuple[Pod, Pod, Pod], backend: str, kind: socket.SocketKind, hooked: bool) -> None:
    """A pod reaches a service wherever its backend is, translated at the socket or packet by packet."""
    node1, node2 = lab.nodes
    namespace, ip = {
        "same node": (pods[1].namespace, pods[1].ip),
        "other node": (pods[2].namespace, pods[2].ip),
        "itself": (pods[0].namespace, pods[0].ip),
        "own node": (node1.namespace, node1.ip),
        "other node's own": (node2.namespace, node2.ip),
        "outside": (lab.outside, OUTSIDE),
    }[backend]
    expected = {"outside": node1.ip, "itself": pods[0].ip if hooked else "169.254.42.1"}.get(backend, pods[0].ip)
    protocol = socket.IPPROTO_TCP if kind == TCP else socket.IPPROTO_UDP
    local = backend in ("same node", "itself", "own node")
    hooks = talk.socket_hooks(node1.datapath, lab.tag) if hooked else contextlib.nullcontext()
    with talk.listen(namespace, ip, 8080, kind) as server, service(lab, [(ip, 8080, local)], protocol=protocol), hooks:
        seen = (talk.tcp if kind == TCP else talk.udp)(pods[0].namespace, (CLUSTER_IP, 80), server)
    assert seen == talk.Talk(expected, CLUSTER_IP)


@pytest.mark.parametrize("kind", [TCP, UDP])
@pytest.mark.parametrize("backend", ["pod here", "pod there", "node here", "node there"])
def test_node_port_from_outside(lab: Lab, pods: tuple[Pod, Pod, Pod], backend: str, kind: socket.SocketKind) -> None:
    """A node port answers on the node, whether the backend is a pod or the node's own, here or on another node."""
    node1, node2 = lab.nodes
    namespace, ip = {
        "pod here": (pods[0].namespace, pods[0].ip),
        "pod there": (pods[2].namespace, pods[2].ip),
        "node here": (node1.namespace, node1.ip),
        "node there": (node2.namespace, node2.ip),
    }[backend]
    here = backend.endswith(" here")
    protocol = socket.IPPROTO_TCP if kind == TCP else socket.IPPROTO_UDP
    with (
        talk.listen(namespace, ip, 8080, kind) as server,
        service(lab, [(ip, 8080, here)], protocol=protocol, node_port=30080),
    ):
        seen = (talk.tcp if kind == TCP else talk.udp)(lab.outside, (node1.ip, 30080), server)
    assert seen == talk.Talk(OUTSIDE if here else node1.ip, node1.ip)


@pytest.mark.parametrize("hooked", [True, False], ids=["socket", "packet"])
def test_node_port_from_a_pod(lab: Lab, pods: tuple[Pod, Pod, Pod], hooked: bool) -> None:
    """A pod reaches a node port at its own node's and at another node's address."""
    hooks = talk.socket_hooks(lab.nodes[0].datapath, lab.tag) if hooked else contextlib.nullcontext()
    with (
        talk.listen(pods[2].namespace, pods[2].ip, 8080, TCP) as server,
        service(lab, [(pods[2].ip, 8080, False)], protocol=socket.IPPROTO_TCP, node_port=30080),
        hooks,
    ):
        for node in lab.nodes:
            assert talk.tcp(pods[0].namespace, (node.ip, 30080), server) == talk.Talk(pods[0].ip, node.ip)


def test_node_reaches_services(lab: Lab, pods: tuple[Pod, Pod, Pod]) -> None:
    """The node's own processes reach ClusterIPs, and node ports on loopback too."""
    node1 = lab.nodes[0]
    with (
        talk.listen(pods[2].namespace, pods[2].ip, 8080, TCP) as server,
        service(lab, [(pods[2].ip, 8080, False)], protocol=socket.IPPROTO_TCP, node_port=30080),
        talk.socket_hooks(node1.datapath, lab.tag),
    ):
        for target in ((CLUSTER_IP, 80), ("127.0.0.1", 30080), (node1.ip, 30080)):
            assert talk.tcp(node1.namespace, target, server) == talk.Talk(node1.router, target[0])
        with talk.dialler(pods[0].namespace, TCP) as client, pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", 30080))  # a pod's loopback is its own


def test_service_without_backends_refuses(lab: Lab, pods: tuple[Pod, Pod, Pod]) -> None:
    """No backend: at the socket the dial is refused, packet by packet it is dropped; both by name."""
    node1 = lab.nodes[0]
    with service(lab, [], protocol=socket.IPPROTO_TCP):
        with (
            talk.socket_hooks(node1.datapath, lab.tag),
            talk.dialler(pods[0].namespace, TCP) as client,
            pytest.raises(ConnectionRefusedError),
        ):
            client.connect((CLUSTER_IP, 80))
        assert drops(node1) == ["SERVICE_BACKEND_NOT_FOUND"]
        with talk.dialler(pods[0].namespace, TCP) as client, pytest.raises(TimeoutError):
            client.settimeout(0.1)
            client.connect((CLUSTER_IP, 80))
        assert drops(node1) == ["SERVICE_BACKEND_NOT_FOUND"]


def test_udp_socket_keeps_its_backend(lab: Lab, pods: tuple[Pod, Pod, Pod]) -> None:
    """Datagrams of one socket go to one backend, though each could choose."""
    with (
        talk.listen(pods[1].namespace, pods[1].ip, 8080, UDP) as one,
        talk.listen(pods[2].namespace, pods[2].ip, 8080, UDP) as two,
        service(lab, [(pods[1].ip, 8080, True), (pods[2].ip, 8080, False)], protocol=socket.IPPROTO_UDP),
        talk.socket_hooks(lab.nodes[0].datapath, lab.tag),
        talk.dialler(pods[0].namespace, UDP) as client,
    ):
        for _ in range(20):
            client.sendto(b"?", (CLUSTER_IP, 80))
        got = []
        for server in (one, two):
            server.setblocking(False)
            count = 0
            with contextlib.suppress(BlockingIOError):
                while server.recv(16):
                    count += 1
            got.append(count)
    assert sorted(got) == [0, 20]


def test_dual_stack_socket_dials_ipv4(lab: Lab, pods: tuple[Pod, Pod, Pod]) -> None:
    """An IPv6 socket that dials ::ffff:CLUSTER_IP is translated as an IPv4 one is."""
    with (
        talk.listen(pods[2].namespace, pods[2].ip, 8080, TCP) as server,
        service(lab, [(pods[2].ip, 8080, False)], protocol=socket.IPPROTO_TCP),
        talk.socket_hooks(lab.nodes[0].datapath, lab.tag),
    ):
        seen = talk.tcp(pods[0].namespace, (f"::ffff:{CLUSTER_IP}", 80), server)
    assert seen == talk.Talk(pods[0].ip, f"::ffff:{CLUSTER_IP}")


def test_vxlan_from_a_stranger_is_dropped(lab: Lab, pods: tuple[Pod, Pod, Pod]) -> None:
    """Somebody on the underlay who speaks VXLAN but is no node reaches no pod."""
    inner = bytes.fromhex("0200000000010200000000020800")  # Ethernet; what is inside does not matter
    with talk.dialler(lab.outside, UDP) as stranger:
        stranger.sendto(bytes.fromhex("0800000000000600") + inner + bytes(60), (lab.nodes[0].ip, 8472))
    assert ping(pods[0].namespace, pods[1].ip)  # and by then it has arrived
    found = [each for each in lab.nodes[0].datapath.events() if each.kind == abi.EventKind.DROP]
    assert [abi.DropReason(each.sub_type).name for each in found] == ["UNKNOWN_SENDER"]


@pytest.mark.parametrize(
    ("source", "destination", "vni", "reason"),
    [
        ("c", "a", 1003, None),
        ("c", "a", 1, "INVALID_IDENTITY"),
        ("b", "a", 1002, "INVALID_SOURCE_IP"),
        ("node", "a", 6, "INVALID_SOURCE_IP"),
        ("outside", "a", 2, None),
        ("outside", "a", 1003, "INVALID_IDENTITY"),
        ("c", "outside", 1003, "UNROUTABLE_IP"),
        ("c", "c2", 1003, "UNROUTABLE_IP"),
    ],
)
def test_vxlan_of_another_node(
    lab: Lab, pods: tuple[Pod, Pod, Pod], source: str, destination: str, vni: int, reason: str | None
) -> None:
    """What a known node may say by the device: in the name of its own pods or of strangers, to ours, nothing more."""
    node1, node2 = lab.nodes
    ip = {
        "a": pods[0].ip, "b": pods[1].ip, "c": pods[2].ip, "c2": "10.244.2.77", "node": node1.ip, "outside": OUTSIDE,
    }  # fmt: skip
    inner = Frame(ip[source], ip[destination], UDP_PROTOCOL, ports=(5000 + vni, 9))
    with talk.dialler(node2.namespace, UDP) as other:
        other.sendto(struct.pack("!II", 0x08000000, vni << 8) + bytes(inner), (node1.ip, 8472))
    assert ping(node1.namespace, node2.ip)  # and by then it has arrived
    seen = [each for each in node1.datapath.events() if each.source == addr(ip[source]) and each.protocol == 17]
    expected = [(abi.EventKind.DROP, abi.DropReason[reason])] if reason else [(abi.EventKind.TRACE, 0)]
    assert [(each.kind, each.sub_type) for each in seen] == expected
    if not reason:
        assert seen[0].source_identity == vni


def test_a_deleted_pods_address_is_dropped(lab: Lab, pods: tuple[Pod, Pod, Pod]) -> None:
    """Nobody has that address: named, and not let out of the node."""
    assert not ping(pods[0].namespace, "10.244.1.200")
    assert drops(lab.nodes[0]) == ["UNROUTABLE_IP"]


def test_nothing_was_lost(lab: Lab) -> None:
    """Every event of this file found room, and none names an address that is not the lab's."""
    assert [node.datapath.lost() for node in lab.nodes] == [0, 0]
    assert all(text(each.source) for node in lab.nodes for each in node.datapath.events())
    assert os.getpid() > 0
