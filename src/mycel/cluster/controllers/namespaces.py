"""Namespaces on their way out: everything in them is deleted, kind by kind, then the namespace's own
finalizer goes.

The garbage collector's picture says what is there; before the end the API server itself is asked, kind by
kind.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time

from mycel.cluster.controllers.apply import Applier
from mycel.cluster.controllers.garbage import GarbageCollector
from mycel.cluster.controllers.graph import Item
from mycel.cluster.controllers.objects import Obj, evolve, is_deleting, name, spec, status, with_condition
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, update
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, Conflict, NotFound
from mycel.k8s.resources import NAMESPACES, Resource
from mycel.kit.workqueue import WorkQueue

log = logging.getLogger(__name__)

_AGAIN_S = 5.0  # should an event be missed


class NamespaceController:
    """Start `run()` once the collector runs."""

    def __init__(self, client: ApiClient, world: World, applier: Applier) -> None:
        self._client = client
        self._world = world
        self._applier = applier
        self._queue: WorkQueue[str] = WorkQueue()

    def hear_removed(self, item: Item) -> None:
        """Something is gone from a namespace; connect this to the collector."""
        space = self._world[NAMESPACES].get(("", item.where[0]))
        if space is not None and is_deleting(space):
            self._queue.add_after(name(space), 0.02)

    async def run(self, collector: GarbageCollector) -> None:
        """Empty namespaces until cancelled."""
        cache = self._world[NAMESPACES]
        cache.subscribe(self._hear)
        for space in list(cache.objects.values()):
            self._hear(None, space)
        await collector.wait_discovered()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(2):
                    group.create_task(self._work(collector), name=f"namespace-{number}")
        finally:
            self._queue.close()

    def _hear(self, old: Obj | None, new: Obj | None) -> None:
        if new is None or not is_deleting(new) or not spec(new).get("finalizers"):
            return
        if old is None or not is_deleting(old):
            self._queue.add(name(new))

    async def _work(self, collector: GarbageCollector) -> None:
        while True:
            woken = await self._queue.get()
            try:
                done = await self._empty(woken, collector)
            except ApiError as exc:
                pause_s = self._queue.retry(woken)
                log.info("emptying namespace %s: %s; again in %.1f s", woken, exc, pause_s)
            else:
                self._queue.forget(woken)
                if not done:
                    self._queue.add_after(woken, _AGAIN_S)
            finally:
                self._queue.done(woken)

    async def _empty(self, space: str, collector: GarbageCollector) -> bool:
        """Delete what is there; True once the namespace is finalized (or gone)."""
        found = self._world[NAMESPACES].get(("", space))
        if found is None or not is_deleting(found):
            return True
        kinds = [one for one in collector.kinds.resources if one.namespaced]
        left: collections.Counter[str] = collections.Counter()
        for resource in sorted(kinds, key=str):
            left[str(resource)] += await self._empty_kind(space, resource, collector)
        if sum(left.values()):
            await self._report(found, left)
            return False
        await self._finalize(found)
        return True

    async def _empty_kind(self, space: str, resource: Resource, collector: GarbageCollector) -> int:
        """Delete the kind's objects; returns how many are left."""
        try:
            items = (await self._client.list(resource, namespace=space)).items
            if not items:
                return 0
            doomed = [one for one in items if not is_deleting(one)]
            if doomed and resource in collector.kinds.collections:
                body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
                await self._client.request("DELETE", resource.path(space), body=body)
            else:
                for one in doomed:
                    await self._client.delete(resource, name(one), namespace=space, propagation="Background")
            return len((await self._client.list(resource, namespace=space)).items) if doomed else len(items)
        except NotFound:
            # The kind itself went meanwhile (its CustomResourceDefinition was deleted).
            collector.refresh_kinds()
            return 0

    async def _report(self, space: Obj, left: collections.Counter[str]) -> None:
        """Say in the namespace's status what it waits for."""
        what = ", ".join(f"{kind} has {count} resource instances" for kind, count in sorted((+left).items()))
        fresh = {
            "type": "NamespaceContentRemaining",
            "status": "True",
            "reason": "SomeResourcesRemain",
            "message": f"Some resources are remaining: {what}",
        }
        conditions = with_condition(status(space).get("conditions"), fresh, time.time())
        told = evolve(space, "status", "conditions", value=conditions)
        await self._applier.apply(Decision(update(NAMESPACES, space, told, subresource="status")))

    async def _finalize(self, space: Obj) -> None:
        kept = [one for one in spec(space).get("finalizers") or () if one != "kubernetes"]
        try:
            current = await self._client.get(NAMESPACES, name(space))
            fresh = evolve(current, "spec", "finalizers", value=kept)
            await self._client.replace(NAMESPACES, fresh, subresource="finalize")
        except (NotFound, Conflict) as exc:
            log.debug("namespace %s: %s", name(space), exc)
            if isinstance(exc, Conflict):
                raise
