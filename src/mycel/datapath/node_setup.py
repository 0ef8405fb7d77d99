"""The node's own devices, addresses, routes and sysctls, as docs/datapath.md asks for them.

Everything is `ensure`: what is right is left alone, so an agent that starts under traffic changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from mycel.abi import ProxyMark
from mycel.datapath import netlink as nl
from mycel.datapath.errors import DatapathError
from mycel.datapath.netlink import Link, Network, Route, Rule
from mycel.datapath.rtnetlink import Netlink, NetlinkRefused
from mycel.datapath.settings import VXLAN_OVERHEAD, DatapathSettings
from mycel.kit.reconcile import Diff, TargetError
from mycel.model.proxy import UPSTREAM_PORTS

HOST_DEVICE: Final = "cilium_host"
NET_DEVICE: Final = "cilium_net"
VXLAN_DEVICE: Final = "cilium_vxlan"
_IFLA_VXLAN_PORT, _IFLA_VXLAN_METADATA = 15, 25
_SO_NETNS_COOKIE: Final = 71
_LOCAL_PORTS_FIRST: Final = UPSTREAM_PORTS[0]  # IP_LOCAL_PORT_RANGE is cut to this range, and ignored outside of it
_TO_PROXY_TABLE, _OF_PROXY_TABLE = 2004, 2005
_PROXY_RULES: Final = (
    Rule(_TO_PROXY_TABLE, priority=9, mark=int(ProxyMark.TO_PROXY), mask=int(ProxyMark.KIND)),
    Rule(_OF_PROXY_TABLE, priority=10, mark=int(ProxyMark.OF_PROXY), mask=int(ProxyMark.OF_PROXY_MASK)),
)
_LOCAL_FIRST: Final = Rule(nl.LOCAL_TABLE, priority=0, protocol=nl.KERNEL_PROTOCOL)  # as every namespace has it
_LOCAL_AFTER: Final = Rule(nl.LOCAL_TABLE, priority=100)
_EVERYWHERE: Final[tuple[Network, ...]] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_LOOPBACK: Final = 1  # in every network namespace
_IPV6_OVERHEAD: Final = 70
_NODE_PORTS: Final = "30000-32767"


class Devices(NamedTuple):
    """Interface indexes of the node's devices, and what pods may send at most."""

    host: int
    net: int
    vxlan: int
    underlays: tuple[Link, ...]
    pod_mtu: int


def ensure_devices(netlink: Netlink, settings: DatapathSettings) -> Devices:
    """Make what is missing of the node's devices. Raises DatapathError when no device has the node's
    address.
    """
    underlays = find_underlays(netlink, settings)
    overhead = VXLAN_OVERHEAD if settings.node_ipv6 is None else _IPV6_OVERHEAD
    pod_mtu = settings.pod_mtu or min(each.mtu for each in underlays) - overhead
    apply_sysctls(node_sysctls(settings.ipv6, devices=("all", "default")))
    host, net = _ensure_host_pair(netlink)
    vxlan = _ensure_vxlan(netlink, settings.vxlan_port)
    apply_sysctls(node_sysctls(settings.ipv6, devices=(HOST_DEVICE, NET_DEVICE, VXLAN_DEVICE)))
    for link, noarp in ((host, True), (net, True), (vxlan, False)):
        if not link.up or link.noarp != noarp:
            nl.set_link(netlink, link.ifindex, up=True, noarp=noarp)
    _ensure_host_addresses(netlink, host.ifindex, settings)
    return Devices(host.ifindex, net.ifindex, vxlan.ifindex, underlays, pod_mtu)


def find_underlays(netlink: Netlink, settings: DatapathSettings) -> tuple[Link, ...]:
    """Devices that lead to other nodes: those named in the settings, else those with the node's addresses."""
    links = {each.ifindex: each for each in nl.links(netlink)}
    if settings.underlays:
        found = tuple(each for each in links.values() if each.name in settings.underlays)
        missing = set(settings.underlays) - {each.name for each in found}
        if missing:
            raise DatapathError(f"the settings name a device {', '.join(sorted(missing))} that is not there")
        return found
    own = {settings.node_ipv4, settings.node_ipv6}
    indexes = {ifindex for ifindex, address in nl.addresses(netlink) if address.ip in own}
    if not indexes:
        raise DatapathError(f"no device has the node's address {settings.node_ipv4}: check the node's InternalIP")
    return tuple(links[each] for each in sorted(indexes))


def _ensure_host_pair(netlink: Netlink) -> tuple[Link, Link]:
    host, net = nl.find_link(netlink, HOST_DEVICE), nl.find_link(netlink, NET_DEVICE)
    if host is None or net is None or host.peer != net.ifindex:
        for name in (HOST_DEVICE, NET_DEVICE):
            nl.delete_link(netlink, name)
        nl.add_veth(netlink, HOST_DEVICE, NET_DEVICE)
        host, net = nl.find_link(netlink, HOST_DEVICE), nl.find_link(netlink, NET_DEVICE)
    if host is None or net is None:
        raise DatapathError(f"{HOST_DEVICE} was taken away while it was made: does another agent run here?")
    return host, net


def _ensure_vxlan(netlink: Netlink, port: int) -> Link:
    link = nl.find_link(netlink, VXLAN_DEVICE)
    if link is not None:
        right = link.details.get(_IFLA_VXLAN_PORT) == struct.pack(">H", port)
        if link.kind == "vxlan" and right and link.details.get(_IFLA_VXLAN_METADATA, b"\0")[0]:
            return link
        nl.delete_link(netlink, VXLAN_DEVICE)
    nl.add_vxlan(netlink, VXLAN_DEVICE, port=port)
    link = nl.find_link(netlink, VXLAN_DEVICE)
    if link is None:
        raise DatapathError(f"{VXLAN_DEVICE} was taken away while it was made: does another agent run here?")
    return link


def _ensure_host_addresses(netlink: Netlink, ifindex: int, settings: DatapathSettings) -> None:
    wanted: set[nl.Interface] = {ipaddress.ip_interface(settings.router_ipv4)}
    if settings.ipv6 and settings.router_ipv6 is not None:
        wanted.add(ipaddress.ip_interface(settings.router_ipv6))
    wanted |= {ipaddress.ip_interface(each) for each in settings.ingress}
    present = {address for _, address in nl.addresses(netlink, ifindex) if not address.ip.is_link_local}
    for address in sorted(wanted - present, key=str):
        nl.ensure_address(netlink, ifindex, address)
    for address in present - wanted:
        nl.delete_address(netlink, ifindex, address)


# ---- sysctls


def node_sysctls(ipv6: bool, *, devices: Iterable[str]) -> dict[str, str]:
    """Path below /proc/sys/net → value. Reverse path filters would drop what programs redirect."""
    wanted = {"ipv4/ip_forward": "1", "ipv4/tcp_migrate_req": "1"}  # who waits for an Envoy goes over to the next one
    if ipv6:
        wanted["ipv6/conf/all/forwarding"] = "1"
    for device in devices:
        if device in ("all", "default"):
            wanted[f"ipv4/conf/{device}/rp_filter"] = "0"
        else:
            wanted |= quiet_device(device, ipv6=ipv6)
    return wanted


def quiet_device(device: str, *, ipv6: bool) -> dict[str, str]:
    """Sysctls of a device that only carries what others send: no link-local address, so nothing of its own to say."""
    return {
        f"ipv4/conf/{device}/rp_filter": "0",
        f"ipv6/conf/{device}/addr_gen_mode": "1",
        f"ipv6/conf/{device}/disable_ipv6": "0" if ipv6 else "1",
        **({f"ipv4/conf/{device}/accept_local": "1"} if device == NET_DEVICE else {}),  # a proxy, in a node's own name
    }


def apply_sysctls(wanted: Mapping[str, str], *, root: Path = Path("/proc/sys/net")) -> None:
    """Write what differs. A family the kernel does not have is skipped. Raises DatapathError."""
    for name, value in wanted.items():
        path = root / name
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except FileNotFoundError:
            if name.startswith("ipv4/"):
                raise DatapathError(f"sysctl {name} is missing: is /proc/sys mounted?") from None
        except OSError as problem:
            raise DatapathError(
                f"sysctl {name} cannot be set to {value} ({problem.strerror}): the agent must run privileged"
            ) from problem


def reserve_ports(nat_first: int, *, root: Path = Path("/proc/sys/net/ipv4")) -> None:
    """Keep sockets' own ports below those of masquerading, off the NodePorts, and let the proxies have theirs."""
    path = root / "ip_local_port_range"
    low, high = (int(each) for each in path.read_text().split())
    wanted = f"{min(low, _LOCAL_PORTS_FIRST)} {min(high, nat_first - 1)}"
    if path.read_text().split() != wanted.split():
        path.write_text(wanted)
    reserved = root / "ip_local_reserved_ports"
    held = reserved.read_text().strip()
    if _NODE_PORTS not in held.split(","):
        reserved.write_text(",".join(filter(None, (held, _NODE_PORTS))))


# ---- the proxies


def ensure_proxy_routes(netlink: Netlink, devices: Devices, *, ipv6: bool) -> None:
    """Packets assigned to a proxy's socket go up the stack; all that proxies send goes by cilium_host, to from_host.

    Also what they send to the node's own addresses, so the rule of the local table comes after ours.
    """
    for everywhere in _EVERYWHERE if ipv6 else _EVERYWHERE[:1]:
        for route in (_to_proxy(everywhere), _of_proxy(everywhere, devices)):
            nl.replace_route(netlink, route)
        for rule in (_LOCAL_AFTER, *_PROXY_RULES):
            nl.ensure_rule(netlink, rule, version=everywhere.version)
        nl.delete_rule(netlink, _LOCAL_FIRST, version=everywhere.version)


def remove_proxy_routes(netlink: Netlink) -> None:
    """Take those rules away, and the route that no device of ours takes with it; the local table is first again."""
    for everywhere in _EVERYWHERE:
        nl.ensure_rule(netlink, _LOCAL_FIRST, version=everywhere.version)
        for rule in (_LOCAL_AFTER, *_PROXY_RULES):
            nl.delete_rule(netlink, rule, version=everywhere.version)
    for route in nl.routes(netlink):
        if route.table == _TO_PROXY_TABLE:
            nl.delete_route(netlink, route)


def _to_proxy(everywhere: Network) -> Route:
    return Route(everywhere, _LOOPBACK, scope=nl.SCOPE_HOST, table=_TO_PROXY_TABLE, kind=nl.KIND_LOCAL)


def _of_proxy(everywhere: Network, devices: Devices) -> Route:
    return Route(everywhere, devices.host, mtu=devices.pod_mtu, scope=nl.SCOPE_LINK, table=_OF_PROXY_TABLE)


def netns_cookie() -> int:
    """The kernel's number of the network namespace we are in (SO_NETNS_COOKIE, kernel 5.14)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        raw = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return int.from_bytes(raw, "little")


# ---- routes


def cluster_routes(
    networks: Iterable[Network], *, settings: DatapathSettings, devices: Devices
) -> dict[Network, Route]:
    """Routes by which the node's own stack reaches pods, of these networks, and services no socket hook has translated
    (they have a listener): through cilium_host, from the router's address.
    """
    wanted: dict[Network, Route] = {}
    for network in (*networks, *settings.service_networks):
        source = settings.router_ipv4 if network.version == 4 else settings.router_ipv6
        if source is not None and (network.version == 4 or settings.ipv6):
            scope = nl.SCOPE_LINK if network.version == 4 else nl.SCOPE_GLOBAL
            wanted[network] = Route(network, devices.host, source=source, mtu=devices.pod_mtu, scope=scope)
    return wanted


class RouteTarget:
    """The node's routes that carry our protocol number, by destination. A reconcile Target."""

    name = "routes"

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    async def read(self, *, fresh: bool) -> Mapping[Network, Route]:
        """Routes of the main table that are ours."""
        return await asyncio.to_thread(self.dump)

    def dump(self) -> dict[Network, Route]:
        """The same, blocking."""
        return {each.destination: each for each in nl.routes(self._netlink) if each.table == nl.MAIN_TABLE}

    async def apply(self, change: Diff[Network, Route]) -> None:
        """Replace and delete routes. Raises TargetError."""
        try:
            await asyncio.to_thread(self.apply_now, change)
        except NetlinkRefused as refused:
            raise TargetError(str(refused)) from refused

    def apply_now(self, change: Diff[Network, Route]) -> None:
        """The same, blocking. Raises NetlinkRefused."""
        for route in change.upserts.values():
            nl.replace_route(self._netlink, route)
        present = self.dump() if change.deletes else {}
        for destination in change.deletes:
            if destination in present:
                nl.delete_route(self._netlink, present[destination])
