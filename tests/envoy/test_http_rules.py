"""Random HTTP rules and requests: the real Envoy lets through exactly what the model does, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.envoy.bed import Bed
from tests.envoy.http_random import requests, rules
from tests.envoy.http_traffic import Backend, ask_one, ask_two, snapshot
from tests.oracle.http import allowed

pytestmark = pytest.mark.root

FIRST_SEED = int(os.environ.get("MYCEL_ORACLE_SEED", "1"))


async def compare(folder: Path, sets: int, count: int) -> None:
    """Every answer is the model's, and the server saw what it answered and nothing else."""
    chosen = {f"set{seed}": rules(random.Random(seed)) for seed in range(FIRST_SEED, FIRST_SEED + sets)}
    passed = total = 0
    async with Bed(folder).running() as bed, Backend().at(folder / "server") as server:
        offered = snapshot(folder, chosen)
        bed.offer(offered)
        await bed.settled(offered)
        assert not [each for each in bed.outcomes.values() if each.error]
        for name, these in chosen.items():
            asked = requests(random.Random(name), these, count)
            for protocol, ask in (("h1", ask_one), ("h2", ask_two)):
                half = asked[:: 2 if protocol == "h1" else -2]
                answers = await ask(folder / name, half)
                for request, answer in zip(half, answers, strict=True):
                    expected = allowed(these, request)
                    shown = f"{name} {protocol}: {request} got {answer}, the model says {expected}; rules {these}"
                    assert (answer == 200) == expected, shown
                    passed += expected
                    total += 1
    seen = len(server.requests) + sum(stream.count(b"\r\n\r\n") for stream in server.streams)
    print(f"HTTP rules: seeds {FIRST_SEED}…, {total} requests, {passed} allowed")
    assert seen == passed
    assert total == sets * count
    assert total // 10 < passed < total * 9 // 10


async def test_ten_thousand_requests(tmp_path: Path):
    """10 random sets of rules, 1,000 requests each."""
    await compare(tmp_path, 10, 1_000)


@pytest.mark.long
async def test_sixty_thousand_requests(tmp_path: Path):
    """30 sets, 2,000 requests each."""
    await compare(tmp_path, 30, 2_000)
