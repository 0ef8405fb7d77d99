"""Numbers as the words that Hubble's clients print: addresses, TCP flags, ICMP types, drop reasons.

The drop reason texts are those of the stock client, so that `--type drop` reads the same everywhere.
"""

import ipaddress

_V4_MAPPED = bytes(10) + b"\xff\xff"

TCP_FLAGS = (
    ("SYN", 2),
    ("ACK", 16),
    ("RST", 4),
    ("FIN", 1),
    ("PSH", 8),
    ("URG", 32),
    ("ECE", 64),
    ("CWR", 128),
)
"""Name and bit on the wire (RFC 9293, 3.1), in the order in which flags are printed."""

TRACE_POINTS = {
    0: "to-endpoint",
    1: "to-proxy",
    2: "to-host",
    3: "to-stack",
    4: "to-overlay",
    5: "from-endpoint",
    6: "from-proxy",
    7: "from-host",
    8: "from-stack",
    9: "from-overlay",
    10: "from-network",
    11: "to-network",
    12: "from-crypto",
    13: "to-crypto",
}

POLICY_MATCHES = {0: "none", 1: "L3-Only", 2: "L3-L4", 3: "L4-Only", 4: "all", 5: "L3-Proto", 6: "Proto-Only"}

RESERVED_IDENTITIES = {
    0: "unknown",
    1: "host",
    2: "world",
    3: "unmanaged",
    4: "health",
    5: "init",
    6: "remote-node",
    7: "kube-apiserver",
    8: "ingress",
    9: "world-ipv4",
    10: "world-ipv6",
    11: "encrypted-overlay",
}

DROP_REASONS = {
    130: "Invalid source mac",
    131: "Invalid destination mac",
    132: "Invalid source ip",
    133: "Policy denied",
    134: "Invalid packet",
    135: "CT: Truncated or invalid header",
    136: "Fragmentation needed",
    137: "CT: Unknown L4 protocol",
    138: "CT: Can't create entry from packet",
    139: "Unsupported L3 protocol",
    140: "Missed tail call",
    141: "Error writing to packet",
    142: "Unknown L4 protocol",
    143: "Unknown ICMPv4 code",
    144: "Unknown ICMPv4 type",
    145: "Unknown ICMPv6 code",
    146: "Unknown ICMPv6 type",
    147: "Error retrieving tunnel key",
    148: "Error retrieving tunnel options",
    149: "Invalid Geneve option",
    150: "Unknown L3 target address",
    151: "Stale or unroutable IP",
    152: "No matching local container found",
    153: "Error while correcting L3 checksum",
    154: "Error while correcting L4 checksum",
    155: "CT: Map insertion failed",
    156: "Invalid IPv6 extension header",
    157: "IP fragmentation not supported",
    158: "Service backend not found",
    160: "No tunnel/encapsulation endpoint (datapath BUG!)",
    161: "NAT 46/64 not enabled",
    162: "Reached EDT rate-limiting drop horizon",
    163: "Unknown connection tracking state",
    164: "Local host is unreachable",
    165: "No configuration available to perform policy decision",
    166: "Unsupported L2 protocol",
    167: "No mapping for NAT masquerade",
    168: "Unsupported protocol for NAT masquerade",
    169: "FIB lookup failed",
    170: "Encapsulation traffic is prohibited",
    171: "Invalid identity",
    172: "Unknown sender",
    173: "NAT not needed",
    174: "Is a ClusterIP",
    175: "First logical datagram fragment not found",
    176: "Forbidden ICMPv6 message",
    177: "Denied by LB src range check",
    178: "Socket lookup failed",
    179: "Socket assign failed",
    180: "Proxy redirection not supported for protocol",
    181: "Policy denied by denylist",
    182: "VLAN traffic disallowed by VLAN filter",
    183: "Incorrect VNI from VTEP",
    184: "Failed to update or lookup TC buffer",
    185: "No SID was found for the IP address",
    186: "SRv6 state was removed during tail call",
    187: "L3 translation from IPv4 to IPv6 failed (NAT46)",
    188: "L3 translation from IPv6 to IPv4 failed (NAT64)",
    189: "Authentication required",
    190: "No conntrack map found",
    191: "No nat map found",
    192: "Invalid ClusterID",
    193: "Unsupported packet protocol for DSR encapsulation",
    194: "No egress gateway found",
    195: "Traffic is unencrypted",
    196: "TTL exceeded",
    197: "No node ID found",
    198: "Rate limited",
    199: "IGMP handled",
    200: "IGMP subscribed",
    201: "Multicast handled",
    202: "Host datapath not ready",
    203: "Endpoint policy program not available",
    204: "No Egress IP configured",
    205: "Punt to proxy",
    220: "Only the proxy may send this",
}

_ICMP4_TYPES = {
    0: "EchoReply",
    3: "DestinationUnreachable",
    4: "SourceQuench",
    5: "Redirect",
    8: "EchoRequest",
    9: "RouterAdvertisement",
    10: "RouterSolicitation",
    11: "TimeExceeded",
    12: "ParameterProblem",
    13: "TimestampRequest",
    14: "TimestampReply",
    15: "InfoRequest",
    16: "InfoReply",
    17: "AddressMaskRequest",
    18: "AddressMaskReply",
}
_ICMP4_CODES = {
    (3, 0): "Net",
    (3, 1): "Host",
    (3, 2): "Protocol",
    (3, 3): "Port",
    (3, 4): "FragmentationNeeded",
    (3, 5): "SourceRoutingFailed",
    (3, 6): "NetUnknown",
    (3, 7): "HostUnknown",
    (3, 8): "SourceIsolated",
    (3, 9): "NetAdminProhibited",
    (3, 10): "HostAdminProhibited",
    (3, 11): "NetTOS",
    (3, 12): "HostTOS",
    (3, 13): "CommAdminProhibited",
    (3, 14): "HostPrecedence",
    (3, 15): "PrecedenceCutoff",
    (5, 0): "Net",
    (5, 1): "Host",
    (5, 2): "TOS+Net",
    (5, 3): "TOS+Host",
    (11, 0): "TTLExceeded",
    (11, 1): "FragmentReassemblyTimeExceeded",
    (12, 0): "PointerIndicatesError",
    (12, 1): "MissingOption",
    (12, 2): "BadLength",
}
_ICMP6_TYPES = {
    1: "DestinationUnreachable",
    2: "PacketTooBig",
    3: "TimeExceeded",
    4: "ParameterProblem",
    128: "EchoRequest",
    129: "EchoReply",
    133: "RouterSolicitation",
    134: "RouterAdvertisement",
    135: "NeighborSolicitation",
    136: "NeighborAdvertisement",
    137: "Redirect",
    143: "MLDv2MulticastListenerReportMessageV2",
}
_ICMP6_CODES = {
    (1, 0): "NoRouteToDst",
    (1, 1): "AdminProhibited",
    (1, 2): "BeyondScopeOfSrc",
    (1, 3): "AddressUnreachable",
    (1, 4): "PortUnreachable",
    (1, 5): "SrcAddressFailedPolicy",
    (1, 6): "RejectRouteToDst",
    (3, 0): "HopLimitExceeded",
    (3, 1): "FragmentReassemblyTimeExceeded",
    (4, 0): "ErroneousHeader",
    (4, 1): "UnrecognizedNextHeader",
    (4, 2): "UnrecognizedIPv6Option",
}
_ETHER_TYPES = {0x0806: "ARP", 0x8035: "RARP", 0x88CC: "LLDP", 0x8100: "Dot1Q"}


def address(octets: bytes, *, family: int) -> str:
    """16 bytes as text: dotted for `family` 4, RFC 5952 for 6."""
    if family == 4 or octets.startswith(_V4_MAPPED):
        return ".".join(map(str, octets[12:]))
    return str(ipaddress.IPv6Address(octets))


def mac(octets: bytes) -> str:
    """Six bytes as `02:00:00:00:00:01`, empty for all zero."""
    return octets.hex(":") if any(octets) else ""


def tcp_flags(bits: int) -> str:
    """`SYN, ACK` for the bits of the wire."""
    return ", ".join(name for name, bit in TCP_FLAGS if bits & bit)


def icmp(kind: int, code: int, *, family: int) -> str:
    """`ICMPv4 DestinationUnreachable(Port)`; unknown ones as numbers."""
    types, codes = (_ICMP4_TYPES, _ICMP4_CODES) if family == 4 else (_ICMP6_TYPES, _ICMP6_CODES)
    prefix = f"ICMPv{family} "
    if (name := types.get(kind)) is None:
        return f"{prefix}{kind}({code})"
    if (detail := codes.get((kind, code))) is not None:
        return f"{prefix}{name}({detail})"
    # The types with codes of their own say an unknown one; for the others 0 is no news.
    return f"{prefix}{name}({code})" if code or any(known == kind for known, _ in codes) else prefix + name


def ether_type(number: int) -> str:
    """Name of what is not IP, `ARP`; unknown ones as 0x88b5."""
    return _ETHER_TYPES.get(number, f"0x{number:04x}" if number else "")


def drop_reason(number: int) -> str:
    """Text of a drop reason; a number nobody knows prints as the stock client does."""
    return DROP_REASONS.get(number, f"{number}, 0")


def identity(number: int) -> str:
    """`world` for reserved identities, `ID:1234` for others."""
    return RESERVED_IDENTITIES.get(number, f"ID:{number}")
