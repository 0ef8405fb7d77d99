"""What `from_pod` itself costs, by BPF_PROG_TEST_RUN: without policy, and with sets of up to 16,000 rows.

A packet of a new connection (both policies, one connection written), and of one of 64,000 connections under way. Each
figure is the median of single runs, the kernel's clock around them included; nothing else of the path is.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from pathlib import Path

from bench.peers import namespaces, run, veth
from mycel import abi
from mycel.abi import EndpointFlags, PolicyMatch
from mycel.datapath.testrun import SkbContext, run_skb
from tests.bpf.conftest import KNOBS, REDIRECT
from tests.bpf.frames import ACK, SYN
from tests.bpf.kernel import Datapath
from tests.bpf.lab import inside
from tests.bpf.rows import addr
from tests.bpf.world import OTHER_ID, POD_ID, V4, other_row, pod_row, rows

NAMESPACE = "mb-programs"
FLOWS = 64_000
_POD, _OTHER = 2, 3
_INGRESS, _EGRESS = 1, 2


def _set(size: int, peer: int) -> dict[abi.PolicyKey, abi.PolicyValue]:
    """Rows of other identities on one port each, the last of them for `peer`, whose every port is open."""
    value = abi.PolicyValue(0, 0, 1, 9, PolicyMatch.L3_L4)
    found = {abi.PolicyKey(64, 20_000 + at // 16, 6, 1000 + at % 16): value for at in range(size - 1)}
    return found | {abi.PolicyKey(32, peer, 0, 0): value}


def _ns(datapath: Datapath, frames: list[bytes]) -> float:
    """Median of one run each; all of them must be let through."""
    context, program = SkbContext(ifindex=_POD), datapath.program("from_pod")
    took: list[int] = []
    for at, frame in enumerate(frames):
        done = run_skb(program, frame, context=context)
        if done.verdict != REDIRECT:
            raise RuntimeError(f"from_pod gave verdict {done.verdict} on a packet that policy allows")
        took.append(done.duration_ns)
        if at % 512 == 0:
            datapath.events()  # a full ring would make the programs cheaper
    return statistics.median(took)


def bench_programs(results: dict[str, object]) -> None:
    """Row 6 without the path."""
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, namespaces(NAMESPACE):
        veth(NAMESPACE, "e0", f"{V4.node}/24", NAMESPACE, "e1", None)
        run("ip", "-n", NAMESPACE, "route", "add", "default", "via", V4.underlay_gateway, "dev", "e0")
        run("ip", "netns", "exec", NAMESPACE, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        datapath = Datapath(KNOBS, lock=Path(folder, "rings"), rows=4 * FLOWS)
        try:
            with inside(NAMESPACE):
                for size in (0, 1000, 16_000):
                    figures[f"{size} rows"] = figure = _measure(datapath, size)
                    print(f"{f'6  from_pod with {size} rows, ns':58} {figure}", flush=True)
        finally:
            datapath.close()
    results["from_pod ns"] = figures


def _measure(datapath: Datapath, size: int) -> dict[str, float]:
    datapath.forget()
    datapath.write(rows(_POD, _OTHER))
    if size:
        datapath.write({"policy": {_INGRESS: _set(size, POD_ID), _EGRESS: _set(size, OTHER_ID)}})
        sender = pod_row(_POD, flags=EndpointFlags.ENFORCE_EGRESS, egress_set=_EGRESS)
        receiver = other_row(_OTHER, flags=EndpointFlags.ENFORCE_INGRESS, ingress_set=_INGRESS)
        datapath.write(
            {
                "interfaces": {abi.InterfaceKey(_POD): sender, abi.InterfaceKey(_OTHER): receiver},
                "endpoints": {
                    abi.EndpointKey(addr(V4.pod)): sender,
                    abi.EndpointKey(addr(V4.other)): receiver,
                },
            }
        )
    chance = random.Random(6)
    ports = [(1024 + at % 60_000, 8080 + at // 60_000) for at in range(FLOWS)]
    chance.shuffle(ports)
    new = [bytes(V4.frame(ports=each, flags=SYN)) for each in ports]
    chance.shuffle(ports)
    known = [bytes(V4.frame(ports=each, flags=ACK)) for each in ports]
    found = {"new": _ns(datapath, new), "known": _ns(datapath, known)}
    return found | {"one known": _ns(datapath, known[:1] * 10_000)}
