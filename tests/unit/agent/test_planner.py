"""The planner and the reconcile loop over maps in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from mycel.abi import InterfaceKey, ServiceKey
from mycel.agent.planner import Part, Planner, Sources
from mycel.datapath.maps import FakeMap
from mycel.kit.reconcile import OrderedTargets, Report, reconcile
from mycel.model.address import Address, parse_address
from mycel.model.service import EndpointSlice, Protocol, Service, ServicePort, ServiceRef, SliceEndpoint, SlicePort
from mycel.model.workload import EndpointId, IdentityId, LocalEndpoint, PodRef, PublishedEndpoint
from mycel.plan.node_plan import APPLY_ORDER
from mycel.plan.rows import OtherNode, Redirect, ThisNode
from mycel.service.balance import Frontend, FrontendKey

POD = LocalEndpoint(
    PodRef("ns", "p"), "u", "c", EndpointId(1), (parse_address("10.244.0.5"),), "lxc", 9, bytes(6), bytes(6), "x"
)
REF = ServiceRef("ns", "s")
SERVICE = Service(REF, ("10.96.0.9",), (), (), (ServicePort("", Protocol.TCP, 80, 0),), (4,), 0, False, False)


def slices(*addresses: str) -> list[EndpointSlice]:
    targets = tuple(SliceEndpoint(address, "n1", True, True, False) for address in addresses)
    return [EndpointSlice(REF, "s-1", (SlicePort("", Protocol.TCP, 8080),), targets)]


@dataclass
class Facts(Sources):
    """Sources one can change."""

    pods: list[LocalEndpoint] = field(default_factory=list[LocalEndpoint])
    known: list[Service] = field(default_factory=list[Service])
    targets: list[EndpointSlice] = field(default_factory=list[EndpointSlice])
    listener: Redirect | None = None  # of every frontend

    def redirects(self, _frontends: Mapping[FrontendKey, Frontend]) -> Mapping[FrontendKey, Redirect]:
        return dict.fromkeys(_frontends, self.listener) if self.listener else {}

    def node(self) -> ThisNode:
        return ThisNode("n1", (parse_address("172.18.0.2"),), (parse_address("10.244.0.1"),), ())

    def others(self) -> list[OtherNode]:
        return []

    def local(self) -> Iterable[LocalEndpoint]:
        return self.pods

    def published(self) -> Iterable[PublishedEndpoint]:
        return []

    def services(self) -> Iterable[Service]:
        return self.known

    def slices(self) -> Iterable[EndpointSlice]:
        return self.targets

    def apiserver(self) -> Iterable[Address]:
        return []

    def parse(self, text: str) -> Address:
        return parse_address(text)


@dataclass
class Node:
    """A planner with a kernel in memory."""

    facts: Facts = field(default_factory=Facts)
    maps: dict[str, FakeMap[Any, Any]] = field(default_factory=lambda: {name: FakeMap(name) for name in APPLY_ORDER})
    report: Report = field(default_factory=Report)
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def start(self) -> Planner:
        planner = Planner()
        planner.adopt(self.maps["services"].rows, self.maps["backends"].rows)
        targets: Any = OrderedTargets("datapath", self.maps.values())
        self.tasks = [
            asyncio.create_task(planner.run(self.facts)),
            asyncio.create_task(reconcile(planner.desired, targets, self.report, realized=planner.realized)),
        ]
        return planner

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def rows(self, name: str) -> dict[Any, Any]:
        return self.maps[name].rows


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made = Node()
    async with asyncio.timeout(120):
        yield made
    await made.stop()


async def test_realize_returns_when_the_kernel_has_it(node: Node) -> None:
    """A pod's rows are there, and its identity's change as well."""
    planner = node.start()
    node.facts.pods = [POD]
    await planner.realize(Part.ENDPOINTS)
    assert node.rows("interfaces")[InterfaceKey(9)].flags == 0
    node.facts.pods = [replace(POD, identity=IdentityId(300))]
    await planner.realize(Part.ENDPOINTS)
    assert node.rows("interfaces")[InterfaceKey(9)].identity == 300
    node.facts.pods = []
    await planner.realize(Part.ENDPOINTS)
    assert node.rows("interfaces") == {}


async def test_services_go_to_listeners_and_back(node: Node) -> None:
    """What sources say of frontends is in the services' rows."""
    planner = node.start()
    node.facts.known, node.facts.targets = [SERVICE], slices("10.244.0.5")
    key = ServiceKey(parse_address("10.96.0.9"), 80, 6)
    for listener, ports in ((None, (0, 0)), (Redirect(20001, 20002), (20001, 20002)), (None, (0, 0))):
        node.facts.listener = listener
        await planner.realize(Part.SERVICES)
        row = node.rows("services")[key]
        assert (row.proxy_port, row.proxy_port_outside) == ports


async def test_realize_with_nothing_to_do_returns(node: Node) -> None:
    """An equal plan is realized already."""
    planner = node.start()
    await planner.realize(Part.ALL)
    await planner.realize(Part.ALL)
    assert planner.plan is not None and planner.plan.version == 1


async def test_realize_waits_while_the_kernel_refuses(node: Node) -> None:
    """Fail closed: a pod whose rows do not fit does not start."""
    planner = node.start()
    node.maps["interfaces"].capacity = 0
    node.facts.pods = [POD]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await planner.realize(Part.ENDPOINTS)
    assert any("interfaces" in problem for problem in node.report.problems())


async def test_nothing_is_planned_before_run(node: Node) -> None:
    """Rows of the agent before stay until every store is filled."""
    planner = Planner()
    planner.touch(Part.ALL)
    await asyncio.sleep(0.01)
    assert planner.desired.version == 0


async def test_numbers_survive_a_restart(node: Node) -> None:
    """The next agent gives services and backends the numbers in the kernel."""
    node.facts.known = [SERVICE, replace(SERVICE, ref=ServiceRef("a", "a"), cluster_addresses=("10.96.0.1",))]
    node.facts.targets = slices("10.244.0.5", "10.244.0.6")
    await node.start().realize(Part.ALL)
    before = {name: dict(node.rows(name)) for name in ("services", "service_slots", "backends")}
    await node.stop()
    node.facts.known.pop()
    await node.start().realize(Part.ALL)
    key = ServiceKey(parse_address("10.96.0.9"), 80, 6)
    assert node.rows("services") == {key: before["services"][key]}
    assert node.rows("backends") == before["backends"]


async def test_changes_of_a_moment_are_one_plan(node: Node) -> None:
    """A burst does not make a plan per event."""
    planner = node.start()
    await planner.realize(Part.ALL)
    node.facts.known, node.facts.targets = [SERVICE], slices("10.244.0.5")
    for _ in range(50):
        planner.touch(Part.SERVICES)
        await asyncio.sleep(0)
    await planner.realize(Part.NONE)
    while not node.rows("services"):
        await asyncio.sleep(0.005)
    assert planner.plan is not None and planner.plan.version == 2
