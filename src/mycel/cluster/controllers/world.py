"""The cluster as the controllers see it: one cache per kind, fed by an informer and by the answers to our
own writes.

Taking in the answers of our own writes at once means a controller reads what it wrote: it never creates a pod
twice because the watch event is still on its way. Whichever copy has the higher resourceVersion wins, and the
uids of deleted objects are remembered for a while, so that a late answer cannot bring one back.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from mycel.cluster.controllers.objects import Key, Obj, controller_uid, meta, spec, uid
from mycel.k8s.resources import PODS, Resource

Listener = Callable[[Obj | None, Obj | None], None]
"""Called with (old, new) after a cache changed."""

_TOMBSTONES = 8192


class Cache:
    """All objects of one kind, indexed by namespace, managing owner and (pods) node."""

    def __init__(self, resource: Resource, tombstones: collections.OrderedDict[str, None]) -> None:
        self.resource = resource
        self._tombstones = tombstones
        self._objects: dict[Key, Obj] = {}
        self._by_namespace: dict[str, dict[Key, Obj]] = {}
        self._by_controller: dict[str, dict[Key, Obj]] = {}
        self._by_node: dict[str, dict[Key, Obj]] = {}
        self._listeners: list[Listener] = []
        self.objects: Mapping[Key, Obj] = MappingProxyType(self._objects)

    def get(self, key: Key) -> Obj | None:
        """The object, or None."""
        return self._objects.get(key)

    def within(self, namespace: str) -> Collection[Obj]:
        """The objects of one namespace."""
        return self._by_namespace.get(namespace, {}).values()

    def managed_by(self, owner_uid: str) -> Collection[Obj]:
        """The objects whose managing owner is that uid."""
        return self._by_controller.get(owner_uid, {}).values()

    def on_node(self, node: str) -> Collection[Obj]:
        """The pods bound to a node."""
        return self._by_node.get(node, {}).values()

    def subscribe(self, listener: Listener) -> None:
        """Hear every change from now on."""
        self._listeners.append(listener)

    def put(self, new: Obj) -> None:
        """Take an object in unless we know a newer version, or its end."""
        place = meta(new)
        where = (place.get("namespace") or "", place.get("name", ""))
        old = self._objects.get(where)
        if place.get("uid") in self._tombstones:
            return
        if old is not None and _version(old) >= _version(new):
            return
        if old is not None:
            self._unindex(where, old)
        self._objects[where] = new
        for index, entry in self._entries(where, new):
            index.setdefault(entry, {})[where] = new
        self._tell(old, new)

    def remove(self, where: Key, gone_uid: str | None) -> None:
        """Take an object out; another object of that name (other uid) stays."""
        if gone_uid:
            self._tombstones[gone_uid] = None
            if len(self._tombstones) > _TOMBSTONES:
                self._tombstones.popitem(last=False)
        old = self._objects.get(where)
        if old is None or (gone_uid and uid(old) != gone_uid):
            return
        self._unindex(where, old)
        del self._objects[where]
        self._tell(old, None)

    def hear(self, where: Key, old: Obj | None, new: Obj | None) -> None:
        """The informer's listener."""
        if old is not None and (new is None or uid(new) != uid(old)):
            self.remove((where[0], where[1]), uid(old))
        if new is not None:
            self.put(new)

    def _entries(self, where: Key, obj: Obj) -> Iterable[tuple[dict[str, dict[Key, Obj]], str]]:
        yield self._by_namespace, where[0]
        manager = controller_uid(obj)
        if manager:
            yield self._by_controller, manager
        if self.resource is PODS and spec(obj).get("nodeName"):
            yield self._by_node, spec(obj)["nodeName"]

    def _unindex(self, where: Key, obj: Obj) -> None:
        for index, entry in self._entries(where, obj):
            bucket = index.get(entry)
            if bucket is not None:
                bucket.pop(where, None)
                if not bucket:
                    del index[entry]

    def _tell(self, old: Obj | None, new: Obj | None) -> None:
        for listener in self._listeners:
            listener(old, new)


class World:
    """The caches of all kinds that controllers read."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._tombstones: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._caches = {resource: Cache(resource, self._tombstones) for resource in resources}

    def __getitem__(self, resource: Resource) -> Cache:
        return self._caches[resource]

    def __contains__(self, resource: Resource) -> bool:
        return resource in self._caches

    @property
    def resources(self) -> Collection[Resource]:
        """The kinds that are cached."""
        return self._caches.keys()

    def observe(self, resource: Resource, obj: Obj) -> None:
        """Take in the answer to a write."""
        cache = self._caches.get(resource)
        if cache is not None:
            cache.put(obj)

    def forget(self, resource: Resource, where: Key, gone_uid: str | None) -> None:
        """The API server says the object is gone."""
        cache = self._caches.get(resource)
        if cache is not None:
            cache.remove(where, gone_uid)

    @classmethod
    def of(cls, objects: Iterable[tuple[Resource, Obj]], resources: Iterable[Resource] = ()) -> World:
        """A world with these objects in it, for tests and offline questions."""
        listed = list(objects)
        world = cls(dict.fromkeys([*resources, *(resource for resource, _ in listed)]))
        for resource, obj in listed:
            world.observe(resource, obj)
        return world


def _version(obj: Obj) -> int:
    text = meta(obj).get("resourceVersion") or ""
    return int(text) if text.isdecimal() else 0
