"""Watches pools and services, asks `assign`, and writes the answers into their statuses.

What was decided is remembered, so that an informer that has not seen the answer yet moves no address; a new leader
begins with what the statuses say.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mycel.k8s.client import ApiClient, Patch
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.informer import Codec, Informer
from mycel.k8s.resources import CILIUM_LOAD_BALANCER_IP_POOLS, SERVICES
from mycel.kit.latest import Latest
from mycel.kit.reconcile import Diff, Report, TargetError
from mycel.model.service import ServiceRef
from mycel.operator.keep import keep
from mycel.operator.loadbalancer.assign import decide
from mycel.operator.loadbalancer.claims import Claim, Told, parse_claim
from mycel.operator.loadbalancer.pools import IpAddress, Pool, parse_pool
from mycel.operator.loadbalancer.status import (
    PoolTold,
    parse_pool_status,
    pool_patch,
    pool_told,
    service_patch,
    services_told,
)

log = logging.getLogger(__name__)
_GATHER_S = 0.02
PoolItem = tuple[Pool, PoolTold | None]
_CLAIMS: Codec[Claim] = Codec(dict[str, Any], parse_claim)
_POOLS: Codec[PoolItem] = Codec(dict[str, Any], lambda item: (parse_pool(item), parse_pool_status(item)))


class LoadBalancers:
    """Keeps services of type LoadBalancer in addresses, for as long as it leads."""

    def __init__(self, client: ApiClient, report: Report) -> None:
        self._client = client
        self._report = report

    async def run(self) -> None:
        """Until cancelled."""
        claims = Informer(self._client, SERVICES, _CLAIMS)
        pools = Informer(self._client, CILIUM_LOAD_BALANCER_IP_POOLS, _POOLS)
        changed = asyncio.Event()
        for informer in (claims, pools):
            informer.subscribe(lambda _key, _old, _new: changed.set())
        services: Latest[Mapping[ServiceRef, Told]] = Latest()
        states: Latest[Mapping[str, PoolTold]] = Latest()
        async with asyncio.TaskGroup() as group:
            group.create_task(claims.run(), name="informer of services")
            group.create_task(pools.run(), name="informer of pools")
            await asyncio.gather(claims.wait_synced(), pools.wait_synced())
            keep(group, services, _Services(self._client, claims), self._report, seen_by=claims)
            keep(group, states, _Pools(self._client, pools), self._report, seen_by=pools)
            held: dict[str, tuple[IpAddress, ...]] = {}
            while True:
                changed.clear()
                ours = [each for each in claims.store.values() if each.wants and (pools.store or each.told.reason)]
                held = {each.uid: held.get(each.uid) or _addresses(each) for each in ours}
                decision = decide((pool for pool, _ in pools.store.values()), ours, held)
                held = {each.uid: decision.services[each.ref].addresses for each in ours}
                services.set(services_told(decision))
                states.set({name: pool_told(state) for name, state in decision.pools.items()})
                await changed.wait()
                await asyncio.sleep(_GATHER_S)


def _addresses(claim: Claim) -> tuple[IpAddress, ...]:
    """What a service's status says it has. A load balancer of another make may have written anything there."""
    found: list[IpAddress] = []
    for text in claim.told.addresses:
        try:
            found.append(ipaddress.ip_address(text))
        except ValueError:
            log.info("service %s: status.loadBalancer has %r, which is no address", claim.ref, text)
    return tuple(found)


class _Services:
    """Statuses of services that have addresses of ours, or had."""

    name = "addresses of services"

    def __init__(self, client: ApiClient, claims: Informer[Claim]) -> None:
        self._client = client
        self._claims = claims

    async def read(self, *, fresh: bool) -> Mapping[ServiceRef, Told]:
        """What is said; services we have said nothing of are left out."""
        return {each.ref: each.told for each in self._claims.store.values() if each.told.reason}

    async def apply(self, change: Diff[ServiceRef, Told]) -> None:
        """Patch the statuses. Raises TargetError."""
        problems: list[str] = []
        for ref, told in [*change.upserts.items(), *((ref, None) for ref in change.deletes)]:
            try:
                await self._client.patch(
                    SERVICES,
                    ref.name,
                    service_patch(told, _now()),
                    namespace=ref.namespace,
                    kind=Patch.STRATEGIC,
                    subresource="status",
                )
            except NotFound:
                continue
            except ApiError as exc:
                problems.append(f"service {ref}: {exc}")
            else:
                log.info("service %s: %s", ref, _said(told))
        if problems:
            raise TargetError("; ".join(problems))


def _said(told: Told | None) -> str:
    if told is None:
        return "addresses taken back, it is no load balancer of ours any more"
    addresses = ", ".join(told.addresses) or "no address"
    return addresses if told.satisfied else f"{addresses}: {told.message}"


class _Pools:
    """Statuses of pools."""

    name = "status of pools"

    def __init__(self, client: ApiClient, pools: Informer[PoolItem]) -> None:
        self._client = client
        self._pools = pools

    async def read(self, *, fresh: bool) -> Mapping[str, PoolTold]:
        """What pools say."""
        return {pool.name: told for pool, told in self._pools.store.values() if told is not None}

    async def apply(self, change: Diff[str, PoolTold]) -> None:
        """Patch the statuses. Raises TargetError."""
        for name, told in change.upserts.items():
            try:
                await self._client.patch(
                    CILIUM_LOAD_BALANCER_IP_POOLS,
                    name,
                    pool_patch(told, _now()),
                    kind=Patch.MERGE,
                    subresource="status",
                )
            except NotFound:
                continue
            except ApiError as exc:
                raise TargetError(f"pool {name}: {exc}") from exc


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
