"""Ethernet frames for tests, with right checksums, and ICMP errors that quote one another. Both families."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, replace

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
TCP, UDP, ICMP, ICMP6, SCTP = 6, 17, 1, 58, 132
POD_MAC, NODE_MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class Frame:
    """A frame by its meaning; `bytes()` makes it. `quoted` makes it an ICMP error about that frame."""

    source: str
    destination: str
    protocol: int = TCP
    ports: tuple[int, int] = (40000, 8080)
    flags: int = SYN
    payload: bytes = b""
    ttl: int = 64
    icmp: tuple[int, int] | None = None  # type, code; ports[0] is the echo identifier
    quoted: Frame | None = None
    source_mac: str = POD_MAC
    destination_mac: str = NODE_MAC
    fragment: tuple[int, bool] | None = None  # offset in bytes, more to come
    udp_checksum: bool = True

    @property
    def v6(self) -> bool:
        return ":" in self.source

    def but(self, **changes: object) -> Frame:
        """The same with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def answer(self, **changes: object) -> Frame:
        """A packet the other way."""
        icmp = None
        if self.icmp is not None:
            icmp = (129 if self.v6 else 0, 0)
        turned = replace(
            self, source=self.destination, destination=self.source, icmp=icmp,
            ports=self.ports if self.icmp else (self.ports[1], self.ports[0]),
        )  # fmt: skip
        return turned.but(**changes)

    def __bytes__(self) -> bytes:
        kind = 0x86DD if self.v6 else 0x0800
        return _mac(self.destination_mac) + _mac(self.source_mac) + struct.pack("!H", kind) + self.datagram()

    def datagram(self) -> bytes:
        """The IP packet."""
        body = self._layer4()
        source, destination = (ipaddress.ip_address(each).packed for each in (self.source, self.destination))
        offset, more = self.fragment or (0, False)
        if self.fragment:
            body = body[:24] if not offset else bytes(24)
        if self.v6:
            protocol = self.protocol
            if self.fragment:
                body = struct.pack("!BBHI", protocol, 0, offset & ~7 | more, 0x1234) + body
                protocol = 44
            return struct.pack("!IHBB", 0x60000000, len(body), protocol, self.ttl) + source + destination + body
        fragment = offset // 8 | (0x2000 if more else 0)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0x1234, fragment, self.ttl, self.protocol, 0)
        head += source + destination
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body

    def _layer4(self) -> bytes:
        if self.protocol == TCP:
            body = struct.pack("!HHIIBBHHH", *self.ports, 1, 2, 0x50, self.flags, 512, 0, 0) + self.payload
            return self._summed(body, 16)
        if self.protocol == UDP:
            body = struct.pack("!HHHH", *self.ports, 8 + len(self.payload), 0) + self.payload
            return self._summed(body, 6) if self.udp_checksum else body
        if self.protocol in (ICMP, ICMP6):
            kind, code = self.icmp or (128 if self.v6 else 8, 0)
            if self.quoted is not None:
                body = struct.pack("!BBHI", kind, code, 0, 0) + self.quoted.datagram()[: 48 if self.v6 else 28]
            else:
                body = struct.pack("!BBHHH", kind, code, 0, self.ports[0], 7) + self.payload
            return self._summed(body, 2)
        return struct.pack("!HH", *self.ports) + bytes(16)

    def _summed(self, body: bytes, at: int) -> bytes:
        pseudo = b""
        if self.protocol != ICMP:
            source, destination = (ipaddress.ip_address(each).packed for each in (self.source, self.destination))
            pseudo = source + destination + struct.pack("!II", len(body), self.protocol)
        value = checksum(pseudo + body)
        return body[:at] + struct.pack("!H", value or (0xFFFF if self.protocol == UDP else 0)) + body[at + 2 :]


def wrapped(inner: bytes, source: str, destination: str, vni: int, *, port: int = 49152, **fields: object) -> bytes:
    """A frame as VXLAN (RFC 7348) carries it from node to node, without a UDP checksum."""
    vxlan = struct.pack("!II", 0x08000000, vni << 8)
    outer = Frame(source, destination, UDP, (port, 8472), payload=vxlan + inner, udp_checksum=False)
    return bytes(outer.but(**fields))


def arp(sender_mac: str, sender: str, target: str) -> bytes:
    """An ARP request from a pod."""
    ends = _mac(sender_mac) + ipaddress.ip_address(sender).packed + bytes(6) + ipaddress.ip_address(target).packed
    return b"\xff" * 6 + _mac(POD_MAC) + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + ends


def discovery(source: str, destination: str, kind: int, target: str, *, ttl: int = 255) -> bytes:
    """An IPv6 neighbour or router discovery message from a pod."""
    frame = Frame(source, destination, ICMP6, icmp=(kind, 0), ports=(0, 0), ttl=ttl)
    body = struct.pack("!BBHI", kind, 0, 0, 0) + ipaddress.ip_address(target).packed
    summed = frame._summed(body, 2)  # pyright: ignore[reportPrivateUsage]
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    head = struct.pack("!IHBB", 0x60000000, len(summed), ICMP6, ttl) + ends
    return _mac(NODE_MAC) + _mac(POD_MAC) + struct.pack("!H", 0x86DD) + head + summed


def _mac(colons: str) -> bytes:
    return bytes.fromhex(colons.replace(":", ""))
