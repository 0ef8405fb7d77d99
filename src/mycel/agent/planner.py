"""From the stores to the plan: recomputes the parts a change touches and hands the newest plan to the datapath.

Changes within a moment become one plan. `realize` is for callers who have to know that their change is in the
kernel (CNI ADD): it plans at once and returns when that plan, or a newer one, has been applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from enum import Flag, auto
from typing import Any, NamedTuple, Protocol

from mycel.abi import (
    AliasKey,
    AliasValue,
    BackendKey,
    BackendValue,
    IpcacheKey,
    IpcacheValue,
    PolicyKey,
    PolicyValue,
    ProxyKey,
    ProxyValue,
    ServiceKey,
    ServiceValue,
)
from mycel.kit.latest import Latest
from mycel.model.address import Address
from mycel.model.service import EndpointSlice, Service
from mycel.model.workload import IdentityId, LocalEndpoint, PublishedEndpoint, Workload
from mycel.plan import rows
from mycel.plan.local import LocalRows
from mycel.plan.node_plan import NodePlan
from mycel.service import balance
from mycel.service.hostports import host_port_frontends
from mycel.service.numbering import Numbering

log = logging.getLogger(__name__)
_GATHER_S = 0.002  # changes that come together become one plan
_APPLY_S = 0.05  # and those that come while one is being applied the next, unless the datapath refuses


class Part(Flag):
    """What a change touches."""

    NONE = 0
    ENDPOINTS = auto()  # this node's pods
    CLUSTER = auto()  # other nodes and their pods
    SERVICES = auto()
    POLICY = auto()  # policies, or identities they are about
    ALL = ENDPOINTS | CLUSTER | SERVICES | POLICY


class PolicyPlan(NamedTuple):
    """What policy adds to a plan. `endpoints` None: there is no policy, everything is open."""

    endpoints: rows.EndpointPolicies | None = None
    sets: Mapping[int, Mapping[PolicyKey, PolicyValue]] = {}
    networks: Mapping[tuple[Address, int], IdentityId] = {}
    aliases: Mapping[AliasKey, AliasValue] = {}
    revision: int = 1


class Planned(NamedTuple):
    """What a plan enforces. `version` is that of `desired` which brings it about."""

    version: int
    revision: int
    endpoints: rows.EndpointPolicies | None


class Sources(Protocol):
    """Where the planner looks, as plain functions."""

    def node(self) -> rows.ThisNode:
        """This node."""
        ...

    def others(self) -> list[rows.OtherNode]:
        """The other nodes."""
        ...

    def local(self) -> Iterable[LocalEndpoint]:
        """This node's pods."""
        ...

    def published(self) -> Iterable[PublishedEndpoint]:
        """Other nodes' pods."""
        ...

    def services(self) -> Iterable[Service]:
        """All services."""
        ...

    def own_pods(self) -> Iterable[Workload]:
        """Pods of this node, for their host ports."""
        return ()

    def proxies(self) -> Mapping[ProxyKey, ProxyValue]:
        """Control groups of this node's proxies."""
        return {}

    def announced(self) -> Iterable[Address]:
        """Addresses of services this node answers for."""
        return ()

    def underlays(self) -> Iterable[rows.Underlay]:
        """Devices it answers at."""
        return ()

    def slices(self) -> Iterable[EndpointSlice]:
        """All slices."""
        ...

    def apiserver(self) -> Iterable[Address]:
        """Addresses of the API server."""
        ...

    def parse(self, text: str) -> Address:
        """An address of the API's; memoised."""
        ...

    def redirects(
        self, _frontends: Mapping[balance.FrontendKey, balance.Frontend]
    ) -> Mapping[balance.FrontendKey, rows.Redirect]:
        """Which frontends' connections go to listeners of the node's Envoy."""
        return {}

    def policy(self, _ipcache: Mapping[IpcacheKey, IpcacheValue]) -> PolicyPlan:
        """What this node's pods enforce; `ipcache` tells whose addresses there are."""
        return PolicyPlan()


class Planner:
    """Keeps `desired` at the newest plan's rows, by map. What is planned for may touch it before it has any sources."""

    def __init__(self) -> None:
        self._sources: Sources | None = None
        self.desired: Latest[Mapping[str, Mapping[Any, Any]]] = Latest()
        self.realized: Latest[int] = Latest()
        self.planned: Latest[Planned] = Latest()
        self.plan: NodePlan | None = None
        self.frontends: Mapping[balance.FrontendKey, balance.Frontend] = {}
        self.backend_numbers: Numbering[balance.BackendKey] = Numbering()
        self.service_numbers: Numbering[balance.FrontendKey] = Numbering(most=2**32 - 1)
        self._parts: dict[str, Mapping[Any, Any]] = {}
        self._others: list[rows.OtherNode] = []
        self._policy = PolicyPlan()
        self._local = LocalRows()
        self._dirty = Part.ALL
        self._wake = asyncio.Event()
        self._started = asyncio.Event()
        self.frontends_version = 0

    def adopt(self, services: Mapping[ServiceKey, ServiceValue], backends: Mapping[BackendKey, BackendValue]) -> None:
        """Go on with the numbers an earlier agent gave, as its maps tell them."""
        self.backend_numbers = Numbering(
            {
                balance.BackendKey(Address(value.addr), value.port, value.protocol): key.backend_id
                for key, value in backends.items()
            }
        )
        # Frontends of one group share a number; only the group's first is asked for, the others do no harm.
        first: dict[int, balance.FrontendKey] = {}
        for key, value in sorted(services.items(), key=lambda row: row[1].flags & 0xF):
            first.setdefault(value.service_id, balance.FrontendKey(Address(key.addr), key.port, key.protocol))
        self.service_numbers = Numbering({key: number for number, key in first.items()})

    def touch(self, part: Part) -> None:
        """Something changed; a new plan follows soon."""
        self._dirty |= part
        self._wake.set()

    async def realize(self, part: Part) -> None:
        """Plan at once and wait until the kernel has it. Waits for ever while the datapath refuses."""
        self._dirty |= part
        await self._started.wait()
        self.replan()
        version = self.desired.version
        await self.applied(version)

    def begin(self, sources: Sources) -> None:
        """Say where to look: plans may be made from now on."""
        self._sources = sources
        self._started.set()

    async def run(self, sources: Sources) -> None:
        """Plan whenever something changed. Start it when every informer is synced, never before."""
        self.begin(sources)
        while True:
            self._wake.clear()
            self.replan()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_APPLY_S):
                    await self.applied(self.desired.version)
            await self._wake.wait()
            await asyncio.sleep(_GATHER_S)

    async def applied(self, version: int) -> None:
        """Until the kernel has been brought to a version of `desired`, or to a newer one."""
        seen = self.realized.version
        while not (seen and self.realized.value >= version):
            seen = await self.realized.newer_than(seen)

    def replan(self) -> None:
        """Make the parts of the plan anew that changes have touched."""
        sources = self._sources
        if sources is None or not self._dirty:
            return
        dirty, self._dirty = self._dirty, Part.NONE
        node, local = sources.node(), list(sources.local())
        if dirty & Part.SERVICES:
            self._plan_services(sources, node)
        addresses = bool(dirty & (Part.ENDPOINTS | Part.CLUSTER))
        if addresses:
            self._plan_addresses(sources, node, local)
        if dirty & ~Part.SERVICES:
            self._plan_policy(sources, node, local, addresses=addresses)
        version = self.plan.version + 1 if self.plan else 1
        plan = NodePlan(**self._parts, version=version)  # pyright: ignore[reportArgumentType]
        if plan != self.plan:
            self.plan = plan
            self.desired.set(plan.by_map())
            log.debug("%s", plan)
        self.planned.set(Planned(self.desired.version, self._policy.revision, self._policy.endpoints))

    def _plan_addresses(self, sources: Sources, node: rows.ThisNode, local: list[LocalEndpoint]) -> None:
        """Who there is."""
        self._others = sources.others()
        self._parts |= {
            "nodes": rows.node_rows(self._others),
            "ipcache": rows.ipcache_rows(
                node,
                others=self._others,
                published=sources.published(),
                endpoints=local,
                apiserver=sources.apiserver(),
                parse=sources.parse,
            ),
        }

    def _plan_policy(
        self, sources: Sources, node: rows.ThisNode, local: list[LocalEndpoint], *, addresses: bool
    ) -> None:
        """What this node's pods enforce, and whom prefixes of policies tell apart. `addresses`: nodes may be others."""
        policy, before = sources.policy(self._parts["ipcache"]), self._policy
        self._policy = policy
        self._local.update(node, local, policy.endpoints)
        self._parts |= {
            "endpoints": self._local.endpoints,
            "interfaces": self._local.interfaces,
            "policy": policy.sets,
            "aliases": policy.aliases,
        }
        if addresses or policy.networks is not before.networks:
            self._parts["ipcache_lpm"] = rows.prefix_rows(node, self._others, policy.networks)

    def _plan_services(self, sources: Sources, node: rows.ThisNode) -> None:
        of_pods = host_port_frontends(sources.own_pods(), node.name, node.addresses)
        self.frontends = of_pods | balance.balance(sources.services(), sources.slices(), node.name)
        self.frontends_version += 1
        made = rows.service_rows(
            self.frontends,
            service_number=self.service_numbers.number,
            backend_number=self.backend_numbers.number,
            redirects=sources.redirects(self.frontends),
        )
        self._parts |= {
            "services": made.services,
            "service_slots": made.slots,
            "backends": made.backends,
            "proxies": dict(sources.proxies()),
            "announced": rows.announced_rows(sources.announced(), sources.underlays()),
        }
        self.service_numbers.keep(frontend.group for frontend in self.frontends.values())
        self.backend_numbers.keep(
            balance.BackendKey(Address(each.addr), each.port, each.protocol) for each in made.backends.values()
        )
