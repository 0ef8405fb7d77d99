"""The garbage collector's judgement: owners that are there, gone, leaving, or waiting."""

from __future__ import annotations

import pytest

from mycel.cluster.controllers.graph import FOREGROUND, ORPHAN, Graph, Item, Owner, Presence, Verdict, judge
from mycel.k8s.resources import DEPLOYMENTS, PODS, REPLICA_SETS, Resource


def item(
    uid: str,
    *owners: str,
    resource: Resource = PODS,
    finalizers: tuple[str, ...] = (),
    deleting: bool = False,
    blocks: bool = True,
) -> Item:
    """An object with owners by uid."""
    listed = tuple(Owner("apps/v1", "ReplicaSet", one, one, blocks) for one in owners)
    return Item(uid, resource, ("shop", uid), listed, finalizers, deleting)


@pytest.fixture
def graph() -> Graph:
    """A Deployment with a ReplicaSet with a pod."""
    found = Graph()
    found.put(item("deploy", resource=DEPLOYMENTS))
    found.put(item("set", "deploy", resource=REPLICA_SETS))
    found.put(item("pod", "set"))
    return found


def about(graph: Graph, uid: str, **known: Presence) -> Verdict:
    """The verdict about an item."""
    found = graph.get(uid)
    assert found is not None
    return judge(graph, found, known)


def test_objects_with_their_owners_stay(graph: Graph) -> None:
    """Nothing is to be done."""
    assert all(about(graph, uid) == Verdict() for uid in ("deploy", "set", "pod"))


def test_an_unseen_owner_is_looked_up_before_anything_happens(graph: Graph) -> None:
    """Absent from the picture is not absent."""
    graph.remove("set")
    assert [one.uid for one in about(graph, "pod").ask] == ["set"]
    assert about(graph, "pod", set=Presence.PRESENT) == Verdict()
    assert about(graph, "pod", set=Presence.ABSENT) == Verdict(delete="Background")


def test_one_owner_of_two_gone(graph: Graph) -> None:
    """The object stays with the other; the dangling reference goes."""
    graph.put(item("shared", "set", "gone"))
    assert about(graph, "shared", gone=Presence.ABSENT) == Verdict(drop_owners=frozenset({"gone"}))


def test_foreground_deletion_waits_for_blocking_dependents(graph: Graph) -> None:
    """Dependents first; the finalizer when none is left that blocks."""
    graph.put(item("set", "deploy", resource=REPLICA_SETS, finalizers=(FOREGROUND,), deleting=True))
    verdict = about(graph, "set")
    assert [one.uid for one in verdict.cascade] == ["pod"]
    assert about(graph, "pod") == Verdict(delete="Background")
    graph.put(item("pod", "set", deleting=True))
    assert about(graph, "set") == Verdict(cascade=())
    graph.remove("pod")
    assert about(graph, "set") == Verdict(drop_finalizer=FOREGROUND)


def test_dependents_that_do_not_block_hold_nobody_up(graph: Graph) -> None:
    """blockOwnerDeletion false."""
    graph.put(item("pod", "set", blocks=False))
    graph.put(item("set", "deploy", resource=REPLICA_SETS, finalizers=(FOREGROUND,), deleting=True))
    assert about(graph, "set") == Verdict(drop_finalizer=FOREGROUND)


def test_orphaning_frees_dependents_first(graph: Graph) -> None:
    """`--cascade=orphan`."""
    graph.put(item("set", "deploy", resource=REPLICA_SETS, finalizers=(ORPHAN,), deleting=True))
    assert [one.uid for one in about(graph, "set").orphan] == ["pod"]
    graph.put(item("pod"))
    assert about(graph, "set") == Verdict(drop_finalizer=ORPHAN)


def test_the_picture_forgets_completely(graph: Graph) -> None:
    """No namespace, no dependents, no items left behind."""
    for uid in ("pod", "set", "deploy"):
        graph.remove(uid)
    assert len(graph) == 0
    assert list(graph.within("shop")) == []
    assert list(graph.dependents("set")) == []
