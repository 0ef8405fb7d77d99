"""The peers of the benchmarks: what a plain kernel does between namespaces of the run's own.

Each function is a context manager that yields a `Route`: how to start the server, how to start the
client, and the address to dial. Nothing here knows the mesh.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """A way from a client to a server: command prefixes for either side and the address the client dials."""

    name: str
    client: tuple[str, ...]
    server: tuple[str, ...]
    address: str
    port: int = 7000


def run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:8])}: exit {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[None]:
    """Network namespaces with loopback up; whatever is inside goes with them."""
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def veth(a: str, a_if: str, a_ip: str, b: str, b_if: str, b_ip: str | None) -> None:
    run("ip", "link", "add", a_if, "netns", a, "type", "veth", "peer", "name", b_if, "netns", b)
    for name, link, ip in ((a, a_if, a_ip), (b, b_if, b_ip)):
        if ip:
            run("ip", "-n", name, "addr", "add", ip, "dev", link)
        run("ip", "-n", name, "link", "set", link, "up")


def inside(name: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", name)


def forward(name: str) -> None:
    run(*inside(name), "sysctl", "-qw", "net.ipv4.ip_forward=1")


@contextlib.contextmanager
def direct() -> Iterator[Route]:
    """Two namespaces on one veth pair: the least a packet can cost between two pods."""
    with namespaces("mb-da", "mb-db"):
        veth("mb-da", "e0", "192.168.71.1/24", "mb-db", "e0", "192.168.71.2/24")
        yield Route("direct veth", inside("mb-da"), inside("mb-db"), "192.168.71.2")


@contextlib.contextmanager
def routed(prefix: str = "mb-r") -> Iterator[Route]:
    """Two namespaces and a router between them, no netfilter: what a CNI without policy does."""
    a, r, b = f"{prefix}a", f"{prefix}r", f"{prefix}b"
    with namespaces(a, r, b):
        veth(a, "e0", "192.168.72.1/24", r, "ea", "192.168.72.254/24")
        veth(b, "e0", "192.168.73.1/24", r, "eb", "192.168.73.254/24")
        run("ip", "-n", a, "route", "add", "default", "via", "192.168.72.254")
        run("ip", "-n", b, "route", "add", "default", "via", "192.168.73.254")
        forward(r)
        yield Route("routed veth", inside(a), inside(b), "192.168.73.1")


@contextlib.contextmanager
def conntracked() -> Iterator[Route]:
    """`routed` with the kernel's connection tracking on."""
    with routed("mb-c") as route:
        run(
            *inside("mb-cr"),
            "iptables",
            "-A",
            "FORWARD",
            "-m",
            "conntrack",
            "--ctstate",
            "INVALID",
            "-j",
            "DROP",
        )
        yield Route("routed + conntrack", route.client, route.server, route.address)


@contextlib.contextmanager
def vxlan() -> Iterator[Route]:
    """Two pods, two nodes on a bridge as the cluster's are, VXLAN routed by the kernel between them."""
    with namespaces("mb-va", "mb-v1", "mb-vs", "mb-v2", "mb-vb"):
        veth("mb-va", "e0", "10.71.1.2/24", "mb-v1", "ep", "10.71.1.1/24")
        veth("mb-vb", "e0", "10.71.2.2/24", "mb-v2", "ep", "10.71.2.1/24")
        run("ip", "-n", "mb-vs", "link", "add", "br0", "type", "bridge")
        run("ip", "-n", "mb-vs", "link", "set", "br0", "up")
        for node, port, address in (("mb-v1", "p1", "192.168.74.1/24"), ("mb-v2", "p2", "192.168.74.2/24")):
            veth(node, "eth0", address, "mb-vs", port, None)
            run("ip", "-n", "mb-vs", "link", "set", port, "master", "br0")
        for me, other, mine, theirs, subnet in (
            ("mb-v1", "192.168.74.2", "10.71.0.1/30", "10.71.0.2", "10.71.2.0/24"),
            ("mb-v2", "192.168.74.1", "10.71.0.2/30", "10.71.0.1", "10.71.1.0/24"),
        ):
            run(
                "ip",
                "-n",
                me,
                "link",
                "add",
                "vx",
                "type",
                "vxlan",
                "id",
                "7",
                "remote",
                other,
                "dstport",
                "4789",
                "dev",
                "eth0",
            )
            run("ip", "-n", me, "addr", "add", mine, "dev", "vx")
            run("ip", "-n", me, "link", "set", "vx", "up")
            run("ip", "-n", me, "route", "add", subnet, "via", theirs)
            forward(me)
        for pod, gateway in (("mb-va", "10.71.1.1"), ("mb-vb", "10.71.2.1")):
            run("ip", "-n", pod, "link", "set", "e0", "mtu", "1450")
            run("ip", "-n", pod, "route", "add", "default", "via", gateway)
        yield Route("kernel VXLAN", inside("mb-va"), inside("mb-vb"), "10.71.2.2")


@contextlib.contextmanager
def iptables_services(count: int) -> Iterator[Route]:
    """kube-proxy's way: `count` DNAT rules, the one that is dialled is the last."""
    prefix = "mb-i"
    with routed(prefix) as route:
        rules = [
            f"-A SVC -d 10.97.{i >> 8}.{i & 255}/32 -p tcp --dport 80 -j DNAT --to 192.168.73.9:80"
            for i in range(count - 1)
        ]
        rules.append(f"-A SVC -d 10.99.0.1/32 -p tcp --dport {route.port} -j DNAT --to {route.address}:{route.port}")
        table = "\n".join(["*nat", ":SVC - [0:0]", "-A PREROUTING -j SVC", *rules, "COMMIT", ""])
        run(*inside(f"{prefix}r"), "iptables-restore", stdin=table)
        yield Route(f"iptables, {count} services", route.client, route.server, "10.99.0.1")


@contextlib.contextmanager
def iptables_policy(count: int) -> Iterator[Route]:
    """What a linear list of rules costs: `count` of them in the router, the one that lets the client in is the last."""
    prefix = "mb-p"
    with routed(prefix) as route:
        rules = [
            f"-A FORWARD -s 20.{at >> 16}.{at >> 8 & 255}.{at & 255}/32 -p tcp --dport {1001 + at % 16} -j ACCEPT"
            for at in range(count - 2)
        ]
        rules += ["-A FORWARD -s 192.168.73.0/24 -j ACCEPT", "-A FORWARD -s 192.168.72.0/24 -j ACCEPT"]
        table = "\n".join(["*filter", ":FORWARD DROP", *rules, "COMMIT", ""])
        run(*inside(f"{prefix}r"), "iptables-restore", stdin=table)
        yield Route(f"iptables, {count} rules", route.client, route.server, route.address)
