"""Numbers as words."""

import pytest

from mycel.flow import text
from tests.unit.flow.samples import address


@pytest.mark.parametrize(
    ("kind", "code", "family", "expected"),
    [
        (8, 0, 4, "ICMPv4 EchoRequest"),
        (0, 0, 4, "ICMPv4 EchoReply"),
        (3, 3, 4, "ICMPv4 DestinationUnreachable(Port)"),
        (11, 0, 4, "ICMPv4 TimeExceeded(TTLExceeded)"),
        (3, 99, 4, "ICMPv4 DestinationUnreachable(99)"),
        (200, 1, 4, "ICMPv4 200(1)"),
        (128, 0, 6, "ICMPv6 EchoRequest"),
        (1, 4, 6, "ICMPv6 DestinationUnreachable(PortUnreachable)"),
    ],
)
def test_icmp(kind: int, code: int, family: int, expected: str) -> None:
    """Types and codes read as in Hubble's summaries."""
    assert text.icmp(kind, code, family=family) == expected


def test_tcp_flags_keep_hubbles_order() -> None:
    """SYN, ACK, RST, FIN, PSH, URG, ECE, CWR, whatever the order of bits."""
    assert text.tcp_flags(0xFF) == "SYN, ACK, RST, FIN, PSH, URG, ECE, CWR"
    assert text.tcp_flags(0x11) == "ACK, FIN"
    assert text.tcp_flags(0) == ""


def test_addresses() -> None:
    """Dotted for IPv4, compressed for IPv6."""
    assert text.address(address("10.0.0.1"), family=4) == "10.0.0.1"
    assert text.address(address("fd00::1"), family=6) == "fd00::1"
    assert text.mac(bytes.fromhex("0a0b0c000102")) == "0a:0b:0c:00:01:02"
    assert text.mac(bytes(6)) == ""


def test_unknown_numbers_stay_visible() -> None:
    """What has no name prints as a number."""
    assert text.drop_reason(99) == "99, 0"
    assert text.identity(70_000) == "ID:70000"
    assert text.ether_type(0x0806) == "ARP"
    assert text.ether_type(0x88B5) == "0x88b5"
