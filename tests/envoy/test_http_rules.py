"""Random HTTP rules and requests: the real Envoy lets through exactly what the model does, with the headers it says.

Over HTTP/1.1 and HTTP/2, with values of headers in rules and in Secrets.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from mycel.envoy.resources import LISTENER
from tests.envoy.bed import Bed
from tests.envoy.http_random import HEADERS, SECRETS, requests, rules
from tests.envoy.http_traffic import Backend, ask_one, ask_two, held, snapshot
from tests.oracle.http import Request, allowed, sent_on

pytestmark = pytest.mark.root

NUMBER = "x-number"
FIRST_SEED = int(os.environ.get("MYCEL_ORACLE_SEED", "1"))


async def compare(folder: Path, sets: int, count: int) -> None:
    """Every answer is the model's, and the server saw what it answered, with the model's headers, and nothing else."""
    seeds = range(FIRST_SEED, FIRST_SEED + sets)  # of which every other makes rules that routes decide
    chosen = {f"set{seed}": rules(random.Random(seed), plain=seed % 2 == 0) for seed in seeds}
    wanted: dict[str, tuple[str, Request, list[tuple[str, str]]]] = {}  # by number, of those that pass
    total = 0
    async with Bed(folder).running() as bed, Backend().at(folder / "server") as server:
        offered = snapshot(folder, chosen, secrets=held(SECRETS))
        bed.offer(offered)
        await bed.settled({LISTENER: offered[LISTENER]})
        assert not [each for each in bed.outcomes.values() if each.error]
        for name, these in chosen.items():
            asked = requests(random.Random(name), these, count)
            for protocol, ask in (("h1", ask_one), ("h2", ask_two)):
                half = [
                    each._replace(headers=(*each.headers, (NUMBER, f"{protocol}-{name}-{place}")))
                    for place, each in enumerate(asked[:: 2 if protocol == "h1" else -2])
                ]
                answers = await ask(folder / name, half)
                for request, answer in zip(half, answers, strict=True):
                    expected = allowed(these, request, SECRETS)
                    shown = f"{name} {protocol}: {request} got {answer}, the model says {expected}; rules {these}"
                    assert (answer == 200) == expected, shown
                    if expected:
                        wanted[request.headers[-1][1]] = name, request, sent_on(these, request, SECRETS)
                    total += 1
    came = 0
    changed = 0
    for headers in server.received:
        number = next((value for name, value in headers if name == NUMBER), None)
        if number is not None:
            name, request, expected = wanted[number]
            got, say = (by_name(each) for each in (headers, expected))
            assert got == say, f"{name}: {request} came as {got}, the model says {say}; rules {chosen[name]}"
            changed += say != by_name((name.lower(), value.strip(" \t")) for name, value in request.headers)
            came += 1
    print(f"HTTP rules: seeds {FIRST_SEED}…, {total} requests, {came} allowed, {changed} of them changed")
    assert came == len(wanted)
    assert total == sets * count
    assert total // 10 < came < total * 9 // 10
    assert changed > total // 50


def by_name(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The values of each header that rules are about."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if name in {each.lower() for each in HEADERS}:
            found.setdefault(name, []).append(value)
    return found


async def test_ten_thousand_requests(tmp_path: Path):
    """10 random sets of rules, 1,000 requests each."""
    await compare(tmp_path, 10, 1_000)


@pytest.mark.long
async def test_sixty_thousand_requests(tmp_path: Path):
    """30 sets, 2,000 requests each."""
    await compare(tmp_path, 30, 2_000)
