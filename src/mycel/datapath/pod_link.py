"""The pair of devices between a pod and its node: made, furnished and taken away for CNI.

All functions block for a few milliseconds: call them from a thread. The order is CNI's safety: make the
pair (down), attach programs and write the pod's row, then `furnish` the pod's side and set the node's side
up.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from mycel.datapath import netlink as nl
from mycel.datapath.errors import DatapathError
from mycel.datapath.netlink import Address, Link, Route
from mycel.datapath.node_setup import apply_sysctls, quiet_device
from mycel.datapath.rtnetlink import Netlink, call_in

DEVICE_PREFIX: Final = "lxc"


class PodLink(NamedTuple):
    """A pair: the node's side by index, name and MAC, and the pod's MAC."""

    ifindex: int
    name: str
    node_mac: bytes
    mac: bytes


def device_name(container_id: str, ifname: str) -> str:
    """The node side's name for a pod's interface: the same for the same attachment, so CNI may retry."""
    digest = hashlib.sha256(f"{container_id}/{ifname}".encode()).hexdigest()
    return DEVICE_PREFIX + digest[:12]


def make_pair(netlink: Netlink, name: str, *, namespace_fd: int, ifname: str, mtu: int) -> PodLink:
    """A fresh pair, both sides down, the pod's side in its namespace. A leftover of that name is replaced."""
    nl.delete_link(netlink, name)
    node_mac, mac = random_mac(), random_mac()
    nl.add_veth(netlink, name, ifname, mtu=mtu, mac=node_mac, peer_mac=mac, peer_namespace_fd=namespace_fd)
    link = nl.find_link(netlink, name)
    if link is None:
        raise DatapathError(f"device {name} was taken away while it was made: retry the pod")
    return PodLink(link.ifindex, name, node_mac, mac)


def furnish(
    link: PodLink, *, namespace_fd: int, ifname: str, addresses: Iterable[Address], routers: Iterable[Address]
) -> None:
    """Inside the pod: addresses, the default routes, the routers as permanent neighbours, devices up: now it talks.

    A pod without an IPv6 address gets no IPv6 at all, or its router solicitations would show as drops.
    """
    own, gateways = tuple(addresses), tuple(routers)
    ipv6 = any(address.version == 6 for address in own)

    def inside() -> None:
        devices = ("all", "default", "lo", ifname)
        apply_sysctls({f"ipv6/conf/{each}/disable_ipv6": "0" if ipv6 else "1" for each in devices})
        with Netlink() as netlink:
            device = nl.find_link(netlink, ifname)
            if device is None:
                raise DatapathError(f"the pod has no device {ifname}: it was taken away while it was set up")
            nl.set_link(netlink, 1, up=True)
            for address in own:
                nl.ensure_address(netlink, device.ifindex, ipaddress.ip_interface(address))
            nl.set_link(netlink, device.ifindex, up=True)
            for router in gateways:
                nl.replace_neighbour(netlink, device.ifindex, router, link.node_mac)
                everything = ipaddress.ip_network("0.0.0.0/0" if router.version == 4 else "::/0")
                nl.replace_route(
                    netlink,
                    Route(everything, device.ifindex, gateway=router, scope=nl.SCOPE_GLOBAL, onlink=True),
                )

    call_in(namespace_fd, inside)


def set_up(netlink: Netlink, link: PodLink, *, ipv6: bool) -> None:
    """Set the node's side up, after its program is attached and before the pod's side is.

    A device that comes up without a carrier gets its queue later, by the kernel's link watch, and loses what is sent
    until then: the pod's first packet.
    """
    apply_sysctls(quiet_device(link.name, ipv6=ipv6))
    nl.set_link(netlink, link.ifindex, up=True)


def delete_pair(netlink: Netlink, name: str) -> bool:
    """Take a pair away by its node side's name; False when it was gone."""
    return nl.delete_link(netlink, name)


def delete_pairs(netlink: Netlink, names: Collection[str]) -> None:
    """Take many pairs away at once; those that are gone are no error."""
    nl.delete_links(netlink, names)


def pod_devices(netlink: Netlink) -> dict[str, Link]:
    """Every node side there is, by name."""
    return {each.name: each for each in nl.links(netlink) if each.name.startswith(DEVICE_PREFIX)}


def random_mac() -> bytes:
    """A locally administered unicast address (IEEE 802, bit 1 set and bit 0 clear of the first byte)."""
    raw = bytearray(os.urandom(6))
    raw[0] = raw[0] & 0xFC | 0x02
    return bytes(raw)


def open_namespace(path: str | os.PathLike[str]) -> int:
    """A descriptor of the network namespace at `path`. Raises DatapathError when it is gone."""
    try:
        return os.open(Path(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        raise DatapathError(f"network namespace {os.fspath(path)}: {problem.strerror}") from problem
