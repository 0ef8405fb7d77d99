"""Frames that no stack would send: whatever a pod puts on the wire, it is either its own or dropped by name."""

from __future__ import annotations

import random

import pytest

from mycel import abi
from tests.bpf.conftest import DROP, PASS, REDIRECT, Bench
from tests.bpf.frames import ICMP, ICMP6, POD_MAC, SCTP, TCP, UDP
from tests.bpf.rows import addr
from tests.bpf.world import V4, V6, WORLDS

pytestmark = pytest.mark.root

SEED = 20240711
ROUNDS = 1500


def test_mangled_frames(bench: Bench) -> None:
    """Verdict, counter and event agree for every one, and none leaves in another's name."""
    chance = random.Random(SEED)
    destinations = ("other", "remote", "node", "outside", "service", "nobody", "remote_node", "external")
    counted = 0
    for _ in range(ROUNDS):
        world = chance.choice(WORLDS)
        icmp = ICMP6 if world is V6 else ICMP
        frame = world.frame(
            destination=chance.choice(destinations),
            protocol=chance.choice((TCP, UDP, icmp, SCTP)),
            ports=(chance.randrange(65536), chance.choice((80, 8080, 30080, 8472))),
            payload=bytes(chance.randrange(64)),
            fragment=chance.choice((None, None, None, (0, True), (64, False))),
        )
        raw = bytearray(bytes(frame))
        for _ in range(chance.randrange(4)):
            raw[chance.randrange(12, len(raw))] = chance.randrange(256)
        seen = bench.send(bytes(raw[: chance.choice((len(raw), chance.randrange(60, 120)))]))
        drops = [each for each in seen.events if each.kind == abi.EventKind.DROP]
        assert seen.verdict in (PASS, DROP, REDIRECT)
        assert len(drops) == (1 if seen.verdict == DROP else 0)
        counted += 1
        if seen.verdict == DROP:
            continue
        assert raw[6:12] == bytes.fromhex(POD_MAC.replace(":", ""))
        if raw[12:14] == b"\x08\x00":
            assert raw[26:30] == addr(V4.pod)[12:]
        elif raw[12:14] == b"\x86\xdd":
            assert raw[22:38] == addr(V6.pod)
        else:
            pytest.fail(f"not IP and not dropped: {raw.hex()}")
    assert sum(bench.datapath.counters().values()) == counted
    assert bench.datapath.lost() == 0
