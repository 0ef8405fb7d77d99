"""The garbage collector: what is left of deleted owners goes, in the background, foreground, or not at all.

Kinds that other controllers cache are heard from there; of all others, custom ones included, only metadata is
watched. `graph.judge` decides; this module watches, looks owners up and writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from mycel.cluster.controllers.discovery import Kinds, discover
from mycel.cluster.controllers.graph import Graph, Item, Owner, Presence, Verdict, judge
from mycel.cluster.controllers.objects import Obj, is_deleting, key, meta, owner_refs, uid
from mycel.cluster.controllers.world import World
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, Conflict, NotFound
from mycel.k8s.informer import Codec, Informer
from mycel.k8s.resources import CRDS, EVENTS, Resource
from mycel.kit.workqueue import WorkQueue

log = logging.getLogger(__name__)

_WORKERS = 6
_SETTLE_S = 0.5  # custom kinds come in bunches: ask once what there is
Removed = Callable[[Item], None]


class _Owner(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    api_version: str
    kind: str
    name: str
    uid: str
    block_owner_deletion: bool = False


class _Meta(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] | None = None
    owner_references: tuple[_Owner, ...] | None = None


class _Head(msgspec.Struct, frozen=True, gc=False):
    metadata: _Meta


class GarbageCollector:
    """Start `run()` once the world's caches are synced.

    `kinds` and `graph` serve the namespace controller too.
    """

    def __init__(self, client: ApiClient, world: World, *, on_removed: Removed = lambda _item: None) -> None:
        self._client = client
        self._world = world
        self._on_removed = on_removed
        self._queue: WorkQueue[str] = WorkQueue()
        self._watches: dict[Resource, asyncio.Task[None]] = {}
        self._stale = asyncio.Event()
        self._found = asyncio.Event()
        self.graph = Graph()
        self.kinds = Kinds(frozenset(), frozenset())

    async def wait_discovered(self) -> None:
        """Until the server's kinds are known."""
        await self._found.wait()

    def refresh_kinds(self) -> None:
        """Ask the server again which kinds there are."""
        self._stale.set()

    async def run(self) -> None:
        """Collect until cancelled."""
        for resource in self._world.resources:
            self._listen(resource)
        self._world[CRDS].subscribe(self._hear_crd)
        self._stale.set()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(_WORKERS):
                    group.create_task(self._work(), name=f"garbage-{number}")
                while True:
                    await self._stale.wait()
                    self._stale.clear()
                    await self._follow_kinds(group)
                    self._found.set()
                    await asyncio.sleep(_SETTLE_S)
        finally:
            self._queue.close()

    async def _follow_kinds(self, group: asyncio.TaskGroup) -> None:
        """Watch every kind there is, and no other."""
        try:
            self.kinds = await discover(self._client)
        except ApiError as exc:
            log.info("asking for the kinds: %s; again soon", exc)
            self._stale.set()
            return
        cached = {(one.group, one.plural) for one in (*self._world.resources, EVENTS)}
        wanted = {one for one in self.kinds.resources if (one.group, one.plural) not in cached}
        wanted = {one for one in wanted if one.plural != EVENTS.plural}
        for resource in self._watches.keys() - wanted:
            self._watches.pop(resource).cancel()
        for resource in wanted - self._watches.keys():
            task = group.create_task(self._watch(resource), name=f"garbage watch {resource}")
            self._watches[resource] = task

    def _hear_crd(self, old: Obj | None, new: Obj | None) -> None:
        if _served(old) != _served(new):
            self._stale.set()

    async def _watch(self, resource: Resource) -> None:
        informer = Informer(self._client, resource, Codec(_Head, lambda head: _item(resource, head.metadata)))
        informer.subscribe(lambda _key, old, new: self._hear(old, new))
        try:
            await informer.run()
        finally:
            for item in list(informer.store.values()):
                self._hear(item, None)

    def _listen(self, resource: Resource) -> None:
        def hear(old: Obj | None, new: Obj | None) -> None:
            self._hear(
                _item_of(resource, old) if old is not None else None,
                _item_of(resource, new) if new is not None else None,
            )

        cache = self._world[resource]
        cache.subscribe(hear)
        for obj in list(cache.objects.values()):
            hear(None, obj)

    def _hear(self, old: Item | None, new: Item | None) -> None:
        if old is not None and (new is None or old.uid != new.uid):
            gone = self.graph.remove(old.uid) or old
            for dependent in self.graph.dependents(old.uid):
                self._queue.add(dependent.uid)
            self._wake_leaving(gone)
            self._on_removed(gone)
        if new is None or new == self.graph.get(new.uid):
            return
        before = self.graph.get(new.uid)
        self.graph.put(new)
        if new.owners or new.deleting:
            self._queue.add(new.uid)
        if before is not None and before.owners != new.owners:
            self._wake_leaving(before)
        if new.deleting and new.finalizers:
            for dependent in self.graph.dependents(new.uid):
                self._queue.add(dependent.uid)

    def _wake_leaving(self, item: Item) -> None:
        """Owners that wait for this dependent may be able to go now."""
        for owner in item.owners:
            found = self.graph.get(owner.uid)
            if found is not None and found.deleting:
                self._queue.add(owner.uid)

    async def _work(self) -> None:
        while True:
            woken = await self._queue.get()
            try:
                await self._settle(woken)
            except ApiError as exc:
                pause_s = self._queue.retry(woken)
                log.debug("garbage %s: %s; again in %.1f s", woken, exc, pause_s)
            else:
                self._queue.forget(woken)
            finally:
                self._queue.done(woken)

    async def _settle(self, woken: str) -> None:
        item = self.graph.get(woken)
        if item is None:
            return
        known: dict[str, Presence] = {}
        verdict = judge(self.graph, item, known)
        if verdict.ask:
            for owner in verdict.ask:
                known[owner.uid] = await self._look_up(owner, item)
            verdict = judge(self.graph, self.graph.get(woken) or item, known)
        await self._execute(item, verdict)

    async def _look_up(self, owner: Owner, dependent: Item) -> Presence:
        resource = self.kinds.find(owner.api_version, owner.kind)
        if resource is None:
            return Presence.PRESENT  # a kind we do not know is no reason to delete anything
        space = dependent.where[0] if resource.namespaced else None
        if resource.namespaced and not space:
            return Presence.ABSENT
        try:
            found = await self._client.get(resource, owner.name, namespace=space)
        except NotFound:
            return Presence.ABSENT
        return Presence.PRESENT if uid(found) == owner.uid else Presence.ABSENT

    async def _execute(self, item: Item, verdict: Verdict) -> None:
        for dependent in verdict.orphan:
            await self._drop_owners(dependent, {item.uid})
        for dependent in verdict.cascade:
            nested = any(self.graph.dependents(dependent.uid))
            await self._delete(dependent, "Foreground" if nested else "Background")
        if verdict.delete:
            await self._delete(item, verdict.delete)
        if verdict.drop_owners:
            await self._drop_owners(item, set(verdict.drop_owners))
        if verdict.drop_finalizer:
            await self._drop_finalizer(item, verdict.drop_finalizer)

    async def _delete(self, item: Item, propagation: str) -> None:
        space, name = item.where
        try:
            await self._client.delete(
                item.resource, name, namespace=space or None, propagation=propagation, uid=item.uid
            )
        except (NotFound, Conflict) as exc:
            log.debug("garbage %s went by itself: %s", item, exc)

    async def _drop_owners(self, item: Item, gone: set[str]) -> None:
        found = await self._read(item)
        if found is None:
            return
        kept = [ref for ref in owner_refs(found) if ref.get("uid") not in gone]
        await self._write_meta(item, found, {"ownerReferences": kept or None})

    async def _drop_finalizer(self, item: Item, finalizer: str) -> None:
        found = await self._read(item)
        if found is None:
            return
        kept = [one for one in meta(found).get("finalizers") or () if one != finalizer]
        await self._write_meta(item, found, {"finalizers": kept or None})

    async def _read(self, item: Item) -> Obj | None:
        try:
            found = await self._client.get(item.resource, item.where[1], namespace=item.where[0] or None)
        except NotFound:
            return None
        return found if uid(found) == item.uid else None

    async def _write_meta(self, item: Item, found: Obj, change: Obj) -> None:
        locked = {"resourceVersion": meta(found).get("resourceVersion"), "uid": item.uid}
        space, name = item.where
        try:
            await self._client.patch(item.resource, name, {"metadata": {**change, **locked}}, namespace=space or None)
        except NotFound as exc:
            log.debug("garbage %s went by itself: %s", item, exc)


def _served(crd: Obj | None) -> object:
    """What of a CRD changes the set of kinds."""
    if crd is None:
        return None
    conditions = (crd.get("status") or {}).get("conditions") or ()
    established = any(one.get("type") == "Established" and one.get("status") == "True" for one in conditions)
    return established, (crd.get("spec") or {}).get("versions")


def _item(resource: Resource, found: _Meta) -> Item:
    owners = tuple(
        Owner(one.api_version, one.kind, one.name, one.uid, one.block_owner_deletion)
        for one in found.owner_references or ()
    )
    leaving = found.deletion_timestamp is not None
    return Item(found.uid, resource, (found.namespace, found.name), owners, found.finalizers or (), leaving)


def _item_of(resource: Resource, obj: Obj) -> Item:
    owners = tuple(
        Owner(
            ref.get("apiVersion", ""),
            ref.get("kind", ""),
            ref.get("name", ""),
            ref.get("uid", ""),
            bool(ref.get("blockOwnerDeletion")),
        )
        for ref in owner_refs(obj)
    )
    finalizers = tuple(meta(obj).get("finalizers") or ())
    return Item(uid(obj), resource, key(obj), owners, finalizers, is_deleting(obj))
