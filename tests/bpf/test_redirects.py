"""Connections that pass a proxy, between real sockets on two nodes: transparent on both sides, and only for proxies.

The proxy's sockets are the test's own (proxied.py); what Envoy makes of them is seen in tests/e2e. Both families.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mycel import abi
from mycel.abi import EndpointFlags, ProxyMark, ReservedIdentity, ServiceFlags
from tests.bpf import talk
from tests.bpf.lab import UNDERLAY, UNDERLAY6, Lab, Node, Pod, inside
from tests.bpf.proxied import TCP, UDP, Chain, Pass, Place, Proxy, abrupt, prepare, proxies_group, transparent
from tests.bpf.rows import addr, endpoint
from tests.bpf.test_conversations import rule

pytestmark = pytest.mark.root

A, B, C = 1001, 1002, 1003
EGRESS, INGRESS, SERVICE, OUTSIDE_PORT = 10001, 10002, 20001, 20002
INGRESS_ADDRESS = {False: "10.244.1.254", True: "fd00:244:1::fe"}
CLUSTER_IP = {False: "10.96.7.7", True: "fd00:96::77"}
KERNEL_OWNED = ("ct", "nat", "socket_nat", "services", "service_slots", "backends")


@dataclass
class Net:
    """Two nodes with a proxy each; pods a and b on the first, c on the second; one family of addresses."""

    lab: Lab
    v6: bool
    proxies: list[Proxy]
    revision: int = field(default=1)

    @property
    def nodes(self) -> list[Node]:
        return self.lab.nodes

    @property
    def a(self) -> Pod:
        return self.nodes[0].pods[0]

    @property
    def b(self) -> Pod:
        return self.nodes[0].pods[1]

    @property
    def c(self) -> Pod:
        return self.nodes[1].pods[0]

    @property
    def outside(self) -> str:
        return f"{UNDERLAY6}:1" if self.v6 else f"{UNDERLAY}.1"

    @property
    def service(self) -> Place:
        return CLUSTER_IP[self.v6], 80

    def ip(self, of: Pod | Node) -> str:
        return of.address(self.v6)

    def router(self, node: Node) -> str:
        return node.router_address(self.v6)

    def enforce(self, pod: Pod, *, egress: dict[Any, Any] | None = None, ingress: dict[Any, Any] | None = None) -> None:
        """These rows from now on; None: nothing is enforced."""
        node = next(each for each in self.nodes if pod in each.pods)
        self.revision += 1
        flags, sets = EndpointFlags.READY, {"egress_set": 0, "ingress_set": 0}
        for name, rows, flag in (
            ("egress_set", egress, EndpointFlags.ENFORCE_EGRESS),
            ("ingress_set", ingress, EndpointFlags.ENFORCE_INGRESS),
        ):
            if rows is not None:
                self.revision += 1
                sets[name], flags = self.revision, flags | flag
                node.datapath.write({"policy": {self.revision: rows}})
        key = abi.EndpointKey(addr(pod.ip))
        row = node.datapath.maps["endpoints"].get(key)
        assert row is not None
        row = row._replace(flags=flags, policy_revision=self.revision, **sets)
        both = {abi.EndpointKey(addr(each)): row for each in (pod.ip, pod.ip6)}
        node.datapath.write({"endpoints": both, "interfaces": {abi.InterfaceKey(pod.ifindex): row}})

    def serve(
        self, *backends: Place, port: int = 0, outside: int = 0, protocol: int = socket.IPPROTO_TCP, node_port: int = 0
    ) -> None:
        """A service of these backends on the first node; `port` and `outside` are its listeners'."""
        flags = ServiceFlags.CLUSTER_IP
        value = abi.ServiceValue(77, len(backends), flags, 0, len(backends), port, outside)
        write = self.nodes[0].datapath.write
        own = (self.service, *backends)  # slot 0: where the node's own processes dial one that has a listener
        write({"backends": {abi.BackendKey(9000 + i): abi.BackendValue(addr(ip), to, protocol, 0)
                            for i, (ip, to) in enumerate(own)}})  # fmt: skip
        write({"service_slots": {abi.SlotKey(77, i): abi.SlotValue(9000 + i) for i in range(len(own))}})
        write({"services": {abi.ServiceKey(addr(self.service[0]), 80, protocol): value}})
        if node_port:
            value = value._replace(flags=ServiceFlags.NODE_PORT)
            anywhere = addr("::" if self.v6 else "0.0.0.0")
            write({"services": {abi.ServiceKey(anywhere, node_port, protocol): value}})

    def dialler(self, namespace: str, kind: socket.SocketKind = TCP) -> socket.socket:
        return abrupt(talk.dialler(namespace, kind, family=socket.AF_INET6 if self.v6 else socket.AF_INET))

    def drops(self, node: int = 0) -> list[str]:
        """Reasons of drops of TCP and UDP since the last look."""
        return [
            abi.DropReason(each.sub_type).name
            for each in self.nodes[node].datapath.events()
            if each.kind == abi.EventKind.DROP and each.protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
        ]

    def forget(self) -> None:
        """No connection, service, policy or event is left of the case before."""
        for each in self.proxies:
            each.close()
        for pod in (self.a, self.b, self.c):
            self.enforce(pod)
        for node in self.nodes:
            for name in KERNEL_OWNED:
                node.datapath.maps[name].remove(list(node.datapath.maps[name].dump()))
            node.datapath.events()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Net]]:
    lab = Lab(tmp_path_factory.mktemp("lab"), ipv6=True)
    try:
        node1, node2 = lab.nodes
        lab.pod(node1, "a", identity=A)
        lab.pod(node1, "b", identity=B)
        lab.pod(node2, "c", identity=C)
        prepare(lab)
        ingress_address(lab)
        with proxies_group(lab) as group:
            proxies = [Proxy(node, group) for node in lab.nodes]
            yield [Net(lab, v6, proxies) for v6 in (False, True)]
            for each in proxies:
                each.close()
    finally:
        lab.close()


def ingress_address(lab: Lab) -> None:
    """The first node's: on cilium_host, known to both."""
    node1, node2 = lab.nodes
    flags = EndpointFlags.HOST | EndpointFlags.READY
    for v6, address in INGRESS_ADDRESS.items():
        node1.exec("ip", "addr", "add", f"{address}/{128 if v6 else 32}", "dev", "cilium_host", *["nodad"][: int(v6)])
        row = endpoint(identity=ReservedIdentity.INGRESS, flags=flags)
        node1.datapath.write({"endpoints": {abi.EndpointKey(addr(address)): row}})
        for node, tunnel, extra in ((node1, bytes(16), 0), (node2, addr(node1.ip), abi.IpcacheFlags.TUNNEL)):
            value = abi.IpcacheValue(tunnel, ReservedIdentity.INGRESS, abi.IpcacheFlags.CLUSTER | extra)
            node.datapath.write({"ipcache": {abi.IpcacheKey(addr(address)): value}})


@pytest.fixture(params=[False, True], ids=["v4", "v6"])
def net(both: list[Net], request: pytest.FixtureRequest) -> Iterator[Net]:
    found = both[int(request.param)]
    found.forget()
    yield found
    found.forget()


def listen(namespace: str, address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A server's socket."""
    return abrupt(talk.listen(namespace, address, port, kind))


def redirected(port: int, protocol: int = socket.IPPROTO_TCP) -> dict[Any, Any]:
    """Rows that send whatever is for port 8080 to a listener."""
    return dict([rule(0, protocol, 8080, proxy_port=port)])


def carried(net: Net, client: str, target: Place, passes: list[Pass], server: Place, at: str) -> talk.Talk:
    """One connection from a namespace to a server (address, namespace), spoken on both ways and closed."""
    with listen(at, server[0], server[1], TCP) as listening, net.dialler(client) as socket_:
        chain = Chain.open(socket_, target, passes, listening)
        with contextlib.closing(chain):
            chain.speak()
            chain.speak(b"x" * 20000)
            return talk.Talk(chain.server_saw[0], chain.client.getpeername()[0])


# -- whose address each end sees


@pytest.mark.parametrize("server", ["b", "c"])
@pytest.mark.parametrize("rules", ["egress", "ingress", "both"])
def test_rules_of_a_policy(net: Net, rules: str, server: str) -> None:
    """Client's rules on its node, server's on its own; both where both are, on one node in two passes."""
    pod: Pod = getattr(net, server)
    home = net.proxies[0 if server == "b" else 1]
    passes: list[Pass] = []
    if rules != "ingress":
        net.enforce(net.a, egress=redirected(EGRESS))
        passes.append(Pass(net.proxies[0], EGRESS, ProxyMark.UPSTREAM_EGRESS))
    if rules != "egress":
        net.enforce(pod, ingress=redirected(INGRESS))
        passes.append(Pass(home, INGRESS, ProxyMark.UPSTREAM_INGRESS))
    place = net.ip(pod), 8080
    assert carried(net, net.a.namespace, place, passes, place, pod.namespace) == (net.ip(net.a), net.ip(pod))
    assert net.drops(0) == net.drops(1) == []


@pytest.mark.parametrize("server", ["b", "c"])
def test_a_services_listener_and_then_rules(net: Net, server: str) -> None:
    """Three passes: the service's listener chooses, then the client's rules are asked, then the server's."""
    pod: Pod = getattr(net, server)
    place = net.ip(pod), 8080
    net.serve(place, port=SERVICE)
    net.enforce(net.a, egress=redirected(EGRESS))
    net.enforce(pod, ingress=redirected(INGRESS))
    passes = [
        Pass(net.proxies[0], SERVICE, ProxyMark.UPSTREAM_SERVICE, to=place),
        Pass(net.proxies[0], EGRESS, ProxyMark.UPSTREAM_EGRESS),
        Pass(net.proxies[0 if server == "b" else 1], INGRESS, ProxyMark.UPSTREAM_INGRESS),
    ]
    seen = carried(net, net.a.namespace, net.service, passes, place, pod.namespace)
    assert seen == (net.ip(net.a), net.service[0])


@pytest.mark.parametrize("to", ["service", "node port", "loopback"])
@pytest.mark.parametrize("server", ["b", "c", "node", "other node"])
def test_from_the_machine_itself(net: Net, server: str, to: str) -> None:
    """A node's own process meets the listener by every address of the service, wherever the backend is, as host."""
    node1, node2 = net.nodes
    at, ip = {
        "b": (net.b.namespace, net.ip(net.b)),
        "c": (net.c.namespace, net.ip(net.c)),
        "node": (node1.namespace, net.ip(node1)),
        "other node": (node2.namespace, net.ip(node2)),
    }[server]
    place = ip, 8080
    net.serve(place, port=SERVICE, node_port=30080)
    net.enforce(net.b, ingress=dict([rule(ReservedIdentity.HOST)]))
    net.enforce(net.c, ingress=dict([rule(ReservedIdentity.REMOTE_NODE)]))
    target = {
        "service": net.service,
        "node port": (net.ip(node1), 30080),
        "loopback": ("::1" if net.v6 else "127.0.0.1", 30080),
    }[to]
    passes = [Pass(net.proxies[0], SERVICE, ProxyMark.UPSTREAM_SERVICE, to=place)]
    with talk.socket_hooks(node1.datapath, net.lab.tag):
        seen = carried(net, node1.namespace, target, passes, place, at)
    assert seen == (net.router(node1), target[0])
    assert net.drops(0) == net.drops(1) == []
    row = next(each for key, each in ct_rows(node1).items() if 8080 in (key.source_port, key.destination_port))
    assert row.source_identity == ReservedIdentity.HOST


def ct_rows(node: Node) -> dict[abi.Tuple, abi.CtValue]:
    """Every connection a node knows."""
    return dict(node.datapath.maps["ct"].dump())


def test_the_machine_itself_by_datagrams(net: Net) -> None:
    """UDP of a node's own process, to the ClusterIP and to a NodePort, connected or not."""
    node1 = net.nodes[0]
    net.serve((net.ip(net.c), 8080), port=SERVICE, protocol=socket.IPPROTO_UDP, node_port=30080)
    listener = net.proxies[0].listener(SERVICE, UDP, v6=net.v6)
    with talk.socket_hooks(node1.datapath, net.lab.tag):
        for target in (net.service, (net.ip(node1), 30080)):
            with net.dialler(node1.namespace, UDP) as client:
                client.sendto(b"1", target)
                leg = net.proxies[0].receive(listener)
                assert (leg.client[0], leg.dialled, leg.data) == (net.router(node1), net.service, b"1")
                net.proxies[0].answer(leg, b"2")
                assert client.recvfrom(16)[1][:2] == target
    assert net.drops() == []


def test_a_listeners_endpoint_on_the_node_itself(net: Net) -> None:
    """A pod's upstream to the node's own address meets the pod's rules first, and its answers the proxy."""
    node1 = net.nodes[0]
    place = net.ip(node1), 8080
    net.serve(place, port=SERVICE)
    passes = [Pass(net.proxies[0], SERVICE, ProxyMark.UPSTREAM_SERVICE, to=place)]
    seen = carried(net, net.a.namespace, net.service, passes, place, node1.namespace)
    assert seen == (net.ip(net.a), net.service[0])
    net.enforce(net.a, egress=dict([rule(ReservedIdentity.UNMANAGED, socket.IPPROTO_TCP, 80)]))
    up = net.proxies[0].upstream(net.ip(net.a), ProxyMark.UPSTREAM_SERVICE, SERVICE)
    refused(net, up, place, "POLICY_DENIED")


def refused(net: Net, client: socket.socket, target: Place, reason: str) -> None:
    """Dial; the first node drops it, by name and silently."""
    net.drops()
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.connect(target)
    assert set(net.drops()) == {reason}


@pytest.mark.parametrize("server", ["b", "c", "node", "outside"])
@pytest.mark.parametrize("kept", [False, True], ids=["ingress address", "own address"])
def test_a_client_of_the_outside(net: Net, server: str, kept: bool) -> None:
    """By a NodePort to the listener for such clients. Its upstream has the ingress address, or the client's own."""
    node1 = net.nodes[0]
    at, ip = {
        "b": (net.b.namespace, net.ip(net.b)),
        "c": (net.c.namespace, net.ip(net.c)),
        "node": (node1.namespace, net.ip(node1)),
        "outside": (net.lab.outside, net.outside),
    }[server]
    place, target = (ip, 8080), (net.ip(node1), 30080)
    net.serve(place, port=SERVICE, outside=OUTSIDE_PORT, node_port=30080)
    ingress = INGRESS_ADDRESS[net.v6]
    source = "" if kept else ingress
    if kept and server == "node":  # it would answer the client past the proxy
        up = net.proxies[0].upstream(net.outside, ProxyMark.UPSTREAM_SERVICE, OUTSIDE_PORT)
        refused(net, up, place, "PROXY_UNSUPPORTED")
        return
    passes = [Pass(net.proxies[0], OUTSIDE_PORT, ProxyMark.UPSTREAM_SERVICE, to=place, source=source)]
    seen = carried(net, net.lab.outside, target, passes, place, at)
    translated = server == "outside" or (kept and server == "c")
    assert seen == (net.ip(node1) if translated else net.outside if kept else ingress, target[0])
    assert net.drops(0) == net.drops(1) == []


def test_the_ingress_address_is_who_asks(net: Net) -> None:
    """Identity 8: a pod that lets only it in refuses what keeps the client's own address."""
    node1, place = net.nodes[0], (net.ip(net.b), 8080)
    net.serve(place, port=SERVICE, outside=OUTSIDE_PORT, node_port=30080)
    net.enforce(net.b, ingress=dict([rule(ReservedIdentity.INGRESS)]))
    ingress = INGRESS_ADDRESS[net.v6]
    passes = [Pass(net.proxies[0], OUTSIDE_PORT, ProxyMark.UPSTREAM_SERVICE, to=place, source=ingress)]
    carried(net, net.lab.outside, (net.ip(node1), 30080), passes, place, net.b.namespace)
    up = net.proxies[0].upstream(net.outside, ProxyMark.UPSTREAM_SERVICE, OUTSIDE_PORT)
    refused(net, up, place, "POLICY_DENIED")


def datagram(net: Net, client: socket.socket, target: Place, passes: list[Pass], server: socket.socket) -> talk.Talk:
    """One datagram through passes to a server, and an answer back."""
    waiting = [each.proxy.listener(each.port, UDP, v6=net.v6) for each in passes]
    client.sendto(b"ask", target)
    legs = []
    for each, listener in zip(passes, waiting, strict=True):
        leg = each.proxy.receive(listener)
        up = each.proxy.upstream(leg.client[0], each.mark, each.port, UDP)
        up.connect(each.to or leg.dialled)
        up.send(leg.data)
        legs.append((each.proxy, leg, up))
    data, peer = server.recvfrom(64)
    server.sendto(data + b"ed", peer)
    for proxy, leg, up in reversed(legs):
        proxy.answer(leg, up.recv(64))
    answer, seen = client.recvfrom(64)
    assert answer == b"asked"
    return talk.Talk(peer[0], seen[0])


@pytest.mark.parametrize("server", ["b", "c"])
def test_datagrams(net: Net, server: str) -> None:
    """UDP by the rules of both ends: on one node in two passes, or one on each."""
    pod: Pod = getattr(net, server)
    place = net.ip(pod), 8080
    net.enforce(net.a, egress=redirected(EGRESS, socket.IPPROTO_UDP))
    net.enforce(pod, ingress=redirected(INGRESS, socket.IPPROTO_UDP))
    passes = [
        Pass(net.proxies[0], EGRESS, ProxyMark.UPSTREAM_EGRESS),
        Pass(net.proxies[0 if server == "b" else 1], INGRESS, ProxyMark.UPSTREAM_INGRESS),
    ]
    with listen(pod.namespace, *place, UDP) as listening, net.dialler(net.a.namespace, UDP) as client:
        assert datagram(net, client, place, passes, listening) == (net.ip(net.a), net.ip(pod))
    assert net.drops(0) == net.drops(1) == []


def test_a_pod_that_meets_itself(net: Net) -> None:
    """Behind a service with a listener: it sees another address than its own."""
    place = net.ip(net.a), 8080
    net.serve(place, port=SERVICE)
    passes = [Pass(net.proxies[0], SERVICE, ProxyMark.UPSTREAM_SERVICE, to=place)]
    seen = carried(net, net.a.namespace, net.service, passes, place, net.a.namespace)
    assert seen == ("fe80::a9fe:2a01" if net.v6 else "169.254.42.1", net.service[0])


# -- what only a proxy may send


def test_nobody_is_the_proxy(net: Net) -> None:
    """A process of the node with the mark of a proxy, but not in its control group: nothing of it passes."""
    place = net.ip(net.b), 8080
    namespace = net.nodes[0].namespace
    for mark in (ProxyMark.UPSTREAM_SERVICE, ProxyMark.UPSTREAM_EGRESS, ProxyMark.UPSTREAM_INGRESS):
        with transparent(namespace, net.v6, TCP, EGRESS << 16 | mark) as forger:
            forger.bind((net.ip(net.a), 0))
            refused(net, forger, place, "PROXY_FOREIGN")
    with transparent(namespace, net.v6, TCP, ProxyMark.DOWNSTREAM) as forger:
        refused(net, forger, place, "PROXY_FOREIGN")


def test_a_proxy_answers_and_does_not_begin(net: Net) -> None:
    """Its downstream mark begins nothing, and its upstream to a server needs that server's own rules' listener."""
    proxy, place = net.proxies[0], (net.ip(net.b), 8080)
    refused(net, proxy.upstream(net.ip(net.a), ProxyMark.DOWNSTREAM, 0), place, "PROXY_FOREIGN")
    refused(net, proxy.upstream(net.ip(net.a), ProxyMark.UPSTREAM_INGRESS, INGRESS), (net.ip(net.c), 8080),
            "PROXY_FOREIGN")  # fmt: skip


def test_a_mark_is_good_for_its_own_listener(net: Net) -> None:
    """The client's row is looked up again: what came through another listener goes to the row's first."""
    place = net.ip(net.b), 8080
    net.enforce(net.a, egress=redirected(EGRESS))
    up = net.proxies[0].upstream(net.ip(net.a), ProxyMark.UPSTREAM_EGRESS, EGRESS + 7)
    refused(net, up, place, "PROXY_LOOKUP_FAILED")  # to the right one, which nobody has opened
    net.enforce(net.a, egress={})
    up = net.proxies[0].upstream(net.ip(net.a), ProxyMark.UPSTREAM_EGRESS, EGRESS)
    refused(net, up, place, "POLICY_DENIED")


def test_a_pods_mark_means_nothing(net: Net) -> None:
    """It does not leave the pod: the packet meets the rules as any other."""
    place = net.ip(net.b), 8080
    net.enforce(net.a, egress=redirected(EGRESS))
    with transparent(net.a.namespace, net.v6, TCP, EGRESS << 16 | ProxyMark.UPSTREAM_EGRESS) as client:
        refused(net, client, place, "PROXY_LOOKUP_FAILED")


@pytest.mark.parametrize("server", ["b", "c"])
def test_marks_of_no_kind_mean_nothing(net: Net, server: str) -> None:
    """The node's own packets with bits of ours that say nothing go where others go, through the overlay too."""
    pod: Pod = getattr(net, server)
    with listen(pod.namespace, net.ip(pod), 8080, TCP) as listening:
        for mark in (0x800, 0x900, 0xE00, 0xF00, 0xCA6C):  # the last is WireGuard's
            with transparent(net.nodes[0].namespace, net.v6, TCP, mark) as client:
                client.bind((net.router(net.nodes[0]), 0))
                client.connect((net.ip(pod), 8080))
                listening.accept()[0].close()
    assert net.drops() == []


@contextlib.contextmanager
def egress_chain(net: Net) -> Iterator[Chain]:
    """A connection from a to b through the listener of a's egress rules, open."""
    place = net.ip(net.b), 8080
    net.enforce(net.a, egress=redirected(EGRESS))
    passes = [Pass(net.proxies[0], EGRESS, ProxyMark.UPSTREAM_EGRESS)]
    with listen(net.b.namespace, *place, TCP) as listening, net.dialler(net.a.namespace) as client:
        chain = Chain.open(client, place, passes, listening)
        with contextlib.closing(chain):
            chain.speak()
            yield chain


def bound(net: Net, pod: Pod, port: int) -> socket.socket:
    """A pod's socket at a port of its choice."""
    made = net.dialler(pod.namespace)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((net.ip(pod), port))
    return made


def test_a_pod_on_the_port_of_a_live_upstream(net: Net) -> None:
    """It says nothing into a connection that its own rules have approved, and cannot end it."""
    with egress_chain(net) as chain:
        port = chain.server_saw[1]
        assert port in range(16384, 30000)
        with bound(net, net.a, port) as thief:
            refused(net, thief, (net.ip(net.b), 8080), "PROXY_FOREIGN")
        chain.speak()
    assert net.drops() == []


def test_a_proxy_on_the_port_of_a_pods_connection(net: Net) -> None:
    """The other way round: the pod keeps what it has until it is over."""
    place = net.ip(net.b), 8080
    with listen(net.b.namespace, *place, TCP) as listening, bound(net, net.a, 20000) as client:
        client.connect(place)
        accepted, _peer = listening.accept()
        up = net.proxies[0].upstream(net.ip(net.a), ProxyMark.UPSTREAM_SERVICE, SERVICE, source_port=20000)
        refused(net, up, place, "PROXY_FOREIGN")
        with accepted:
            client.sendall(b"still here")
            assert accepted.recv(16) == b"still here"
    up.close()
    with listen(net.b.namespace, *place, TCP) as listening:
        up = net.proxies[0].upstream(net.ip(net.a), ProxyMark.UPSTREAM_SERVICE, SERVICE, source_port=20000)
        up.connect(place)
        listening.accept()[0].close()


def test_two_clients_upstreams_share_no_port(net: Net) -> None:
    """The kernel gives each pair of addresses ports of its own: equal numbers of two clients are two connections."""
    place = net.ip(net.c), 8080
    with listen(net.c.namespace, *place, TCP) as listening:
        accepted: list[socket.socket] = []
        for pod in (net.a, net.b):
            up = net.proxies[0].upstream(net.ip(pod), ProxyMark.UPSTREAM_SERVICE, SERVICE, source_port=17000)
            up.connect(place)
            one, peer = listening.accept()
            accepted.append(one)
            assert peer[:2] == (net.ip(pod), 17000)
            one.sendall(net.ip(pod).encode())
            assert up.recv(64) == net.ip(pod).encode()
        for one in accepted:
            one.close()


# -- no listener, another listener


@pytest.mark.parametrize("kind", [TCP, UDP])
@pytest.mark.parametrize("who", ["egress", "ingress", "service", "node", "outside"])
def test_no_listener(net: Net, who: str, kind: socket.SocketKind) -> None:
    """Silence, by its own name, whoever is sent to a listener that is not there."""
    protocol = socket.IPPROTO_TCP if kind == TCP else socket.IPPROTO_UDP
    place = net.ip(net.b), 8080
    net.serve(place, port=SERVICE, outside=OUTSIDE_PORT, protocol=protocol, node_port=30080)
    namespace, target = {
        "egress": (net.a.namespace, place),
        "ingress": (net.a.namespace, place),
        "service": (net.a.namespace, net.service),
        "node": (net.nodes[0].namespace, net.service),
        "outside": (net.lab.outside, (net.ip(net.nodes[0]), 30080)),
    }[who]
    if who in ("egress", "ingress"):
        rows = redirected(EGRESS, protocol)
        net.enforce(net.a if who == "egress" else net.b, **{who: rows})
    with net.dialler(namespace, kind) as client, listen(net.b.namespace, *place, kind) as listening:
        client.settimeout(0.1)
        client.connect(target) if kind == UDP else None
        with pytest.raises(TimeoutError):
            client.recv(client.send(b"?")) if kind == UDP else client.connect(target)
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept() if kind == TCP else listening.recv(16)
    assert set(net.drops()) == {"PROXY_LOOKUP_FAILED"}


def test_a_listener_of_somebody_else_is_not_used(net: Net) -> None:
    """A program of the node that listens everywhere on that port gets nothing."""
    net.enforce(net.a, egress=redirected(EGRESS))
    anywhere = "::" if net.v6 else "0.0.0.0"
    with listen(net.nodes[0].namespace, anywhere, 8080, TCP) as wide, net.dialler(net.a.namespace) as client:
        refused(net, client, (net.ip(net.b), 8080), "PROXY_LOOKUP_FAILED")
        wide.settimeout(0)
        with pytest.raises(BlockingIOError):
            wide.accept()


def test_rules_move_to_another_listener(net: Net) -> None:
    """A connection under way stays with the listener it has; what that one sends on is judged by what holds now."""
    with egress_chain(net) as chain:
        net.enforce(net.a, egress=redirected(EGRESS + 1))
        leg, up = chain.legs[0]
        chain.client.sendall(b"heard")
        assert leg.down is not None and leg.down.recv(16) == b"heard"
        up.sendall(b"not said")
        chain.accepted.settimeout(0.1)
        with pytest.raises(TimeoutError):
            chain.accepted.recv(16)
        assert set(net.drops()) == {"PROXY_LOOKUP_FAILED"}
        with net.dialler(net.a.namespace) as client:
            refused(net, client, (net.ip(net.b), 8080), "PROXY_LOOKUP_FAILED")
        net.proxies[0].listener(EGRESS + 1, v6=net.v6)
        with net.dialler(net.a.namespace) as client:
            client.connect((net.ip(net.b), 8080))


def test_a_server_hears_that_its_connection_is_given_up(net: Net) -> None:
    """Also when its rules are others by then: agents end such connections of the proxy."""
    with egress_chain(net) as chain:
        net.enforce(net.a, egress=redirected(EGRESS + 1))
        up = chain.legs[0][1]
        up.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        up.close()
        with pytest.raises(ConnectionResetError):
            chain.accepted.recv(16)


def test_rules_without_a_listener_again(net: Net) -> None:
    """What passes the proxy goes on there to its end; a denial ends it."""
    with egress_chain(net) as chain:
        net.enforce(net.a, egress=dict([rule(B)]))
        chain.speak()
        net.enforce(net.a, egress={})
        chain.client.sendall(b"?")
        leg = chain.legs[0][0]
        assert leg.down is not None
        leg.down.settimeout(0.1)
        with pytest.raises(TimeoutError):
            leg.down.recv(16)
        assert set(net.drops()) == {"POLICY_DENIED"}


def test_rules_come_over_a_connection(net: Net) -> None:
    """One that went straight to its peer cannot be moved: it is closed."""
    place = net.ip(net.b), 8080
    with listen(net.b.namespace, *place, TCP) as listening, net.dialler(net.a.namespace) as client:
        client.connect(place)
        with listening.accept()[0] as accepted:
            net.enforce(net.a, egress=redirected(EGRESS))
            net.proxies[0].listener(EGRESS, v6=net.v6)
            client.sendall(b"?")
            accepted.settimeout(0.1)
            with pytest.raises(TimeoutError):
                accepted.recv(16)
    assert set(net.drops()) == {"PROXY_LOOKUP_FAILED"}


@pytest.mark.parametrize("who", ["pod", "node", "outside"])
def test_a_services_listener_goes(net: Net, who: str) -> None:
    """Connections it has go on, whoever began them, with the service's backends or none; new ones go to a backend."""
    node1, place = net.nodes[0], (net.ip(net.b), 8080)
    namespace, target = {
        "pod": (net.a.namespace, net.service),
        "node": (node1.namespace, net.service),
        "outside": (net.lab.outside, (net.ip(node1), 30080)),
    }[who]
    net.serve(place, port=SERVICE, outside=OUTSIDE_PORT, node_port=30080)
    port, source = (OUTSIDE_PORT, INGRESS_ADDRESS[net.v6]) if who == "outside" else (SERVICE, "")
    passes = [Pass(net.proxies[0], port, ProxyMark.UPSTREAM_SERVICE, to=place, source=source)]
    with listen(net.b.namespace, *place, TCP) as listening, net.dialler(namespace) as client:
        chain = Chain.open(client, target, passes, listening)
        with contextlib.closing(chain):
            chain.speak()
            net.serve(place, node_port=30080)
            chain.speak()
            with net.dialler(namespace) as another:
                another.connect(target)
                with listening.accept()[0] as accepted:
                    another.sendall(b"straight")
                    assert accepted.recv(16) == b"straight"
            for name in ("services", "service_slots", "backends"):
                node1.datapath.maps[name].remove(list(node1.datapath.maps[name].dump()))
            chain.speak()
    assert net.drops() == []


@pytest.mark.parametrize("who", ["pod", "outside"])
def test_a_services_listener_comes(net: Net, who: str) -> None:
    """Connections with a backend keep it; new ones meet the listener, also from the port of one that is over."""
    node1, place = net.nodes[0], (net.ip(net.b), 8080)
    namespace, target = {
        "pod": (net.a.namespace, net.service),
        "outside": (net.lab.outside, (net.ip(node1), 30080)),
    }[who]
    family = socket.AF_INET6 if net.v6 else socket.AF_INET
    net.serve(place, node_port=30080)
    with listen(net.b.namespace, *place, TCP) as listening, net.dialler(namespace) as client:
        client.connect(target)
        with listening.accept()[0] as accepted:
            net.serve(place, port=SERVICE, outside=SERVICE, node_port=30080)
            client.sendall(b"still")
            assert accepted.recv(16) == b"still"
            mine = client.getsockname()[:2]
            client.close()  # by a reset: the port is free at once
            with inside(namespace):
                again = socket.socket(family, TCP)
            abrupt(again).settimeout(talk.TIMEOUT_S)
            again.bind(mine)
            passes = [Pass(net.proxies[0], SERVICE, ProxyMark.UPSTREAM_SERVICE, to=place)]
            chain = Chain.open(again, target, passes, listening)
            with contextlib.closing(chain):
                chain.speak()


def test_datagrams_begin_anew_where_their_listener_is_gone(net: Net) -> None:
    """No SYN would: a service that has lost its listener serves the client that goes on sending."""
    place = net.ip(net.b), 8080
    protocol = socket.IPPROTO_UDP
    net.serve(place, port=SERVICE, protocol=protocol)
    listener = net.proxies[0].listener(SERVICE, UDP, v6=net.v6)
    with listen(net.b.namespace, *place, UDP) as listening, net.dialler(net.a.namespace, UDP) as client:
        client.connect(net.service)
        client.send(b"one")
        assert net.proxies[0].receive(listener).data == b"one"
        net.serve(place, protocol=protocol)
        net.proxies[0].close()
        client.send(b"lost")
        client.send(b"two")
        assert listening.recv(16) == b"two"
    assert net.drops() == ["PROXY_LOOKUP_FAILED"]


def test_no_address_of_a_service_leaves_a_node(net: Net) -> None:
    """Neither by the default route nor by one that somebody made: known or not, with a port of its own or none."""
    node1 = net.nodes[0]
    net.serve((net.ip(net.b), 8080), port=SERVICE)
    family = ["-6"] if net.v6 else []
    bits = 128 if net.v6 else 32
    way = [f"{net.service[0]}/{bits}", "via", net.outside, "dev", "eth0"]
    node1.exec("ip", *family, "route", "add", *way)
    try:
        for port in (80, 81):
            with net.dialler(node1.namespace) as client:
                refused(net, client, (net.service[0], port), "UNROUTABLE_IP")
    finally:
        node1.exec("ip", *family, "route", "del", *way)
    with net.dialler(node1.namespace) as client:
        refused(net, client, (net.service[0], 81), "UNROUTABLE_IP")
