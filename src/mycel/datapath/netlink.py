"""Links, addresses, routes, neighbours and rules of one network namespace, in our own words.

Functions take a `Netlink` first, so the same ones serve the node and a pod's namespace. Names of things
that exist already are no errors where the word is `ensure` or `replace`, and deleting what is gone is none
either.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Collection
from typing import Final, NamedTuple

from mycel.datapath import rtnetlink
from mycel.datapath.rtnetlink import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    Attribute,
    Message,
    Netlink,
    NetlinkRefused,
    attributes,
    text,
    u32,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ROUTE_PROTOCOL: Final = 77  # routes and rules that carry it are ours to delete
_IFLA_GROUP: Final = 27
_GOING_GROUP: Final = 0x6D79  # a device that is in it is about to be deleted
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_IFINFO: Final = struct.Struct("=BxHiII")
_IFADDR: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR: Final = struct.Struct("=BxHiHBB")
_RULE: Final = struct.Struct("=BBBBBBBBI")
KERNEL_PROTOCOL: Final = 2  # RTPROT_KERNEL
MAIN_TABLE, LOCAL_TABLE = 254, 255
KIND_UNICAST, KIND_LOCAL = 1, 2  # RTN_…
SCOPE_GLOBAL, SCOPE_LINK, SCOPE_HOST = 0, 253, 254


class Link(NamedTuple):
    """A network device as the kernel lists it."""

    ifindex: int
    name: str
    kind: str  # "" for hardware
    mtu: int
    mac: bytes
    up: bool
    noarp: bool
    peer: int  # ifindex of a veth's other end, in its own namespace; 0: none
    details: dict[int, bytes]  # IFLA_INFO_DATA


class Route(NamedTuple):
    """A unicast route through a device."""

    destination: Network
    ifindex: int
    gateway: Address | None = None
    source: Address | None = None
    mtu: int = 0
    scope: int = SCOPE_LINK
    onlink: bool = False
    table: int = MAIN_TABLE
    kind: int = KIND_UNICAST
    protocol: int = ROUTE_PROTOCOL


class Rule(NamedTuple):
    """Packets with a mark, or all where `mask` is 0, are looked up in a table; lower priorities are asked first."""

    table: int
    priority: int
    mark: int = 0
    mask: int = 0
    protocol: int = ROUTE_PROTOCOL


def links(netlink: Netlink) -> list[Link]:
    """All devices."""
    body = _IFINFO.pack(0, 0, 0, 0, 0)
    return [_link(reply) for reply in netlink.dump(Message.GETLINK, body, "list network devices")]


def find_link(netlink: Netlink, name: str) -> Link | None:
    """The device called `name`, or None."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attributes([(3, text(name))])
    return _one_link(netlink, body)


def link_by_index(netlink: Netlink, ifindex: int) -> Link | None:
    """The device with this number, or None."""
    return _one_link(netlink, _IFINFO.pack(0, 0, ifindex, 0, 0))


def _one_link(netlink: Netlink, body: bytes) -> Link | None:
    try:
        replies = netlink.get(Message.GETLINK, body, "look a network device up")
    except NetlinkRefused as refused:
        if refused.errno == errno.ENODEV:
            return None
        raise
    return _link(replies[0])


def _link(reply: rtnetlink.Reply) -> Link:
    _, _, ifindex, flags, _ = _IFINFO.unpack_from(reply.body)
    found = reply.attributes(_IFINFO.size)
    info = dict(rtnetlink.parse(found.get(18, b"")))
    return Link(
        ifindex=ifindex,
        name=found[3].rstrip(b"\0").decode(),
        kind=info.get(1, b"").rstrip(b"\0").decode(),
        mtu=int.from_bytes(found.get(4, b""), "little"),
        mac=found.get(1, b""),
        up=bool(flags & _IFF_UP),
        noarp=bool(flags & _IFF_NOARP),
        peer=int.from_bytes(found.get(5, b""), "little"),
        details=dict(rtnetlink.parse(info.get(2, b""))),
    )


def add_veth(
    netlink: Netlink,
    name: str,
    peer: str,
    *,
    mtu: int = 0,
    mac: bytes = b"",
    peer_mac: bytes = b"",
    peer_namespace_fd: int | None = None,
) -> None:
    """Make a pair, both ends down; the peer in another namespace if given one. Raises NetlinkRefused."""
    size = [(4, u32(mtu))] if mtu else []
    near: list[Attribute] = [(3, text(name)), *size, *([(1, mac)] if mac else [])]
    far: list[Attribute] = [(3, text(peer)), *size, *([(1, peer_mac)] if peer_mac else [])]
    if peer_namespace_fd is not None:
        far.append((28, u32(peer_namespace_fd)))
    other = _IFINFO.pack(0, 0, 0, 0, 0) + attributes(far)
    info = attributes([(1, b"veth"), (2, attributes([(1, other)]))])
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attributes([*near, (18, info)])
    netlink.change(Message.NEWLINK, body, f"create veth pair {name}/{peer}", flags=CREATE | EXCLUSIVE)


def add_vxlan(netlink: Netlink, name: str, *, port: int, mtu: int = 0) -> None:
    """Make a collect-metadata VXLAN device (RFC 7348): the programs choose VNI and remote of each packet."""
    options: list[Attribute] = [
        (25, b"\1"),  # IFLA_VXLAN_COLLECT_METADATA
        (15, struct.pack(">H", port)),  # IFLA_VXLAN_PORT
        (7, b"\0"),  # IFLA_VXLAN_LEARNING
        (18, b"\1"),  # IFLA_VXLAN_UDP_CSUM: offloaded, and lets receivers merge segments
        (20, b"\1"),  # IFLA_VXLAN_UDP_ZERO_CSUM6_RX
    ]
    info = attributes([(1, b"vxlan"), (2, attributes(options))])
    size = [(4, u32(mtu))] if mtu else []
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attributes([(3, text(name)), *size, (18, info)])
    netlink.change(Message.NEWLINK, body, f"create VXLAN device {name}", flags=CREATE | EXCLUSIVE)


def set_link(
    netlink: Netlink,
    ifindex: int,
    *,
    up: bool | None = None,
    noarp: bool | None = None,
    mtu: int = 0,
    name: str = "",
    namespace_fd: int | None = None,
) -> None:
    """Change what is given of a device, leave the rest."""
    flags = (_IFF_UP if up else 0) | (_IFF_NOARP if noarp else 0)
    mask = (_IFF_UP if up is not None else 0) | (_IFF_NOARP if noarp is not None else 0)
    items: list[Attribute] = []
    if mtu:
        items.append((4, u32(mtu)))
    if name:
        items.append((3, text(name)))
    if namespace_fd is not None:
        items.append((28, u32(namespace_fd)))
    body = _IFINFO.pack(0, 0, ifindex, flags, mask) + attributes(items)
    netlink.change(Message.NEWLINK, body, f"set up network device {ifindex}")


def delete_link(netlink: Netlink, name: str) -> bool:
    """Delete a device (and a veth's other end); False when there was none."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attributes([(3, text(name))])
    return _gone_is_fine(netlink, Message.DELLINK, body, f"delete network device {name}")


def delete_links(netlink: Netlink, names: Collection[str]) -> None:
    """Delete devices together; those that are gone already are no error.

    One device costs the kernel two waits for all CPUs (some 20 ms), a whole group costs the same two.
    """
    if len(names) == 1:
        delete_link(netlink, next(iter(names)))
        return
    group = (_IFLA_GROUP, u32(_GOING_GROUP))
    for name in names:
        body = _IFINFO.pack(0, 0, 0, 0, 0) + attributes([(3, text(name)), group])
        _gone_is_fine(netlink, Message.NEWLINK, body, f"mark network device {name}")
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attributes([group])
    _gone_is_fine(netlink, Message.DELLINK, body, f"delete {len(names)} network devices")


def _gone_is_fine(netlink: Netlink, message: Message, body: bytes, what: str) -> bool:
    try:
        netlink.change(message, body, what)
    except NetlinkRefused as refused:
        if refused.errno in (errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL):
            return False
        raise
    return True


# ---- addresses


def addresses(netlink: Netlink, ifindex: int = 0) -> list[tuple[int, Interface]]:
    """(ifindex, address/prefix) of all devices or of one."""
    found: list[tuple[int, Interface]] = []
    for reply in netlink.dump(Message.GETADDR, _IFADDR.pack(0, 0, 0, 0, ifindex), "list addresses"):
        _, length, _, _, index = _IFADDR.unpack_from(reply.body)
        parts = reply.attributes(_IFADDR.size)
        raw = parts.get(2) or parts[1]
        found.append((index, ipaddress.ip_interface(f"{ipaddress.ip_address(raw)}/{length}")))
    return found


def ensure_address(netlink: Netlink, ifindex: int, address: Interface) -> None:
    """Give a device an address, without duplicate detection."""
    body = _address_body(ifindex, address, [(8, u32(0x02))] if address.version == 6 else [])
    netlink.change(Message.NEWADDR, body, f"add address {address}", flags=CREATE | REPLACE)


def delete_address(netlink: Netlink, ifindex: int, address: Interface) -> bool:
    """Take an address away; False when it was not there."""
    body = _address_body(ifindex, address, [])
    return _gone_is_fine(netlink, Message.DELADDR, body, f"delete address {address}")


def _address_body(ifindex: int, address: Interface, extra: list[Attribute]) -> bytes:
    head = _IFADDR.pack(_family(address.version), address.network.prefixlen, 0, SCOPE_GLOBAL, ifindex)
    return head + attributes([(2, address.ip.packed), (1, address.ip.packed), *extra])


# ---- routes and rules


def routes(netlink: Netlink, *, protocol: int = ROUTE_PROTOCOL) -> list[Route]:
    """Routes of all tables and families that carry `protocol` (ours, unless said)."""
    found: list[Route] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for reply in netlink.dump(Message.GETROUTE, body, "list routes"):
            _, length, _, _, table, proto, scope, kind, flags = _ROUTE.unpack_from(reply.body)
            if proto != protocol:
                continue
            parts = reply.attributes(_ROUTE.size)
            raw = parts.get(1, bytes(4 if family == socket.AF_INET else 16))
            metrics = dict(rtnetlink.parse(parts.get(8, b"")))
            found.append(
                Route(
                    ipaddress.ip_network((raw, length)),
                    int.from_bytes(parts.get(4, b""), "little"),
                    gateway=ipaddress.ip_address(parts[5]) if 5 in parts else None,
                    source=ipaddress.ip_address(parts[7]) if 7 in parts else None,
                    mtu=int.from_bytes(metrics.get(2, b""), "little"),
                    scope=scope,
                    onlink=bool(flags & 4),
                    table=int.from_bytes(parts[15], "little") if 15 in parts else table,
                    kind=kind,
                    protocol=proto,
                )
            )
    return found


def replace_route(netlink: Netlink, route: Route) -> None:
    """Add a route, or replace the one to that destination."""
    what = f"route {route.destination} through device {route.ifindex}"
    netlink.change(Message.NEWROUTE, _route_body(route), what, flags=CREATE | REPLACE)


def delete_route(netlink: Netlink, route: Route) -> bool:
    """Delete a route; False when it was not there."""
    what = f"delete route {route.destination}"
    body = _route_body(route._replace(mtu=0, source=None))  # the kernel would compare what is given
    return _gone_is_fine(netlink, Message.DELROUTE, body, what)


def _route_body(route: Route) -> bytes:
    items: list[Attribute] = [(4, u32(route.ifindex)), (15, u32(route.table))]
    if route.destination.prefixlen:
        items.append((1, route.destination.network_address.packed))
    if route.gateway is not None:
        items.append((5, route.gateway.packed))
    if route.source is not None:
        items.append((7, route.source.packed))
    if route.mtu:
        items.append((8, attributes([(2, u32(route.mtu))])))
    scope = route.scope if route.destination.version == 4 else 0
    head = _ROUTE.pack(
        _family(route.destination.version),
        route.destination.prefixlen,
        0,
        0,
        min(route.table, 252) if route.table > 255 else route.table,
        route.protocol,
        scope,
        route.kind,
        4 if route.onlink else 0,
    )
    return head + attributes(items)


def ensure_rule(netlink: Netlink, rule: Rule, *, version: int) -> None:
    """Have packets of an IP version looked up in a table (ip rule); a rule that exists is left alone."""
    body = _rule_body(rule, version)
    try:
        netlink.change(Message.NEWRULE, body, f"rule {rule.priority} for table {rule.table}", flags=CREATE | EXCLUSIVE)
    except NetlinkRefused as refused:
        if refused.errno not in (errno.EEXIST, errno.EAFNOSUPPORT):
            raise


def delete_rule(netlink: Netlink, rule: Rule, *, version: int) -> None:
    """Take a rule away, if it is there."""
    body = _rule_body(rule, version)
    try:
        netlink.change(Message.DELRULE, body, f"delete rule {rule.priority} for table {rule.table}")
    except NetlinkRefused as refused:
        if refused.errno not in (errno.ENOENT, errno.EAFNOSUPPORT):
            raise


def _rule_body(rule: Rule, version: int) -> bytes:
    head = _RULE.pack(_family(version), 0, 0, 0, rule.table if rule.table < 256 else 252, 0, 0, 1, 0)
    marked: list[Attribute] = [(10, u32(rule.mark)), (16, u32(rule.mask))] if rule.mask else []
    return head + attributes([(6, u32(rule.priority)), *marked, (15, u32(rule.table)), (21, bytes([rule.protocol]))])


# ---- neighbours


def replace_neighbour(netlink: Netlink, ifindex: int, address: Address, mac: bytes) -> None:
    """Pin the link-layer address of a neighbour for good (NUD_PERMANENT)."""
    head = _NEIGHBOUR.pack(_family(address.version), 0, ifindex, 0x80, 0, 0)
    body = head + attributes([(1, address.packed), (2, mac)])
    netlink.change(Message.NEWNEIGH, body, f"neighbour {address}", flags=CREATE | REPLACE)


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6
