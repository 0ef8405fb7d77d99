"""Caches that read their own writes."""

from __future__ import annotations

from mycel.cluster.controllers.objects import Obj, key
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import merge_diff
from mycel.k8s.resources import PODS

from .sandbox import merge


def version(number: int, uid: str = "u", **spec: str) -> Obj:
    """A pod at some resourceVersion."""
    metadata = {"name": "p", "namespace": "shop", "uid": uid, "resourceVersion": str(number)}
    return {"metadata": metadata, "spec": spec}


def test_the_newest_version_wins_whoever_brings_it() -> None:
    """A watch event older than the answer to our own write changes nothing."""
    world = World([PODS])
    heard: list[tuple[Obj | None, Obj | None]] = []
    world[PODS].subscribe(lambda old, new: heard.append((old, new)))
    world.observe(PODS, version(10))
    world[PODS].hear(("shop", "p"), None, version(9))
    assert world[PODS].get(("shop", "p")) == version(10)
    assert heard == [(None, version(10))]


def test_a_late_answer_does_not_bring_the_dead_back() -> None:
    """Created and deleted before the answer to the creation was read."""
    world = World([PODS])
    world[PODS].hear(("shop", "p"), None, version(10))
    world[PODS].hear(("shop", "p"), version(10), None)
    world.observe(PODS, version(10))
    assert world[PODS].get(("shop", "p")) is None


def test_a_successor_of_the_same_name_survives_its_predecessors_end() -> None:
    """The watch tells of the old one's deletion after we made the new one."""
    world = World([PODS])
    world.observe(PODS, version(10, "old"))
    world.observe(PODS, version(12, "new"))
    world[PODS].hear(("shop", "p"), version(10, "old"), None)
    assert world[PODS].get(("shop", "p")) == version(12, "new")


def test_indexes_follow() -> None:
    """By namespace and node."""
    world = World([PODS])
    world.observe(PODS, version(10))
    assert [key(pod) for pod in world[PODS].within("shop")] == [("shop", "p")]
    world.observe(PODS, version(11, nodeName="n"))
    assert len(world[PODS].on_node("n")) == 1
    world.forget(PODS, ("shop", "p"), "u")
    assert len(world[PODS].on_node("n")) == len(world[PODS].within("shop")) == 0


def test_merge_patches_lead_from_old_to_new() -> None:
    """Changed, added and removed fields, nested; lists whole; equal objects give nothing."""
    old = {"a": 1, "b": {"c": 1, "d": [1, 2]}, "e": "x"}
    new = {"a": 1, "b": {"c": 2, "d": [1]}, "f": {}}
    patch = merge_diff(old, new)
    assert patch == {"b": {"c": 2, "d": [1]}, "e": None, "f": {}}
    assert merge(old, patch) == new
    assert merge_diff(old, old) == {}
