"""Who owns whom, over all kinds: the garbage collector's picture of the cluster. Pure.

Only metadata is kept. An owner that is missing from the picture may merely not have been seen yet, so
`judge` asks its caller to look at the API server before anything is deleted for its sake.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mycel.cluster.controllers.objects import Key
from mycel.k8s.resources import Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Owner(NamedTuple):
    """One ownerReference."""

    api_version: str
    kind: str
    name: str
    uid: str
    blocks: bool


class Item(NamedTuple):
    """One object."""

    uid: str
    resource: Resource
    where: Key
    owners: tuple[Owner, ...]
    finalizers: tuple[str, ...]
    deleting: bool

    def __str__(self) -> str:
        return f"{self.resource} {'/'.join(part for part in self.where if part)}"


class Presence(enum.Enum):
    """What the API server says about an owner."""

    PRESENT = "present"
    ABSENT = "absent"


class Graph:
    """All items by uid, and their dependents."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._dependents: dict[str, set[str]] = {}
        self._by_namespace: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, uid: str) -> Item | None:
        """The item of that uid."""
        return self._items.get(uid)

    def put(self, item: Item) -> None:
        """Take an item in, or its newer version."""
        self.remove(item.uid)
        self._items[item.uid] = item
        self._by_namespace.setdefault(item.where[0], set()).add(item.uid)
        for owner in item.owners:
            self._dependents.setdefault(owner.uid, set()).add(item.uid)

    def remove(self, uid: str) -> Item | None:
        """Take an item out; its dependents stay known as such."""
        item = self._items.pop(uid, None)
        if item is None:
            return None
        _discard(self._by_namespace, item.where[0], uid)
        for owner in item.owners:
            _discard(self._dependents, owner.uid, uid)
        return item

    def dependents(self, uid: str) -> Iterable[Item]:
        """The items that name this uid as an owner."""
        return [self._items[one] for one in self._dependents.get(uid, ()) if one in self._items]

    def within(self, namespace: str) -> Iterable[Item]:
        """Everything in a namespace."""
        return [self._items[one] for one in self._by_namespace.get(namespace, ())]


def _discard(index: dict[str, set[str]], entry: str, uid: str) -> None:
    found = index.get(entry)
    if found is not None:
        found.discard(uid)
        if not found:
            del index[entry]


class Verdict(NamedTuple):
    """What is to be done about one item."""

    delete: str = ""
    """Propagation policy to delete it with; empty: it stays."""
    drop_owners: frozenset[str] = frozenset()
    """Owner uids to take out of its references."""
    drop_finalizer: str = ""
    cascade: tuple[Item, ...] = ()
    """Dependents to delete because their owner waits for them."""
    orphan: tuple[Item, ...] = ()
    """Dependents to free of this owner first."""
    ask: tuple[Owner, ...] = ()
    """Owners whose presence has to be looked up before anything can be said."""


def judge(graph: Graph, item: Item, known: Mapping[str, Presence]) -> Verdict:
    """What the owner references and finalizers of `item` demand. `known` are looked-up owners by uid."""
    if item.deleting:
        return _judge_leaving(graph, item)
    if not item.owners:
        return Verdict()
    unsure = tuple(one for one in item.owners if graph.get(one.uid) is None and one.uid not in known)
    if unsure:
        return Verdict(ask=unsure)
    solid: list[str] = []
    waiting: list[str] = []
    dangling: list[str] = []
    for owner in item.owners:
        found = graph.get(owner.uid)
        if found is None and known.get(owner.uid) is Presence.ABSENT:
            dangling.append(owner.uid)
        elif found is not None and found.deleting and FOREGROUND in found.finalizers:
            waiting.append(owner.uid)
        else:
            solid.append(owner.uid)
    if solid:
        return Verdict(drop_owners=frozenset(dangling + waiting))
    if waiting:
        return Verdict(delete="Foreground" if any(graph.dependents(item.uid)) else "Background")
    if ORPHAN in item.finalizers:
        return Verdict(delete="Orphan")
    return Verdict(delete="Foreground" if FOREGROUND in item.finalizers else "Background")


def _judge_leaving(graph: Graph, item: Item) -> Verdict:
    dependents = tuple(graph.dependents(item.uid))
    if ORPHAN in item.finalizers:
        return Verdict(orphan=dependents) if dependents else Verdict(drop_finalizer=ORPHAN)
    if FOREGROUND in item.finalizers:
        blocking = [one for one in dependents if any(o.uid == item.uid and o.blocks for o in one.owners)]
        if not blocking:
            return Verdict(drop_finalizer=FOREGROUND)
        return Verdict(cascade=tuple(one for one in dependents if not one.deleting))
    return Verdict()
