"""How long layer 7 is away when its processes are killed: the node's Envoy, and its DNS proxy, one after the other.

    python -m bench.gaps [--kills N]

A client asks on a new connection, and for a name, every 10 ms. A gap is the longest time without an answer around a
kill; what was asked and never answered is counted apart. Needs root: it makes a cluster, and deletes it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.clusters import Cluster, eventually
from tests.e2e.faults import SPACE, dns_proxies, home, outside, prepare, processes, target
from tests.e2e.outside import RESOLVER

APART_S = 4.0
Times = Sequence[tuple[float, float | None]]
"""When something was asked and answered."""


class Gap(NamedTuple):
    """After one kill: the longest silence, and what was asked in those seconds and never answered."""

    gap_s: float
    lost: int


def gap(times: Times, killed_at: float) -> Gap:
    """What one kill did."""
    end = killed_at + APART_S
    answered = sorted(at for _, at in times if at is not None and killed_at < at < end)
    lost = sum(answered is None for asked, answered in times if killed_at - 1 < asked < end - 1)
    return Gap(max(after - before for before, after in pairwise([killed_at, *answered, end])), lost)


def kill(find: Callable[[], list[int]], kills: int) -> list[float]:
    """Kill what is there so many times; returns when."""
    found: list[float] = []
    for _ in range(kills):
        eventually(find, what="a process to kill")
        found.append(time.monotonic())
        os.kill(find()[0], signal.SIGKILL)
        time.sleep(APART_S)
    return found


def show(name: str, gaps: Sequence[Gap], results: dict[str, object]) -> None:
    """One row."""
    lengths = sorted(each.gap_s for each in gaps)
    p99 = statistics.quantiles(lengths, n=100, method="inclusive")[98]
    lost = sum(each.lost for each in gaps)
    results[f"{name} killed"] = {
        "kills": len(gaps),
        "p50_s": round(statistics.median(lengths), 3),
        "p99_s": round(p99, 3),
        "longest_s": round(lengths[-1], 3),
        "never answered": lost,
    }
    print(
        f"{name:10} {len(gaps)} kills: gap p50 {statistics.median(lengths) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms,"
        f" longest {lengths[-1] * 1000:.0f} ms; {lost} never answered"
    )


def bench_gaps(results: dict[str, object], *, kills: int = 20) -> None:
    """The row "gaps" of `make bench`."""
    script = Path(__file__).with_name("gap_client.py").read_text()
    with tempfile.TemporaryDirectory(prefix="mycel-gaps.") as folder:
        cluster = Cluster("gaps", Path(folder), "kubectl")
        try:
            prepare(cluster)
            with outside(cluster):
                node = home(cluster)
                command = ["kubectl", "-n", SPACE, "exec", "-i", "deploy/client2", "--", "python3", "-c", script]
                with subprocess.Popen(
                    [*command, target(cluster, "echo-other-node"), RESOLVER],
                    env=cluster.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                ) as client:
                    assert client.stdout and client.stdout.readline() == "ready\n"
                    time.sleep(2)
                    envoys = kill(lambda: processes(cluster, b"_bin/envoy", node=node), kills)
                    proxies = kill(lambda: dns_proxies(cluster, node), kills)
                    out, _ = client.communicate()
            told = json.loads(out.splitlines()[-1])
            show("Envoy", [gap(told["http"], each) for each in envoys], results)
            show("DNS proxy", [gap(told["dns"], each) for each in proxies], results)
        finally:
            cluster.delete()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.gaps")
    parser.add_argument("--kills", type=int, default=20)
    bench_gaps({}, kills=parser.parse_args().kills)
