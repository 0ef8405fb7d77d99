"""A proxy by hand: the sockets that docs/l7.md asks of Envoy, opened one after the other by the test's own process.

A connection that passes it is two sockets here, `down` to the client and `up` in the client's name; what they do to
addresses, marks and ports is the kernel's and ours, so nothing of Envoy is stood in for.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mycel import abi
from mycel.abi import ProxyMark
from mycel.datapath import netlink as nl
from mycel.datapath.node_setup import (
    NET_DEVICE,
    Devices,
    apply_sysctls,
    cluster_routes,
    ensure_proxy_routes,
    quiet_device,
    reserve_ports,
)
from mycel.datapath.rtnetlink import Netlink
from mycel.datapath.settings import DatapathSettings
from tests.bpf.lab import SERVICES, SERVICES6, Lab, Node, inside
from tests.bpf.talk import CGROUPS, TIMEOUT_S

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
LISTENERS = {False: "192.0.0.8", True: "100::8"}
UPSTREAM_PORTS = (16384, 29999)
_IP_TRANSPARENT, _IP_RECVORIGDSTADDR, _IP_LOCAL_PORT_RANGE = 19, 20, 51
_IPV6_TRANSPARENT, _IPV6_RECVORIGDSTADDR = 75, 74

Place = tuple[str, int]


def prepare(lab: Lab) -> None:
    """Rules, routes and sysctls of the nodes, as the agent makes them, and a route to services."""
    for node in lab.nodes:
        with inside(node.namespace), Netlink() as netlink:
            reserve_ports(61000)
            apply_sysctls(quiet_device(NET_DEVICE, ipv6=lab.ipv6))
            host = nl.find_link(netlink, "cilium_host")
            assert host is not None
            devices = Devices(host.ifindex, 0, 0, (), 1450)
            ensure_proxy_routes(netlink, devices, ipv6=lab.ipv6)
            settings = DatapathSettings(
                node_ipv4=ipaddress.IPv4Address(node.ip),
                router_ipv4=ipaddress.IPv4Address(node.router),
                pod_networks=(),
                router_ipv6=ipaddress.IPv6Address(node.router6) if lab.ipv6 else None,
                ipv6=lab.ipv6,
                service_networks=tuple(map(ipaddress.ip_network, (SERVICES, SERVICES6))),
            )
            for route in cluster_routes((), settings=settings, devices=devices).values():
                nl.replace_route(netlink, route)


@contextlib.contextmanager
def proxies_group(lab: Lab) -> Iterator[Path]:
    """A control group that both nodes know as the proxies'."""
    assert CGROUPS is not None, "no cgroup v2 hierarchy"
    group = CGROUPS / f"{lab.tag}-proxy"
    group.mkdir()
    try:
        row = {abi.ProxyKey(group.stat().st_ino): abi.ProxyValue(abi.ProxyKind.ENVOY)}
        for node in lab.nodes:
            node.datapath.write({"proxies": row})
        yield group
    finally:
        group.rmdir()


@contextlib.contextmanager
def _in_group(group: Path) -> Iterator[None]:
    """Be in a control group: sockets keep the one they were made in."""
    line = next(each for each in Path("/proc/self/cgroup").read_text().splitlines() if each.startswith("0::"))
    assert CGROUPS is not None
    home = CGROUPS / line[3:].lstrip("/")
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))


def transparent(namespace: str, v6: bool, kind: socket.SocketKind, mark: int) -> socket.socket:
    """A socket that may have any address, with a mark."""
    with inside(namespace):
        made = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind)
    made.settimeout(TIMEOUT_S)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if v6:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    return made


def abrupt(made: socket.socket) -> socket.socket:
    """Have it (and what it accepts) end by a reset: no last packets come when the next case has begun."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return made


@dataclass
class Leg:
    """What came in at a listener: who asks, whom, and the socket (or for UDP the datagram) that it came by."""

    client: Place
    dialled: Place
    down: socket.socket | None = None
    data: bytes = b""


@dataclass
class Proxy:
    """One node's proxy. Everything it opens is closed with it."""

    node: Node
    group: Path
    opened: list[socket.socket] = field(default_factory=list[socket.socket])

    def listener(self, port: int, kind: socket.SocketKind = TCP, *, v6: bool = False) -> socket.socket:
        """A listener for redirected connections."""
        with _in_group(self.group):
            made = transparent(self.node.namespace, v6, kind, ProxyMark.DOWNSTREAM)
        self.opened.append(made)
        if kind == UDP:
            level, option = (
                (socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR) if v6 else (socket.IPPROTO_IP, _IP_RECVORIGDSTADDR)
            )
            made.setsockopt(level, option, 1)
        made.bind((LISTENERS[v6], port))
        if kind == TCP:
            made.listen(16)
        return made

    def accept(self, listener: socket.socket) -> Leg:
        """The next connection of a listener."""
        down, client = listener.accept()
        down.settimeout(TIMEOUT_S)
        self.opened.append(down)
        return Leg(client[:2], down.getsockname()[:2], down)

    def receive(self, listener: socket.socket) -> Leg:
        """The next datagram of a listener."""
        data, ancillary, _flags, client = listener.recvmsg(65535, 64)
        ((_level, _kind, place),) = ancillary
        host = (
            socket.inet_ntop(socket.AF_INET6, place[8:24])
            if len(place) > 16
            else socket.inet_ntop(socket.AF_INET, place[4:8])
        )
        return Leg(client[:2], (host, int.from_bytes(place[2:4], "big")), None, data)

    def upstream(
        self, source: str, mark: ProxyMark, port: int, kind: socket.SocketKind = TCP, *, source_port: int = 0
    ) -> socket.socket:
        """A socket that dials in the name of `source`; `port` is the listener's, for the mark."""
        with _in_group(self.group):
            made = transparent(self.node.namespace, ":" in source, kind, port << 16 | mark)
        self.opened.append(made)
        first, last = UPSTREAM_PORTS
        made.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, last << 16 | first)
        made.bind((source, source_port))
        return made

    def answer(self, leg: Leg, data: bytes) -> None:
        """A datagram to the leg's client, from whom it asked."""
        with _in_group(self.group):
            made = transparent(self.node.namespace, ":" in leg.dialled[0], UDP, ProxyMark.DOWNSTREAM)
        self.opened.append(made)
        made.bind(leg.dialled)
        made.sendto(data, leg.client)

    def close(self) -> None:
        """Close whatever is open, at once and for both ends."""
        for each in self.opened:
            if each.fileno() >= 0:
                abrupt(each).close()
        self.opened.clear()


@dataclass
class Pass:
    """One way through a proxy: at which listener, what its upstream says of itself, and where it dials."""

    proxy: Proxy
    port: int
    mark: ProxyMark
    to: Place | None = None  # None: whom the client dialled
    source: str = ""  # empty: the client's address


@dataclass
class Chain:
    """A TCP connection from a client through passes to a server, open."""

    client: socket.socket
    legs: list[tuple[Leg, socket.socket]]
    accepted: socket.socket
    server_saw: Place

    @classmethod
    def open(cls, client: socket.socket, target: Place, passes: list[Pass], server: socket.socket) -> Chain:
        """Dial, and carry the connection through every pass."""
        v6 = ":" in target[0]
        waiting = [each.proxy.listener(each.port, v6=v6) for each in passes]
        client.connect(target)
        legs: list[tuple[Leg, socket.socket]] = []
        for each, listener in zip(passes, waiting, strict=True):
            leg = each.proxy.accept(listener)
            up = each.proxy.upstream(each.source or leg.client[0], each.mark, each.port)
            up.connect(each.to or leg.dialled)
            legs.append((leg, up))
        accepted, peer = server.accept()
        accepted.settimeout(TIMEOUT_S)
        return cls(client, legs, accepted, peer[:2])

    def speak(self, payload: bytes = b"mycel") -> None:
        """Send from end to end, and back."""
        ends: list[tuple[socket.socket, socket.socket]] = []
        sender = self.client
        for leg, up in self.legs:
            assert leg.down is not None
            ends.append((sender, leg.down))
            sender = up
        ends.append((sender, self.accepted))
        for near, far in (*ends, *((far, near) for near, far in reversed(ends))):
            near.sendall(payload)
            got = b""
            while len(got) < len(payload):
                more = far.recv(65536)
                assert more, "closed early"
                got += more
            assert got == payload

    def close(self) -> None:
        """Close both ends; the proxies' sockets are theirs to close."""
        self.client.close()
        self.accepted.close()
