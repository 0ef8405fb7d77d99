"""What policy costs a connection under way: row 6.

Round trips between two pods whose node holds 1k, 16k and 64k policy rows, of the same between two pods without policy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from bench.measure import compare, served
from bench.subject import NAMESPACE, Cluster, pod

CPU = 0
ROWS_A_SET = 16000


def _wide_policy(name: str, rows: int, number: int) -> dict[str, Any]:
    """A policy for pod `name` that lets the client in and holds that many rows beside: networks times ports."""
    ports = [{"port": str(1001 + 2 * each), "protocol": "TCP"} for each in range(min(16, rows))]
    networks = [f"20.{number}.{at >> 8}.{at & 255}/32" for at in range(rows // len(ports))]
    entries = [{"fromEndpoints": [{}]}, {"fromCIDR": networks, "toPorts": [{"ports": ports}]}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": f"wide-{name}", "namespace": NAMESPACE},
        "spec": {"endpointSelector": {"matchLabels": {"app": name}}, "ingress": entries},
    }


def bench_rows(
    subject: Cluster, args: argparse.Namespace, show: Callable[..., None], results: dict[str, object]
) -> None:
    """Row 6. A set holds 16k rows at most: 64k are those of four pods on the node."""
    here = subject.workers[0]
    pods = ["policed-0", "policed-1", "policed-2", "policed-3"]
    subject.apply(*(pod(name, here) for name in ("free-client", "free", "policed-client", *pods)))
    subject.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    free = subject.route("without policy", "free-client", "free", subject.address("free"))
    judged = subject.route("with policy", "policed-client", pods[0], subject.address(pods[0]))
    with served(free, cpu=CPU), served(judged, cpu=CPU):
        for rows in (0, 1000, ROWS_A_SET, 4 * ROWS_A_SET):
            if rows:
                holders = pods[: max(1, rows // ROWS_A_SET)]
                made = [_wide_policy(name, min(rows, ROWS_A_SET), at) for at, name in enumerate(holders)]
                if rows > 1000:
                    subject.kubectl("-n", NAMESPACE, "delete", "cnp", "--all")
                subject.apply(*made)
                time.sleep(5)
            ratio = compare(judged, free, "rr", pairs=args.pairs, seconds=args.seconds, cpu=CPU)
            show(f"6  RR with {rows} policy rows, of no policy", ratio, results)
