"""Pods that must go: from nodes with NoExecute taints they do not tolerate (for longer), and from nodes that
are gone. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from mycel.cluster.controllers.loop import Controller
from mycel.cluster.controllers.objects import Key, Obj, is_deleting, is_finished, key, name, parse_time, spec
from mycel.cluster.controllers.selectors import tolerates
from mycel.cluster.controllers.settings import ControllerSettings
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, delete, note
from mycel.k8s.resources import NODES, PODS


def decide(
    world: World, where: Key, now_s: float, *, settings: ControllerSettings, missing_since: dict[str, float]
) -> Decision:
    """One pass over one pod that is bound to a node."""
    pod = world[PODS].get(where)
    if pod is None:
        return Decision()
    node_name = spec(pod).get("nodeName")
    if not node_name:
        return Decision()
    node = world[NODES].get(("", node_name))
    if node is None:
        left_s = missing_since.setdefault(node_name, now_s) + settings.orphan_grace_s - now_s
        if left_s > 0:
            return Decision(again_s=left_s)
        return Decision((delete(PODS, pod, grace_s=0),))
    missing_since.pop(node_name, None)
    if is_deleting(pod) or is_finished(pod):
        return Decision()
    left_s = stays_for_s(pod, node, now_s)
    if left_s is None:
        return Decision()
    if left_s > 0:
        return Decision(again_s=left_s)
    return Decision(
        (delete(PODS, pod),),
        (note(PODS, pod, "TaintManagerEviction", f"Marking for deletion Pod {where[0]}/{where[1]}"),),
    )


def stays_for_s(pod: Obj, node: Obj, now_s: float) -> float | None:
    """Seconds the pod may still stay for its node's NoExecute taints; None: for ever."""
    limits: list[float] = []
    for taint in spec(node).get("taints") or ():
        if taint.get("effect") != "NoExecute":
            continue
        fitting = [one for one in spec(pod).get("tolerations") or () if tolerates([one], taint)]
        if not fitting:
            return 0.0
        seconds = [one["tolerationSeconds"] for one in fitting if one.get("tolerationSeconds") is not None]
        if len(seconds) < len(fitting):
            continue
        since_s = parse_time(taint.get("timeAdded")) or now_s
        limits.append(max(since_s + min(seconds) - now_s, 0.0))
    return min(limits, default=None)


def _pod_trigger(_world: World, old: Obj | None, new: Obj | None) -> Iterable[Key]:
    """A pod that was just bound (tolerations cannot be taken away later)."""
    if new is None or not spec(new).get("nodeName"):
        return ()
    if old is not None and spec(old).get("nodeName"):
        return ()
    return (key(new),)


def _node_trigger(world: World, old: Obj | None, new: Obj | None) -> Iterable[Key]:
    """All pods of a node that went, came, or was tainted anew."""
    if old is not None and new is not None and spec(old).get("taints") == spec(new).get("taints"):
        return ()
    obj = new if new is not None else old
    return () if obj is None else tuple(key(pod) for pod in world[PODS].on_node(name(obj)))


def controller(settings: ControllerSettings) -> Controller:
    """The eviction controller of a cluster with these settings."""
    missing_since: dict[str, float] = {}

    def bound(world: World, where: Key, now_s: float) -> Decision:
        return decide(world, where, now_s, settings=settings, missing_since=missing_since)

    return Controller("eviction", bound, {PODS: _pod_trigger, NODES: _node_trigger}, workers=2)
