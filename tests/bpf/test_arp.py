"""Addresses of services this node announces: the program answers questions for them, the stack all others."""

from __future__ import annotations

import struct

import pytest

from mycel import abi
from tests.bpf.conftest import PASS, REDIRECT, Bench
from tests.bpf.rows import addr, mac

pytestmark = pytest.mark.root

ASKER, OURS, SERVICE = "02:00:00:00:00:99", "02:00:00:00:00:42", "172.18.255.200"


def packet(
    *,
    operation: int = 1,
    sender: str = ASKER,
    asks: str = "172.18.0.1",
    target: str = SERVICE,
    to: str = "ff:ff:ff:ff:ff:ff",
    protocol: int = 0x0800,
) -> bytes:
    """Who has `target`? Tell `asks`."""
    ends = mac(sender) + addr(asks)[12:] + bytes(6) + addr(target)[12:]
    return mac(to) + mac(sender) + struct.pack("!HHHBBH", 0x0806, 1, protocol, 6, 4, operation) + ends


def answer() -> bytes:
    """`SERVICE` is at our MAC, said to the asker alone."""
    ends = mac(OURS) + addr(SERVICE)[12:] + mac(ASKER) + addr("172.18.0.1")[12:]
    return mac(ASKER) + mac(OURS) + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 2) + ends


@pytest.mark.parametrize(
    ("frame", "answered"),
    [
        (packet(), True),
        (packet(to=OURS), True),
        (packet(target="172.18.255.201"), False),
        (packet(operation=2), False),
        (packet(asks=SERVICE), False),  # somebody says it is his
        (packet(sender="03:00:00:00:00:99"), False),
        (packet(protocol=0x86DD), False),
        (packet()[:40], False),
        (packet() + bytes(18), True),  # as short frames are padded
    ],
)
def test_questions(bench: Bench, frame: bytes, answered: bool) -> None:
    bench.write({"announced": {abi.AnnouncedKey(addr(SERVICE), bench.pod): abi.AnnouncedValue(mac(OURS))}})
    seen = bench.send(frame, "from_network")
    assert (seen.verdict, seen.points) == (REDIRECT if answered else PASS, [])
    assert seen.frame == (answer() + frame[42:] if answered else frame)


def test_an_address_announced_at_another_device_is_not_ours_here(bench: Bench) -> None:
    bench.write({"announced": {abi.AnnouncedKey(addr(SERVICE), bench.other): abi.AnnouncedValue(mac(OURS))}})
    assert bench.send(packet(), "from_network").verdict == PASS
