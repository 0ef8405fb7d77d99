"""Pairs of measurements in one run: subject and peer in turns, so that a noisy neighbour hits both.

The figure of a row is the median of the pairs' ratios with a 95 % interval by bootstrap;
the run says so when the peer itself drifted by more than a tenth of its median: then the ratio means little.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Route

RR = Path(__file__).parent.parent / "build" / "bench" / "rr"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Subject over peer, as speed: above 1 the subject is faster."""

    median: float
    low: float
    high: float
    subject_us: float
    peer_us: float
    peer_drift: float
    pairs: int


@contextlib.contextmanager
def served(route: Route, *, cpu: int, binary: Path = RR) -> Iterator[None]:
    """The route's server, running until the block ends."""
    process = subprocess.Popen(
        [*route.server, str(binary), "serve", str(route.port), str(cpu)], stdout=subprocess.PIPE, text=True
    )
    try:
        if process.stdout is None or process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{route.name}: the server did not start")
        yield
    finally:
        process.terminate()
        process.wait(5)
        if process.stdout:
            process.stdout.close()


def sample(route: Route, mode: str, *, seconds: float, cpu: int) -> dict[str, float]:
    """One measurement: {"n", "rate", "p50_us", "p99_us", "cpu_us"}."""
    out = subprocess.run(
        [*route.client, str(RR), mode, route.address, str(route.port), str(seconds), str(cpu)],
        capture_output=True, text=True, timeout=seconds + 30, check=False,
    )  # fmt: skip
    if out.returncode:
        raise RuntimeError(f"{route.name} {mode}: {out.stderr.strip()[-300:]}")
    return json.loads(out.stdout)


def interval(values: list[float], *, rounds: int = 2000, seed: int = 1) -> tuple[float, float]:
    """95 % interval of the median, by bootstrap."""
    chance = random.Random(seed)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(rounds))
    return medians[int(rounds * 0.025)], medians[int(rounds * 0.975)]


def compare(subject: Route, peer: Route, mode: str, *, pairs: int, seconds: float, cpu: int) -> Ratio:
    """Median latencies of `pairs` turns of peer and subject; both servers must be up."""

    def once(route: Route) -> Callable[[], float]:
        return lambda: sample(route, mode, seconds=seconds, cpu=cpu)["p50_us"]

    return turns(once(subject), once(peer), pairs=pairs)


def turns(subject: Callable[[], float], peer: Callable[[], float], *, pairs: int) -> Ratio:
    """`pairs` samples of each, in microseconds, in turns (ABBA…)."""
    peers: list[float] = []
    subjects: list[float] = []
    for turn in range(pairs):
        order = ((peer, peers), (subject, subjects))
        for once, found in order if turn % 2 == 0 else order[::-1]:
            found.append(once())
    return compared(subjects, peers)


def compared(subjects: list[float], peers: list[float]) -> Ratio:
    """What samples in turns say."""
    ratios = [p / s for p, s in zip(peers, subjects, strict=True)]
    low, high = interval(ratios)
    centre = statistics.median(peers)
    drift = max(abs(p - centre) for p in peers) / centre
    return Ratio(statistics.median(ratios), low, high, statistics.median(subjects), centre, drift, len(peers))
