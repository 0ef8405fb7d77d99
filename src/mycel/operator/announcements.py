"""Says of each CiliumL2AnnouncementPolicy whether it can be used. Agents follow those that can."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.informer import Codec, Informer
from mycel.k8s.resources import CILIUM_L2_ANNOUNCEMENT_POLICIES
from mycel.kit.latest import Latest
from mycel.kit.reconcile import Diff, Report, TargetError
from mycel.operator.keep import keep
from mycel.policy.announce import parse_policy

VALID = "Valid"


class Item(NamedTuple):
    """A policy: what is wrong with it (empty: nothing), and what its status says of that; None: nothing yet."""

    problem: str
    told: str | None


def parse_item(item: Mapping[str, Any]) -> Item:
    """A policy of its object."""
    policy = parse_policy(item)
    problem = policy.problem
    if not problem and not (policy.load_balancer_addresses or policy.external_addresses):
        problem = "spec: neither loadBalancerIPs nor externalIPs is true, so nothing is announced"
    for each in (item.get("status") or {}).get("conditions") or ():
        if each.get("type") == VALID:
            return Item(problem, "" if each.get("status") == "True" else each.get("message", ""))
    return Item(problem, None)


def patch(problem: str, now: str) -> dict[str, Any]:
    """A merge patch of a policy's status."""
    condition = {
        "type": VALID,
        "status": str(not problem),
        "reason": "Invalid" if problem else "Valid",
        "message": problem,
        "lastTransitionTime": now,
    }
    return {"status": {"conditions": [condition]}}


_ITEMS: Codec[Item] = Codec(dict[str, Any], parse_item)


class Announcements:
    """Keeps the policies' statuses, for as long as it leads."""

    name = "status of announcement policies"

    def __init__(self, client: ApiClient, report: Report) -> None:
        self._client = client
        self._report = report
        self._items = Informer(client, CILIUM_L2_ANNOUNCEMENT_POLICIES, _ITEMS)

    async def run(self) -> None:
        """Until cancelled."""
        changed = asyncio.Event()
        self._items.subscribe(lambda _key, _old, _new: changed.set())
        desired: Latest[Mapping[str, str]] = Latest()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._items.run(), name="informer of announcement policies")
            await self._items.wait_synced()
            keep(group, desired, self, self._report, seen_by=self._items)
            while True:
                changed.clear()
                desired.set({key.name: item.problem for key, item in self._items.store.items()})
                await changed.wait()

    async def read(self, *, fresh: bool) -> Mapping[str, str]:
        """What the policies' statuses say."""
        return {key.name: item.told for key, item in self._items.store.items() if item.told is not None}

    async def apply(self, change: Diff[str, str]) -> None:
        """Patch the statuses. Raises TargetError."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for name, problem in change.upserts.items():
            try:
                body = patch(problem, now)
                await self._client.patch(CILIUM_L2_ANNOUNCEMENT_POLICIES, name, body, subresource="status")
            except NotFound:
                continue
            except ApiError as exc:
                raise TargetError(f"policy {name}: {exc}") from exc
