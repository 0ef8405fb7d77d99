"""Envoys without a cluster: how soon a changed policy is acknowledged, and what a thousand services cost in memory.

`policy-ack`: from a change of one policy's HTTP rule in the engine to Envoy's acknowledgement of the new listener, with
250 others there, of the least a server can do: a stream that sends the same listener, made before, to another Envoy.
`envoy-memory`: resident memory of an Envoy that holds nothing, 1,000 policies' listeners, and 1,000 services of
CiliumEnvoyConfigs (listener, routes, cluster, four endpoints each).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grpclib.const import Cardinality, Handler

from bench.measure import Ratio, compared
from mycel.agent.proxy.policy_listeners import PolicyListeners
from mycel.envoy.ads import Ads
from mycel.envoy.config.endpoints import assignment, wanted
from mycel.envoy.config.read import read
from mycel.envoy.delta import Outcome
from mycel.envoy.listeners import listener_name, snapshot
from mycel.envoy.messages import message_class
from mycel.envoy.resources import CLUSTER, ENDPOINTS, LISTENER, Resource, Snapshot, TypeUrl, merged
from mycel.kit.latest import Latest
from mycel.policy.engine import Engine
from tests.envoy.bed import Bed
from tests.unit.agent.test_policy_listeners import nothing_secret
from tests.unit.envoy.config.objects import cluster, config, listener, routes
from tests.unit.policy.test_engine import engine, party, put
from tests.unit.policy.worlds import cnp, pods

OTHERS = 250
CHANGES = 20
SERVICES = 1000
_DISCOVERY = "envoy.service.discovery.v3.DeltaDiscovery"
_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
Show = Callable[[str, Ratio, dict[str, object]], None]


class _Fed(Bed):
    """A real Envoy that a discovery service of ours feeds."""

    def __init__(self, folder: Path, service: Any) -> None:
        super().__init__(folder)
        self._service = service

    def __mapping__(self) -> dict[str, Handler]:
        return {**super().__mapping__(), **self._service.__mapping__()}

    @property
    def rss_mib(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self._processes[0].pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


class _Least:
    """Sends resources as they are, and waits for the answer: no versions kept, nothing compared."""

    def __init__(self, first: Snapshot) -> None:
        self._first = first
        self._stream: Any = None
        self._answered = asyncio.Event()
        self.ready = asyncio.Event()
        """Envoy has taken the first listeners."""

    def __mapping__(self) -> dict[str, Handler]:
        request, response = (message_class(_DISCOVERY + each) for each in ("Request", "Response"))
        return {_METHOD: Handler(self._serve, Cardinality.STREAM_STREAM, request, response)}

    async def _serve(self, stream: Any) -> None:
        self._stream, asked = stream, set[str]()
        while (message := await stream.recv_message()) is not None:
            if message.response_nonce:
                if message.HasField("error_detail"):
                    raise RuntimeError(message.error_detail.message)
                self._answered.set()
                if message.type_url == LISTENER:
                    self.ready.set()
            elif message.type_url not in asked:
                asked.add(message.type_url)
                await self._send(TypeUrl(message.type_url), self._first.get(TypeUrl(message.type_url), {}), ())

    async def _send(self, kind: TypeUrl, resources: Any, gone: tuple[str, ...]) -> None:
        made: Any = message_class(_DISCOVERY + "Response")()
        made.type_url, made.nonce = kind, "n"
        made.removed_resources.extend(gone)
        for name, resource in resources.items():
            item = made.resources.add(name=name, version=resource.version)
            item.resource.type_url, item.resource.value = kind, resource.body
        await self._stream.send_message(made)

    async def change(self, name: str, resource: Resource, gone: str) -> float:
        """Seconds from sending to the acknowledgement."""
        self._answered.clear()
        start = time.perf_counter()
        await self._send(LISTENER, {name: resource}, (gone,))
        await self._answered.wait()
        return time.perf_counter() - start


class _Applied:
    """A planner whose rows are in the kernel at once."""

    desired: Latest[object] = Latest()

    async def applied(self, _version: int) -> None:
        return None


def _policy(number: int, path: str) -> dict[str, Any]:
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET", "path": path}]}}]
    made = cnp({"endpointSelector": pods(app=f"a{number}"), "ingress": [{"fromEndpoints": [{}], "toPorts": ports}]})
    return {**made, "metadata": {**made["metadata"], "name": f"p{number}"}}


class _Policies:
    """The engine, the listeners of its policies, and the server that feeds an Envoy: what an agent has."""

    def __init__(self) -> None:
        parties = tuple(party(1000 + number, f"a{number}") for number in range(OTHERS + 1))
        self._parties = parties
        self._engine: Engine = engine(*(_policy(number, f"/{number}") for number in range(OTHERS + 1)), parties=parties)
        self.listeners = PolicyListeners(self._engine, nothing_secret(), connected=lambda: True)
        self.ads = Ads(self.listeners.snapshot)
        self._plan()

    def _plan(self) -> None:
        subjects = [self._engine.subject(each) for each in self._parties]
        self._engine.sets({side.number for subject in subjects for side in subject})
        self.listeners.planned()

    def _name(self) -> str:
        ingress = self._engine.subject(self._parties[OTHERS]).ingress.number
        (port,) = self._engine.ports_of((ingress,))
        return listener_name(port, self._engine.http_listeners[port].direction)

    async def change(self, path: str) -> float:
        """Seconds from another rule to the acknowledgement of its listener."""
        start = time.perf_counter()
        put(self._engine, _policy(OTHERS, path))
        self._plan()
        await self.taken((LISTENER, self._name()))
        return time.perf_counter() - start

    async def taken(self, *places: tuple[TypeUrl, str]) -> None:
        """Until Envoy has taken them."""
        seen = 0
        while True:
            seen = await self.ads.answers.newer_than(seen)
            found = self.ads.answers.value
            if all(_is_taken(found.get(each)) for each in places):
                return

    @property
    def current(self) -> tuple[str, Resource]:
        """The listener of the policy that changes."""
        name = self._name()
        return name, self.listeners.snapshot.value[LISTENER][name]


def _is_taken(outcome: Outcome | None) -> bool:
    if outcome is not None and outcome.error:
        raise RuntimeError(outcome.error)
    return outcome is not None and outcome.version is not None


def bench_ack(args: argparse.Namespace, show: Show, results: dict[str, object]) -> None:
    """Row 12's part of Envoy."""
    ours, theirs = asyncio.run(_acks(args.pairs))
    name = f"12 policy changed to Envoy's ACK, {OTHERS} listeners, of a bare server"
    show(name, compared(ours, theirs), results)


async def _acks(pairs: int) -> tuple[list[float], list[float]]:
    """Medians of changes, in microseconds, in turns."""
    policies = _Policies()
    task = asyncio.create_task(policies.listeners.run(_Applied()))  # type: ignore[arg-type]
    await policies.listeners.snapshot.newer_than(0)
    least = _Least(policies.listeners.snapshot.value)
    found: tuple[list[float], list[float]] = [], []
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        async with _Fed(Path(one), policies.ads).running(), _Fed(Path(two), least).running():
            await policies.taken(*((LISTENER, name) for name in policies.listeners.snapshot.value[LISTENER]))
            await least.ready.wait()
            for turn in range(pairs):
                mine: list[float] = []
                bare: list[float] = []
                for number in range(CHANGES):
                    gone = policies.current[0]
                    mine.append(await policies.change(f"/{turn}/{number}"))
                    bare.append(await least.change(*policies.current, gone))
                for times, into in zip((mine, bare), found, strict=True):
                    into.append(statistics.median(times) * 1e6)
    task.cancel()
    return found


# ---- memory


def bench_memory(args: argparse.Namespace, show: Show, results: dict[str, object]) -> None:
    """Resident memory of Envoys."""
    del args, show
    found = asyncio.run(_memory())
    results["envoy memory MiB"] = found
    print(f"{'   Envoy, resident MiB':58} {found}", flush=True)


async def _memory() -> dict[str, float]:
    made = engine(
        *(_policy(number, f"/{number}") for number in range(SERVICES)),
        parties=tuple(party(1000 + number, f"a{number}") for number in range(SERVICES)),
    )
    return {
        "nothing": await _resident({CLUSTER: {}, LISTENER: {}}),
        f"{SERVICES} policy listeners": await _resident(_of_policies(made)),
        f"{SERVICES} services": await _resident(_of_services()),
    }


def _of_policies(made: Engine) -> Snapshot:
    subjects = [made.subject(party(1000 + number, f"a{number}")) for number in range(SERVICES)]
    made.sets({side.number for subject in subjects for side in subject})
    return snapshot(made.http_listeners)


def _of_services() -> Snapshot:
    configs = [
        read(
            config(
                listener(),
                routes(cluster=f"shop/s{number}"),
                cluster(f"shop/s{number}"),
                name=f"c{number}",
                services=[{"name": f"s{number}", "listener": "listener"}],
            ),
            lambda _name, number=number: 20000 + number,
        )
        for number in range(SERVICES)
    ]
    addresses = tuple((f"10.244.1.{last}", 8080) for last in range(4))
    endpoints = {name: assignment(name, addresses) for name in wanted(configs)}
    return merged(*(each.resources for each in configs), {ENDPOINTS: endpoints})


async def _resident(wanted_: Snapshot) -> float:
    held: Latest[Snapshot] = Latest()
    held.set(wanted_)
    ads = Ads(held)
    expected = {(kind, name) for kind, by_name in wanted_.items() for name in by_name}
    with tempfile.TemporaryDirectory() as folder:
        async with _Fed(Path(folder), ads).running() as bed:
            seen = 0
            async with asyncio.timeout(120):
                while not all(_is_taken(ads.answers.value.get(each)) for each in expected) if seen else True:
                    seen = await ads.answers.newer_than(seen)
            await asyncio.sleep(2)
            return round(bed.rss_mib, 1)
