"""What policy costs: row 6.

Round trips and connections between two pods whose node holds 1k, 16k and 64k policy rows, or where a policy names
10,000 prefixes, of the same between two pods without policy; and of a linear list of as many rules in iptables.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable
from typing import Any

from bench import peers
from bench.measure import compare, served
from bench.subject import NAMESPACE, Cluster, pod
from tests.clusters import eventually

CPU = 0
ROWS_A_SET = 16_000
PREFIXES = 10_000
PODS = ("policed-0", "policed-1", "policed-2", "policed-3")
LINEAR = (1000, PREFIXES)


def _policy(name: str, networks: list[str], ports: int) -> dict[str, Any]:
    """A policy for pod `name` that lets the client in and holds rows beside: networks times ports (0: all ports)."""
    others: dict[str, Any] = {"fromCIDR": networks}
    if ports:
        numbers = [{"port": str(1001 + 2 * each), "protocol": "TCP"} for each in range(ports)]
        others["toPorts"] = [{"ports": numbers}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": f"wide-{name}", "namespace": NAMESPACE},
        "spec": {"endpointSelector": {"matchLabels": {"app": name}}, "ingress": [{"fromEndpoints": [{}]}, others]},
    }


def _networks(count: int, number: int) -> list[str]:
    return [f"20.{number}.{at >> 8}.{at & 255}/32" for at in range(count)]


def _cases() -> list[tuple[str, list[dict[str, Any]]]]:
    """A set holds 16k rows at most: 64k are those of four pods on the node."""
    cases: list[tuple[str, list[dict[str, Any]]]] = [("0 policy rows", [])]
    for count in (1000, ROWS_A_SET, 4 * ROWS_A_SET):
        each = min(count, ROWS_A_SET)
        holders = PODS[: count // each]
        made = [_policy(name, _networks(each // 16, at), 16) for at, name in enumerate(holders)]
        cases.append((f"{count} policy rows", made))
    return [*cases, (f"{PREFIXES} prefixes", [_policy(PODS[0], _networks(PREFIXES, 9), 0)])]


def _enforced(subject: Cluster, node: str, count: int) -> bool:
    found = json.loads(subject.kubectl("-n", NAMESPACE, "get", "cnp", "-o", "json"))["items"]
    done = 0
    for each in found:
        said = (each.get("status") or {}).get("nodes", {}).get(node, {})
        done += bool(said.get("enforcing")) and said["observedGeneration"] == each["metadata"]["generation"]
    return done == len(found) == count


def bench_rows(
    subject: Cluster, args: argparse.Namespace, show: Callable[..., None], results: dict[str, object]
) -> None:
    """Row 6."""
    here = subject.workers[0]
    subject.apply(*(pod(name, here) for name in ("free-client", "free", "policed-client", *PODS)))
    subject.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    free = subject.route("without policy", "free-client", "free", subject.address("free"))
    judged = subject.route("with policy", "policed-client", PODS[0], subject.address(PODS[0]))
    turns = {"pairs": args.pairs, "seconds": args.seconds, "cpu": CPU}
    with contextlib.ExitStack() as stack:
        for route in (free, judged):
            stack.enter_context(served(route, cpu=CPU))
        for title, made in _cases():
            subject.kubectl("-n", NAMESPACE, "delete", "cnp", "--all")
            if made:
                subject.apply(*made)
            eventually(lambda made=made: _enforced(subject, here, len(made)), timeout_s=60, what=f"{title} enforced")
            for mode in ("rr", "crr"):
                show(f"6  {mode.upper()} with {title}, of no policy", compare(judged, free, mode, **turns), results)
        for count in LINEAR:
            with peers.iptables_policy(count) as linear, served(linear, cpu=CPU):
                ratio = compare(judged, linear, "rr", **turns)
                show(f"6  RR with {PREFIXES} prefixes, of {count} iptables rules", ratio, results)
