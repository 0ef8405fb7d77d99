"""How soon a changed policy is enforced, and how long many take to load, with the CPU time of it.

Neither needs a cluster: the agent and an API server on a bare node.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from mycel.cni import plugin
from mycel.k8s.client import ApiClient
from mycel.k8s.resources import (
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_NETWORK_POLICIES,
    CILIUM_NODES,
    PODS,
    Resource,
)
from tests.clusters import eventually
from tests.node.bare_node import NAME, World, bare_node

REALIZED = re.compile(r"time=(\S+) .*policy revision (\d+) is realized")
NETWORK = "10.244.90.0/23"
APPS = 50
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def _policy(number: int, port: int) -> dict[str, Any]:
    peers = [{"matchLabels": {"app": f"a{(number * 7 + 1) % APPS}"}}]
    ports = [{"ports": [{"port": str(port), "protocol": "TCP"}]}]
    return {
        "metadata": {"name": f"p{number}", "namespace": "default"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": f"a{number % APPS}"}},
            "ingress": [{"fromEndpoints": peers, "toPorts": ports}],
        },
    }


async def _create(client: ApiClient, made: Iterable[tuple[Resource, dict[str, Any]]]) -> None:
    room = asyncio.Semaphore(16)

    async def one(resource: Resource, body: dict[str, Any]) -> None:
        async with room:
            await client.create(resource, body)

    await asyncio.gather(*(one(resource, body) for resource, body in made))


def _add_pods(world: World, count: int) -> None:
    """Pods of this node, wired by the plugin."""
    bodies = (
        {
            "metadata": {"name": f"pod-{at}", "namespace": "default", "labels": {"app": f"a{at % APPS}"}},
            "spec": {"nodeName": NAME, "containers": [{"name": "c", "image": "pause"}]},
        }
        for at in range(count)
    )
    world.api(lambda client: _create(client, ((PODS, body) for body in bodies)))
    config = {"cniVersion": "1.0.0", "name": "cilium", "type": "cilium-cni", "run-dir": str(world.run_dir)}

    def wire(at: int) -> None:
        environment = {
            "CNI_CONTAINERID": f"container-{at}",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": f"/run/netns/{world.bed.namespace(f'pod-{at}')}",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{at}",
        }
        plugin.run("ADD", config, environment)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(wire, range(count)))


def _realized(world: World) -> list[tuple[float, int]]:
    """When each revision was realized, by the log of the agent that was started last."""
    log = world.folder / f"{len(world.processes) - 1}.log"
    found = REALIZED.findall(log.read_text())
    return [(datetime.fromisoformat(at).timestamp(), int(revision)) for at, revision in found]


def _settled(world: World, revision: int) -> None:
    eventually(
        lambda: _realized(world)[-1:] and _realized(world)[-1][1] >= revision, timeout_s=120, what="all policies"
    )


def _rss_mib(world: World) -> float:
    assert world.agent is not None
    status = Path(f"/proc/{world.agent.pid}/status").read_text()
    return round(int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024, 1)


def _cpu_ms(pid: int) -> float:
    """CPU time a process has used, threads that ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_MS


def bench_propagation(
    results: dict[str, object], *, pods: int = 250, policies: int = 1000, per_s: int = 50, seconds: float = 10
) -> None:
    """Open loop: each change has its time, however the ones before it fared."""
    with _bare() as world:
        assert world.agent is not None
        _add_pods(world, pods)
        first = (_realized(world) or [(0.0, 1)])[-1][1]
        world.api(lambda c: _create(c, ((CILIUM_NETWORK_POLICIES, _policy(at, 80)) for at in range(policies))))
        _settled(world, first + policies)
        base = _realized(world)[-1][1]
        written: list[float] = []

        async def change(client: ApiClient) -> None:
            begin = time.monotonic()
            for number in range(int(per_s * seconds)):
                await asyncio.sleep(max(0.0, begin + number / per_s - time.monotonic()))
                written.append(time.time())
                body = {"spec": _policy(number % policies, 1000 + number)["spec"]}
                await client.patch(CILIUM_NETWORK_POLICIES, f"p{number % policies}", body, namespace="default")

        processes = {"agent": world.agent.pid, "API server": world.processes[0].pid}
        before = {name: _cpu_ms(pid) for name, pid in processes.items()}
        world.api(change)
        _settled(world, base + len(written))
        time.sleep(1)  # what follows a change is its cost too: statuses
        cpu = {name: round((_cpu_ms(pid) - before[name]) / len(written), 1) for name, pid in processes.items()}
        told = _realized(world)
        late = [
            next(at for at, revision in told if revision > base + number) - began
            for number, began in enumerate(written)
        ]
        figures = {
            "p50_ms": round(statistics.median(late) * 1000, 1),
            "p99_ms": round(statistics.quantiles(late, n=100)[98] * 1000, 1),
            "changes": len(late),
            "revisions": sum(revision > base for _, revision in told),
            "cpu_ms_per_change": cpu,
            "rss_mib": _rss_mib(world),
        }
    results["policy propagation"] = figures
    print(f"{f'   API write to enforced, {pods} pods, {policies} policies, {per_s}/s':58} {figures}", flush=True)


def bench_load(results: dict[str, object], *, policies: int = 3000, pods: int = 10000) -> None:
    """An agent starts where so much is there already."""
    with _bare() as world:
        _add_pods(world, 30)
        world.api(lambda client: _create(client, _others(pods)))
        world.api(
            lambda c: _create(c, ((CILIUM_NETWORK_POLICIES, _policy(at, 80 + at // APPS)) for at in range(policies)))
        )
        _settled(world, policies)
        world.kill_agent()
        start = time.time()
        world.spawn_agent()
        _settled(world, policies)
        figures = {"seconds": round(_realized(world)[-1][0] - start, 1), "rss_mib": _rss_mib(world)}
    results["policy load"] = figures
    print(f"{f'   start to enforced, {policies} policies, {pods} pods':58} {figures}", flush=True)


def _others(count: int) -> Iterable[tuple[Resource, dict[str, Any]]]:
    """Pods of another node, as its agent publishes them, and their identities."""
    node = {"addresses": [{"type": "InternalIP", "ip": "172.31.91.3"}], "ipam": {"podCIDRs": ["10.244.128.0/17"]}}
    yield CILIUM_NODES, {"metadata": {"name": "other"}, "spec": node}
    for number in range(200):
        labels = {
            "k8s:app": f"a{number % APPS}",
            "k8s:version": str(number),
            "k8s:io.kubernetes.pod.namespace": "default",
        }
        labels["k8s:io.cilium.k8s.policy.cluster"] = "default"
        yield CILIUM_IDENTITIES, {"metadata": {"name": str(50000 + number)}, "security-labels": labels}
    for number in range(count):
        address = f"10.244.{128 + (number >> 8)}.{number & 255}"
        status = {
            "id": number % 65535 + 1,
            "identity": {"id": 50000 + number % 200, "labels": []},
            "networking": {"addressing": [{"ipv4": address}], "node": "172.31.91.3"},
        }
        yield CILIUM_ENDPOINTS, {"metadata": {"name": f"o{number}", "namespace": "default"}, "status": status}


@contextlib.contextmanager
def _bare() -> Iterator[World]:
    with (
        tempfile.TemporaryDirectory() as folder,
        bare_node(Path(folder), pod_network=NETWORK, settings={"debug": "true"}) as world,
    ):
        yield world
