"""`make bench`: every row a ratio of one run, subject and peer in turns; writes bench/results.json too.

    python -m bench [--row NAME …] [--pairs N] [--seconds S] [--services N …]

Needs root and the installed project. Client and server of a pair share one CPU, so that what is
compared is the path and not the scheduler; the other CPU is left to the control plane.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from bench import dns, envoys, gaps, layer7, peers, policy, programs, propagation
from bench.idle import idle_cores
from bench.measure import RR, Ratio, compare, served
from bench.subject import NAME, Cluster, cluster, endpoint_slice, pod, service

HERE = Path(__file__).parent
DEMO = HERE.parent / "examples" / "cilium-test.yaml"
CPU = 0
BARE = {  # without the cluster of the others
    "policy-programs": programs.bench_programs,
    "policy-propagation": propagation.bench_propagation,
    "policy-load": propagation.bench_load,
    "gaps": gaps.bench_gaps,
    "dns": dns.bench_dns,
}
ENVOYS = {"policy-ack": envoys.bench_ack, "envoy-memory": envoys.bench_memory}  # likewise
ROWS = ("same-node", "cross-node", "services", "policy", "layer7", "idle", *BARE, *ENVOYS)


def build() -> None:
    RR.parent.mkdir(parents=True, exist_ok=True)
    for tool in (RR, layer7.HTTP):
        source = HERE / f"{tool.name}.c"
        subprocess.run(["clang-19", "-O2", "-Wall", "-Werror", "-o", str(tool), str(source)], check=True)


def show(name: str, ratio: Ratio, results: dict[str, object]) -> None:
    results[name] = dataclasses.asdict(ratio)
    note = "  (peer drifted)" if ratio.peer_drift > 0.1 else ""
    print(
        f"{name:58} {ratio.median:5.2f}x  [{ratio.low:.2f}, {ratio.high:.2f}]"
        f"  {ratio.subject_us:6.1f} us against {ratio.peer_us:6.1f}{note}",
        flush=True,
    )


def start_pods(subject: Cluster) -> None:
    near, far = subject.workers[0], subject.workers[1]
    subject.apply(pod("client", near), pod("near", near), pod("far", far))
    subject.kubectl("-n", "bench", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")


def bench_paths(subject: Cluster, results: dict[str, object], args: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        made = {
            make.__name__: stack.enter_context(make())
            for make in (peers.direct, peers.routed, peers.conntracked, peers.vxlan)
        }
        for route in made.values():
            stack.enter_context(served(route, cpu=CPU))
        near = subject.route("same node", "client", "near", subject.address("near"))
        far = subject.route("other node", "client", "far", subject.address("far"))
        for route in (near, far):
            stack.enter_context(served(route, cpu=CPU))
        pairs = {
            "same-node": [
                ("1  same-node RR, of routed veth", near, "routed", "rr"),
                ("1  same-node RR, of direct veth", near, "direct", "rr"),
                ("2  same-node CRR, of routed veth + conntrack", near, "conntracked", "crr"),
                ("2  same-node CRR, of direct veth", near, "direct", "crr"),
            ],
            "cross-node": [
                ("3  cross-node RR, of kernel VXLAN", far, "vxlan", "rr"),
                ("3  cross-node CRR, of kernel VXLAN", far, "vxlan", "crr"),
            ],
        }
        for row, entries in pairs.items():
            for title, route, peer, mode in entries if row in args.row else ():
                ratio = compare(
                    route,
                    made[peer],
                    mode,
                    pairs=args.pairs,
                    seconds=args.seconds,
                    cpu=CPU,
                )
                show(title, ratio, results)


def bench_services(subject: Cluster, results: dict[str, object], args: argparse.Namespace) -> None:
    """Row 5. Other services have four backends nobody dials, the one dialled has four times the same pod."""
    backend = subject.address("near")
    subject.apply(service("dialled", "10.96.200.1", 7000), endpoint_slice("dialled", [backend], 7000))
    near = subject.route("ClusterIP", "client", "near", "10.96.200.1")
    made, first = 1, None
    with peers.routed("mb-f") as steady, served(steady, cpu=CPU), served(near, cpu=CPU):
        for count in args.services:
            fillers: list[dict[str, object]] = []
            for i in range(made, count):
                name = f"filler-{i}"
                fillers.append(service(name, f"10.96.{100 + (i >> 8)}.{i & 255}", 80))
                fillers.append(endpoint_slice(name, [f"10.244.250.{j}" for j in range(1, 5)], 80))
            for at in range(0, len(fillers), 2000):
                subject.apply(*fillers[at : at + 2000])
            made = count
            time.sleep(3 if count > 1 else 1)  # the agents take the last of them in
            with peers.iptables_services(count) as peer, served(peer, cpu=CPU):
                ratio = compare(
                    near,
                    peer,
                    "crr",
                    pairs=args.pairs,
                    seconds=args.seconds,
                    cpu=CPU,
                )
                show(f"5  ClusterIP CRR at {count} services, of iptables", ratio, results)
            own = compare(
                near,
                steady,
                "crr",
                pairs=args.pairs,
                seconds=args.seconds,
                cpu=CPU,
            )
            show(f"5  ClusterIP CRR at {count} services, of routed veth", own, results)
            if first is None:
                first = own
            else:
                flatness = own.median / first.median
                results[f"5  flatness {count}"] = flatness
                print(f"{f'5  CRR at {count} services, of CRR at 1':58} {flatness:5.2f}x", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--row", action="append", choices=ROWS, help="only these rows")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--services", type=int, nargs="+", default=[1, 1000, 10000])
    args = parser.parse_args()
    args.row = args.row or list(ROWS)
    if os.geteuid() != 0:
        print("the benchmarks make network namespaces: run them as root", file=sys.stderr)
        return 2
    build()
    results: dict[str, object] = {"kernel": platform.release(), "cpus": os.cpu_count(), "pairs": args.pairs}
    for row in (row for row in BARE if row in args.row):
        BARE[row](results)
    for row in (row for row in ENVOYS if row in args.row):
        ENVOYS[row](args, show, results)
    if set(args.row) <= {*BARE, *ENVOYS}:
        print(json.dumps(results))
    else:
        bench_cluster(results, args)
    kept = HERE / "results.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    kept.write_text(json.dumps(known | results, indent=1) + "\n")  # rows that were not asked for stay
    return 0


def bench_cluster(results: dict[str, object], args: argparse.Namespace) -> None:
    """Rows that need a cluster."""
    with cluster(DEMO) as subject:
        print(
            f"from nothing to the first curl: {subject.seconds_to_first_curl} s  {subject.seconds}",
            flush=True,
        )
        results["seconds to first curl"] = {"total": subject.seconds_to_first_curl, **subject.seconds}
        if "idle" in args.row:
            results["idle"] = idle = idle_cores(NAME)
            print(f"idle over {idle['seconds']} s: {idle['cores']} cores in all  {idle['by process']}")
        start_pods(subject)
        bench_paths(subject, results, args)
        if "services" in args.row:
            bench_services(subject, results, args)
        if "layer7" in args.row:
            layer7.bench_layer7(subject, args, show, results)
        if "policy" in args.row:
            policy.bench_rows(subject, args, show, results)


if __name__ == "__main__":
    sys.exit(main())
