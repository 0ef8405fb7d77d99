"""A small cluster of bare namespaces: two nodes and a machine outside on one bridge, pods behind the nodes.

IPv4, or both families; the overlay's outer packets are IPv4. Only kernel parts are real nodes' (devices, routes,
sysctls, programs, maps); no agent runs. Names carry the process id, so labs of parallel test processes never meet.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mycel import abi
from mycel.datapath import links, syscall
from tests.bpf.kernel import Datapath
from tests.bpf.rows import addr, endpoint, host_endpoint, mac, prefix

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71
CLUSTER = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"
UNDERLAY = "172.31.77"
CLUSTER6 = "fd00:244::/32"
SERVICES6 = "fd00:96::/112"
UNDERLAY6 = "fd00:77:"


def run(*command: str, check: bool = True, timeout_s: float = 120) -> str:
    """Run a command; its output, or CalledProcessError with it."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a network namespace for a while. The process must have one thread that matters: this one."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _LIBC.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"enter {namespace}")
        yield
    finally:
        _LIBC.setns(home, _CLONE_NEWNET)
        os.close(home)
        os.close(there)


@dataclass
class Pod:
    """One pod's namespace and how its node knows it."""

    namespace: str
    ip: str
    ip6: str  # empty without IPv6
    mac: str
    node_mac: str
    ifindex: int
    identity: int
    endpoint_id: int

    def address(self, v6: bool) -> str:
        """Its address of a family."""
        return self.ip6 if v6 else self.ip

    def exec(self, *command: str, check: bool = True) -> str:
        """Run a command in the pod."""
        return run("ip", "netns", "exec", self.namespace, *command, check=check)

    def spawn(self, *command: str, cgroup: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a server in the pod."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@dataclass
class Node:
    """A node's namespace with the datapath attached."""

    namespace: str
    number: int
    ip: str
    ip6: str
    router: str
    router6: str
    datapath: Datapath
    links: list[int] = field(default_factory=list[int])
    pods: list[Pod] = field(default_factory=list[Pod])

    def exec(self, *command: str, check: bool = True) -> str:
        """Run a command in the node's own namespace."""
        return run("ip", "netns", "exec", self.namespace, *command, check=check)

    def address(self, v6: bool) -> str:
        """Its address on the underlay, of a family."""
        return self.ip6 if v6 else self.ip

    def router_address(self, v6: bool) -> str:
        """The pods' gateway, of a family."""
        return self.router6 if v6 else self.router

    def attach(self, program: str, device: str) -> None:
        """Attach a packet program to a device of the node."""
        with inside(self.namespace):
            ifindex = _ifindex(device)
            hook = links.PROGRAM_HOOKS[program]
            self.links.append(syscall.link_create(self.datapath.program(program), ifindex, hook, program))


def _ifindex(device: str) -> int:
    import socket

    return socket.if_nametoindex(device)


def _mac_of(namespace: str, device: str) -> str:
    return run("ip", "netns", "exec", namespace, "cat", f"/sys/class/net/{device}/address").strip()


class Lab:
    """Build it, use it, close it."""

    def __init__(self, tmp: Path, *, ipv6: bool = False) -> None:
        self.tag = f"my{os.getpid() % 100000}"
        self.ipv6 = ipv6
        self.tmp = tmp
        self.namespaces: list[str] = []
        self.nodes: list[Node] = []
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        self.bridge = self._namespace("br")
        self._ip(self.bridge, "link add br0 type bridge")
        self._ip(self.bridge, "link set br0 up")
        self.outside = self._namespace("out")
        self._plug(self.outside, 1)
        for number in (1, 2):
            self.nodes.append(self._node(number))
        self._introduce()

    # -- building

    def _ip(self, namespace: str, words: str) -> None:
        run("ip", "-n", namespace, *words.split())

    def _namespace(self, name: str) -> str:
        full = f"{self.tag}-{name}"
        run("ip", "netns", "add", full)
        self.namespaces.append(full)
        self._ip(full, "link set lo up")
        return full

    def _plug(self, namespace: str, number: int) -> None:
        """eth0 in `namespace`, on the bridge, with the underlay's addresses of that number."""
        port = f"p{len(self.namespaces)}"
        run("ip", "link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", port, "netns", self.bridge)
        self._ip(self.bridge, f"link set {port} master br0 up")
        self._ip(namespace, f"addr add {UNDERLAY}.{number}/24 dev eth0")
        if self.ipv6:
            self._ip(namespace, f"addr add {UNDERLAY6}:{number}/64 dev eth0 nodad")
        self._ip(namespace, "link set eth0 up")

    def _sysctl(self, namespace: str, **settings: str) -> None:
        run("ip", "netns", "exec", namespace, "sysctl", "-qw", *(f"{name}={value}" for name, value in settings.items()))

    def _node(self, number: int) -> Node:
        namespace = self._namespace(f"n{number}")
        self._sysctl(
            namespace,
            **{
                "net.ipv4.ip_forward": "1",
                "net.ipv4.conf.all.rp_filter": "0",
                "net.ipv4.conf.default.rp_filter": "0",
                **_IPV6[self.ipv6],
                **({"net.ipv6.conf.all.forwarding": "1"} if self.ipv6 else {}),
            },
        )
        self._plug(namespace, number + 1)
        self._ip(namespace, f"route add default via {UNDERLAY}.1")
        self._ip(namespace, "link add cilium_host type veth peer name cilium_net")
        self._ip(namespace, "link set cilium_host arp off up")
        self._ip(namespace, "link set cilium_net arp off up")
        self._ip(namespace, f"addr add 10.244.{number}.1/32 dev cilium_host")
        self._ip(namespace, "link add cilium_vxlan type vxlan external dstport 8472 nolearning")
        self._ip(namespace, "link set cilium_vxlan up")
        self._ip(namespace, f"route add {CLUSTER} dev cilium_host src 10.244.{number}.1 mtu 1450")
        ip, ip6, router, router6 = f"{UNDERLAY}.{number + 1}", "", f"10.244.{number}.1", ""
        if self.ipv6:
            ip6, router6 = f"{UNDERLAY6}:{number + 1}", f"fd00:244:{number}::1"
            self._ip(namespace, f"route add default via {UNDERLAY6}:1")
            self._ip(namespace, f"addr add {router6}/128 dev cilium_host nodad")
            self._ip(namespace, f"route add {CLUSTER6} dev cilium_host src {router6} mtu 1450")
        with inside(namespace):
            vxlan, cookie = _ifindex("cilium_vxlan"), _netns_cookie()
        knobs = {
            "config_vxlan_ifindex": vxlan,
            "config_node_ipv4": addr(ip),
            "config_node_ipv6": addr(ip6 or "::"),
            "config_ipv6": self.ipv6,
            "config_host_netns_cookie": cookie,
        }
        datapath = Datapath(knobs, lock=self.tmp / f"ring{number}")
        node = Node(namespace, number, ip, ip6, router, router6, datapath)
        for program, device in (
            ("from_host", "cilium_net"),
            ("from_overlay", "cilium_vxlan"),
            ("from_network", "eth0"),
            ("to_network", "eth0"),
        ):
            node.attach(program, device)
        return node

    def _introduce(self) -> None:
        """What the plan would write of nodes and networks."""
        flags, reserved = abi.IpcacheFlags, abi.ReservedIdentity
        for node in self.nodes:
            ipcache = {}
            unclaimed = abi.IpcacheValue(bytes(16), reserved.UNMANAGED, flags.CLUSTER)
            lpm = {prefix(each): unclaimed for each in (SERVICES, SERVICES6, *_pod_networks(node.number))}
            for other in self.nodes:
                own = other is node
                value = abi.IpcacheValue(
                    bytes(16) if own else addr(other.ip),
                    reserved.HOST if own else reserved.REMOTE_NODE,
                    flags.NODE | (0 if own else flags.TUNNEL),
                )
                ipcache |= {abi.IpcacheKey(addr(each)): value for each in _addresses(other)}
                if not own:
                    node.datapath.write({"nodes": {abi.NodeKey(addr(other.ip)): abi.NodeValue(other.number)}})
                    tunnel = abi.IpcacheValue(addr(other.ip), reserved.UNMANAGED, flags.TUNNEL | flags.CLUSTER)
                    lpm |= {prefix(each): tunnel for each in _pod_networks(other.number)}
            own_rows = {abi.EndpointKey(addr(each)): host_endpoint() for each in _addresses(node)}
            node.datapath.write({"ipcache": ipcache, "ipcache_lpm": lpm, "endpoints": own_rows})

    def pod(self, node: Node, name: str, *, identity: int, flags: int = 0) -> Pod:
        """A pod as CNI makes it, known to both nodes."""
        index = len(node.pods) + 10
        namespace, device, ip = self._namespace(name), f"lxc{index}", f"10.244.{node.number}.{index}"
        ip6 = f"fd00:244:{node.number}::{index}" if self.ipv6 else ""
        self._sysctl(namespace, **_IPV6[self.ipv6])
        run("ip", "link", "add", "eth0", "netns", namespace, "mtu", "1450", "type", "veth",
            "peer", "name", device, "netns", node.namespace)  # fmt: skip
        node_mac, pod_mac = _mac_of(node.namespace, device), _mac_of(namespace, "eth0")
        with inside(node.namespace):
            ifindex = _ifindex(device)
        pod = Pod(namespace, ip, ip6, pod_mac, node_mac, ifindex, identity, 1000 * node.number + index)
        row = endpoint(
            ipv4=addr(ip), ipv6=addr(ip6 or "::"), ifindex=ifindex, identity=identity, policy_revision=1,
            endpoint_id=pod.endpoint_id, flags=abi.EndpointFlags.READY | flags,
            mac=mac(pod_mac), node_mac=mac(node_mac),
        )  # fmt: skip
        both = [each for each in (ip, ip6) if each]
        rows = {abi.EndpointKey(addr(each)): row for each in both}
        node.datapath.write({"interfaces": {abi.InterfaceKey(ifindex): row}, "endpoints": rows})
        for other in self.nodes:
            remote = other is not node
            value = abi.IpcacheValue(
                addr(node.ip) if remote else bytes(16),
                identity,
                abi.IpcacheFlags.CLUSTER | (abi.IpcacheFlags.TUNNEL if remote else 0),
            )
            other.datapath.write({"ipcache": {abi.IpcacheKey(addr(each)): value for each in both}})
        node.attach("from_pod", device)
        node.attach("to_pod", device)
        self._ip(node.namespace, f"link set {device} up")
        self._ip(namespace, f"addr add {ip}/32 dev eth0")
        self._ip(namespace, "link set eth0 up")
        self._ip(namespace, f"neigh add {node.router} lladdr {node_mac} dev eth0 nud permanent")
        self._ip(namespace, f"route add default via {node.router} dev eth0 onlink")
        if self.ipv6:
            self._ip(namespace, f"addr add {ip6}/128 dev eth0 nodad")
            self._ip(namespace, f"neigh add {node.router6} lladdr {node_mac} dev eth0 nud permanent")
            self._ip(namespace, f"route add default via {node.router6} dev eth0 onlink")
        node.pods.append(pod)
        return pod

    def close(self) -> None:
        """Take everything away."""
        for node in self.nodes:
            for fd in node.links:
                os.close(fd)
            node.datapath.close()
        for namespace in self.namespaces:
            run("ip", "netns", "delete", namespace, check=False)


# Without link-local addresses nobody asks for routers, which would show as drops.
_IPV6 = {
    False: {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"},
    True: {"net.ipv6.conf.default.addr_gen_mode": "1"},
}


def _addresses(node: Node) -> list[str]:
    return [each for each in (node.ip, node.router, node.ip6, node.router6) if each]


def _pod_networks(number: int) -> tuple[str, str]:
    return f"10.244.{number}.0/24", f"fd00:244:{number}::/64"


def _netns_cookie() -> int:
    import socket

    with socket.socket() as probe:
        return int(struct.unpack("<Q", probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])
