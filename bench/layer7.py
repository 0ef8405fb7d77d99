"""Row 7: requests through the node's Envoy by a policy's rule, of an Envoy of its own and of two in a row.

The subject is a pod whose egress policy has one HTTP rule, and a server on the same node: one pass. Peers are Envoys
with the same connection manager and an RBAC filter of that rule, dialled by their address, between namespaces: one on
the way (`raw`), or one beside the client and one beside the server, as sidecars are (`chain`). They keep no access log
and are set as Envoys are if nobody says otherwise: they count by response code and watch for silent streams. The
subject's does neither, and its rules are routes; nor does one more peer, whose rules are such, too, for comparison. The
subject's log becomes flows, made by its agent.

Client and server run on one CPU, Envoys on the other with everything else. A sample is one run of a closed loop:
microseconds per request at 32 connections, or the median latency of one connection.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import served, turns
from bench.peers import Route, inside, routed, run
from bench.subject import NAME, NAMESPACE, Cluster, pod
from mycel.abi import Direction
from mycel.cluster.lifecycle import cgroups, record
from mycel.cluster.lifecycle.paths import ClusterPaths
from mycel.envoy.http_routes import allowing
from mycel.envoy.http_rules import compiled
from mycel.envoy.listeners import connection_manager
from mycel.policy.proxy_ports import HttpSections
from mycel.policy.rules import L7

ROOT = Path(__file__).parent.parent
HTTP = ROOT / "build" / "bench" / "http"
ENVOY = Path(os.environ.get("MYCEL_ENVOY", ROOT / "build/envoy/envoy/_bin/envoy"))
CPU, ENVOY_CPU = 0, 1
PORT = 8080
PATH = "/bench"  # what the load asks for
RULE = {"method": "GET", "path": "/bench(/.*)?"}
_TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Way:
    """How requests go, and the processes that work on them."""

    route: Route
    workers: tuple[int, ...]  # process ids


# ---- peers


def _listener(name: str, port: int, manager: Json) -> Json:
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    address = {"socket_address": {"address": "0.0.0.0", "port_value": port}}
    return {"name": name, "address": address, "per_connection_buffer_limit_bytes": 32768, "filter_chains": [chain]}


def _bootstrap(listen: int, to: tuple[str, int], *, rules: bool, tuned: bool = False) -> Json:
    """An Envoy as policies' listeners are, but dialled by its address and with one server.

    Unless it is `tuned` as they are, too, its rules are a filter, it counts by response code and watches for silent
    streams, as Envoys do.
    """
    section = L7("http", json.dumps({"rules": [RULE]}))
    manager = connection_manager(HttpSections(Direction.EGRESS, (section,)), (), None)
    if not tuned:
        del manager["stream_idle_timeout"]
        del manager["http_filters"][-1]["typed_config"]["dynamic_stats"]
        (everything,) = manager["route_config"]["virtual_hosts"]
        everything["routes"] = [{"match": {"prefix": "/"}, "route": everything["routes"][0]["route"]}]
        if rules:
            manager["http_filters"].insert(0, allowing(compiled([section])))
    endpoint = {"endpoint": {"address": {"socket_address": {"address": to[0], "port_value": to[1]}}}}
    cluster = {
        "name": "original-destination",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "server", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": [_listener("peer", listen, manager)], "clusters": [cluster]}}


@contextlib.contextmanager
def _envoy(namespace: str, config: Json, port: int) -> Iterator[int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "envoy.json")
        path.write_text(json.dumps(config))
        process = subprocess.Popen(
            [*inside(namespace), str(ENVOY), "-c", str(path), "--disable-hot-restart", "--log-path", f"{folder}/log"]
        )
        try:
            for _ in range(200):
                if f":{port} " in run(*inside(namespace), "ss", "-Hlnt"):
                    break
                time.sleep(0.05)
            else:
                raise RuntimeError(f"Envoy in {namespace} does not listen")
            _pin(process.pid)
            yield process.pid
        finally:
            process.terminate()
            process.wait(10)


@contextlib.contextmanager
def raw(name: str = "mb-l", *, tuned: bool = False) -> Iterator[Way]:
    """One Envoy, in the router between client and server."""
    with routed(name) as route:
        config = _bootstrap(10000, (route.address, PORT), rules=True, tuned=tuned)
        with _envoy(f"{name}r", config, 10000) as pid:
            yield Way(Route("raw Envoy", route.client, route.server, "192.168.72.254", 10000), (pid,))


@contextlib.contextmanager
def chain() -> Iterator[Way]:
    """Two Envoys, each beside one end."""
    with (
        routed("mb-s") as route,
        _envoy("mb-sb", _bootstrap(10002, ("127.0.0.1", PORT), rules=True), 10002) as second,
        _envoy("mb-sa", _bootstrap(10001, (route.address, 10002), rules=False), 10001) as first,
    ):
        yield Way(Route("two Envoys", route.client, route.server, "127.0.0.1", 10001), (first, second))


# ---- the subject


def policy() -> Json:
    """The client may ask the server for one path."""
    rules = {"ports": [{"port": str(PORT), "protocol": "TCP"}], "rules": {"http": [RULE]}}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "layer7", "namespace": NAMESPACE},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "l7-client"}},
            "egress": [{"toEndpoints": [{"matchLabels": {"app": "l7-server"}}], "toPorts": [rules]}],
        },
    }


def _start(subject: Cluster) -> Way:
    node = subject.workers[0]
    subject.apply(pod("l7-client", node), pod("l7-server", node), policy())
    subject.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    route = subject.route("through Mycel", "l7-client", "l7-server", subject.address("l7-server"), PORT)
    envoys, agents = (_processes(node, name) for name in ("envoy", "mycel.agent"))
    for pid in envoys:
        _pin(pid)
    return Way(route, (*envoys, *agents))


def _processes(node: str, name: str) -> tuple[int, ...]:
    """The cluster's processes in a node's own network whose program or Python module has this name."""
    found = record.read(ClusterPaths.of(NAME))
    assert found is not None
    network = (ClusterPaths.of(NAME).run / "ns" / f"{node}.net").stat().st_ino
    chosen: list[int] = []
    for pid in cgroups.processes(found.cgroup):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            here = Path(f"/proc/{pid}/ns/net").stat().st_ino == network
            if here and (Path(words[0]).name == name or name in words[1:3]):
                chosen.append(pid)
    if not chosen:
        raise RuntimeError(f"no {name} on {node}")
    return tuple(chosen)


# ---- measuring


def _pin(pid: int) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {ENVOY_CPU})


def _spent_us(pids: tuple[int, ...]) -> float:
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum((int(each[11]) + int(each[12])) * _TICK_US for each in fields)


class Sampler:
    """Samples of one way; afterwards `cpu_us` says what each of its processes spent on a request."""

    def __init__(self, way: Way, *, path: str = PATH) -> None:
        self._way = way
        self._path = path
        self._spent: list[tuple[float, ...]] = []

    def load(self, connections: int, seconds: float) -> dict[str, float]:
        """One run: {"n", "rate", "p50_us", "p99_us", "other"}."""
        route, workers = self._way.route, self._way.workers
        before = [_spent_us((pid,)) for pid in workers]
        out = run(
            *route.client, str(HTTP), "load", route.address, str(route.port), self._path,
            str(connections), str(seconds), str(CPU),
        )  # fmt: skip
        found: dict[str, float] = json.loads(out)
        after = [_spent_us((pid,)) for pid in workers]
        self._spent.append(tuple((b - a) / found["n"] for a, b in zip(before, after, strict=True)))
        return found

    def sample(self, connections: int, seconds: float) -> Callable[[], float]:
        """Microseconds: per request at many connections, of the median at one."""

        def once() -> float:
            found = self.load(connections, seconds)
            if found["other"]:
                raise RuntimeError(f"{self._way.route.name}: {found['other']} answers are no 200")
            return found["p50_us"] if connections == 1 else 1e6 / found["rate"]

        return once

    def cpu_us(self) -> list[float]:
        """Microseconds a request of each process: the median of all samples so far, which begin anew."""
        each = zip(*self._spent, strict=True)
        self._spent = []
        return [round(sorted(values)[len(values) // 2], 1) for values in each]


def bench_layer7(
    subject: Cluster, args: argparse.Namespace, show: Callable[..., None], results: dict[str, object]
) -> None:
    """Row 7."""
    way = _start(subject)
    with raw() as one, raw("mb-n", tuned=True) as tuned, chain() as two, contextlib.ExitStack() as stack:
        for each in (way, one, tuned, two):
            server = Route(each.route.name, each.route.client, each.route.server, "", PORT)
            stack.enter_context(served(server, cpu=CPU, binary=HTTP))
        _wait_for_rules(way)
        ours = Sampler(way)
        many, single = (32, "per request, 32 connections"), (1, "p50, 1 connection")
        for title, peer, loads in (
            ("raw Envoy", Sampler(one), (many, single)),
            ("a raw Envoy tuned alike", Sampler(tuned), (many,)),
            ("two Envoys", Sampler(two), (many, single)),
        ):
            for connections, what in loads:
                name = f"7  HTTP rule, {what}, of {title}"
                ratio = turns(
                    ours.sample(connections, args.seconds), peer.sample(connections, args.seconds), pairs=args.pairs
                )
                show(name, ratio, results)
                spent = {"Mycel's Envoy and agent": ours.cpu_us(), title: peer.cpu_us()}
                results[f"{name}, CPU us per request"] = spent
                print(f"{'':6}CPU us per request: {spent}", flush=True)


def _wait_for_rules(way: Way) -> None:
    """Until what the rule allows is answered by 200, and nothing else is."""
    for _ in range(100):
        with contextlib.suppress(RuntimeError):
            good, bad = (Sampler(way, path=path).load(1, 0.1) for path in (PATH, "/other"))
            if not good["other"] and bad["other"] == bad["n"]:
                return
        time.sleep(0.3)
    raise RuntimeError("the policy's rule is not in force")
