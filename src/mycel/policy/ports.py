"""Ports and ICMP types as manifests write them."""

from __future__ import annotations

import re

from mycel.policy.fields import Field
from mycel.policy.rules import ICMP, ICMPV6, LAST_PORT, PROTOCOLS, SCTP, TCP, UDP, PortMatch

_NAME = re.compile(r"(?=.*[a-z])[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.IGNORECASE)
_WRITTEN = ("TCP", "UDP", "SCTP", "ICMP", "ICMPv6", "VRRP", "IGMP")
_NUMBER = re.compile(r"[0-9]{1,5}")
_TRANSPORTS = (TCP, UDP, SCTP)
_MOST = 40  # ports, or ICMP types, of one entry

# Names of https://www.iana.org/assignments/icmp-parameters and icmpv6-parameters, as Cilium's API writes them.
_ICMP_TYPES = {
    "EchoReply": 0,
    "DestinationUnreachable": 3,
    "Redirect": 5,
    "Echo": 8,
    "EchoRequest": 8,
    "RouterAdvertisement": 9,
    "RouterSelection": 10,
    "TimeExceeded": 11,
    "ParameterProblem": 12,
    "Timestamp": 13,
    "TimestampReply": 14,
    "Photuris": 40,
    "ExtendedEcho Request": 42,
    "ExtendedEchoRequest": 42,
    "ExtendedEcho Reply": 43,
    "ExtendedEchoReply": 43,
}
_ICMPV6_TYPES = {
    "DestinationUnreachable": 1,
    "PacketTooBig": 2,
    "TimeExceeded": 3,
    "ParameterProblem": 4,
    "EchoRequest": 128,
    "EchoReply": 129,
    "MulticastListenerQuery": 130,
    "MulticastListenerReport": 131,
    "MulticastListenerDone": 132,
    "RouterSolicitation": 133,
    "RouterAdvertisement": 134,
    "NeighborSolicitation": 135,
    "NeighborAdvertisement": 136,
    "RedirectMessage": 137,
    "RouterRenumbering": 138,
    "ICMPNodeInformationQuery": 139,
    "ICMPNodeInformationResponse": 140,
    "InverseNeighborDiscoverySolicitation": 141,
    "InverseNeighborDiscoveryAdvertisement": 142,
    "HomeAgentAddressDiscoveryRequest": 144,
    "HomeAgentAddressDiscoveryReply": 145,
    "MobilePrefixSolicitation": 146,
    "MobilePrefixAdvertisement": 147,
    "DuplicateAddressRequestCodeSuffix": 157,
    "DuplicateAddressConfirmationCodeSuffix": 158,
    "ExtendedEchoRequest": 160,
    "ExtendedEchoReply": 161,
}


def cilium_ports(field: Field) -> tuple[PortMatch, ...]:
    """`ports` of one toPorts entry. Empty, or absent: no port at all. Raises PolicyInvalid."""
    items = list(field.items())
    if len(items) > _MOST:
        raise field.fail(f"has {len(items)} ports: at most {_MOST} are allowed, use a range or several entries")
    return tuple(match for item in items for match in _cilium_port(item))


def _cilium_port(field: Field) -> list[PortMatch]:
    field.knows("port", "endPort", "protocol")
    said = field["protocol"].choice("ANY", *_WRITTEN, default="ANY")
    protocols = _TRANSPORTS if said == "ANY" else (PROTOCOLS[said.upper()],)
    port = field["port"]
    if isinstance(port.value, int) and not isinstance(port.value, bool):
        raise port.fail(f'must be a string: "{port.value}"')
    text = port.text("0")
    end = field["endPort"].number(least=0, most=LAST_PORT)
    if not _NUMBER.fullmatch(text):
        if len(text) > 63 or not _NAME.fullmatch(text):
            raise port.fail(f"{text!r} is neither a port from 0 to {LAST_PORT} nor the name of one")
        if any(protocol not in _TRANSPORTS for protocol in protocols):
            raise port.fail(f"{said} has no named ports")
        return [PortMatch(protocol, name=text.lower()) for protocol in protocols]
    first = int(text)
    if first > LAST_PORT:
        raise port.fail(f"{text} is not a port: they go up to {LAST_PORT}")
    if not any(protocol in _TRANSPORTS for protocol in protocols):
        if said not in ("ICMP", "ICMPv6") and first:
            raise port.fail(f"{said} has no ports: leave it out, or say 0")
        return [_numbers(protocol, first, first or LAST_PORT) for protocol in protocols]
    return [_numbers(protocol, first, end or 0) for protocol in protocols]


def _numbers(protocol: int, first: int, last: int) -> PortMatch:
    """A range; one that ends before it begins is its first port, and port 0 alone is every port."""
    if last <= first:
        last = first
    return PortMatch(protocol) if (first, last) == (0, 0) else PortMatch(protocol, first, last)


def icmp_types(field: Field) -> tuple[PortMatch, ...]:
    """`icmps`: lists of `fields`. Raises PolicyInvalid."""
    found: list[PortMatch] = []
    for item in field.items():
        item.knows("fields")
        types = list(item["fields"].items())
        if len(types) > _MOST:
            raise item["fields"].fail(f"has {len(types)} types: at most {_MOST} are allowed")
        for each in types:
            each.knows("family", "type")
            six = each["family"].choice("IPv4", "IPv6", default="IPv4") == "IPv6"
            number = _icmp_type(each["type"], _ICMPV6_TYPES if six else _ICMP_TYPES)
            found.append(PortMatch(ICMPV6 if six else ICMP, number, number))
    return tuple(found)


def _icmp_type(field: Field, names: dict[str, int]) -> int:
    if isinstance(field.value, int) and not isinstance(field.value, bool):
        number = field.number(least=0, most=255)
        assert number is not None
        return number
    text = field.text()
    if _NUMBER.fullmatch(text) and int(text) <= 255:
        return int(text)
    if text not in names:
        known = ", ".join(name for name in names if " " not in name)
        raise field.fail(f"{text!r} is not a type from 0 to 255, nor one of {known}")
    return names[text]


def kubernetes_ports(field: Field) -> tuple[PortMatch, ...] | None:
    """`ports` of a NetworkPolicy's entry; None (all) when it is absent or empty. Raises PolicyInvalid."""
    items = list(field.items())
    return tuple(map(_kubernetes_port, items)) if items else None


def _kubernetes_port(field: Field) -> PortMatch:
    field.knows("protocol", "port", "endPort")
    protocol = PROTOCOLS[field["protocol"].choice("TCP", "UDP", "SCTP", default="TCP")]
    port, end = field["port"], field["endPort"].number(least=1, most=LAST_PORT)
    if port.absent:
        if end is not None:
            raise field["endPort"].fail("needs port, the first of the range")
        return PortMatch(protocol)
    if isinstance(port.value, str):
        if end is not None:
            raise field["endPort"].fail("may not be given with a named port")
        if len(port.value) > 15 or not _NAME.fullmatch(port.value):
            raise port.fail(f"{port.value!r} cannot be the name of a port")
        return PortMatch(protocol, name=port.value.lower())
    first = port.number(least=1, most=LAST_PORT)
    assert first is not None
    if end is not None and end < first:
        raise field["endPort"].fail(f"{end} comes before port {first}")
    return PortMatch(protocol, first, end or first)
