"""Nodes: a share of the pod network for each, and the taints that follow from how each is doing. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

from mycel.cluster.controllers.loop import Controller, itself
from mycel.cluster.controllers.objects import (
    Key,
    Obj,
    condition,
    condition_is,
    created_s,
    evolve,
    format_time,
    is_deleting,
    is_finished,
    name,
    parse_time,
    spec,
    status,
    with_condition,
)
from mycel.cluster.controllers.settings import ControllerSettings, Network
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, Note, Write, note, update
from mycel.k8s.resources import LEASES, NODES, PODS

LEASE_NAMESPACE = "kube-node-lease"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
NETWORK_UNAVAILABLE = "node.kubernetes.io/network-unavailable"
_PRESSURE = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
}
_OURS = {NOT_READY, UNREACHABLE, UNSCHEDULABLE, NETWORK_UNAVAILABLE, *_PRESSURE.values()}


def free_share(subnet: Network, prefix: int, taken: Iterable[str]) -> str | None:
    """The lowest network of `prefix` length within `subnet` that overlaps none of `taken`."""
    used = {ipaddress.ip_network(one) for one in taken}
    for candidate in subnet.subnets(new_prefix=prefix):
        if candidate not in used and not any(candidate.overlaps(one) for one in used):
            return str(candidate)
    return None


def decide(world: World, where: Key, now_s: float, *, settings: ControllerSettings) -> Decision:
    """One pass over one node."""
    node = world[NODES].get(where)
    if node is None or is_deleting(node):
        return Decision()
    notes: tuple[Note, ...] = ()
    shared = _with_share(world, node, settings)
    if shared is None:
        message = f"the pod network {settings.pod_subnet} has no free /{settings.node_prefix} left for this node"
        notes = (note(NODES, node, "CIDRNotAvailable", message, warning=True),)
        shared = node
    writes: list[Write] = [*update(NODES, node, shared, locked=True)]
    silent_for_s = now_s - last_heard_s(world, node)
    again_s = max(settings.node_grace_s - silent_for_s, 0.0) + 1.0
    judged = node
    if silent_for_s > settings.node_grace_s:
        again_s = settings.node_grace_s
        judged = _give_up(node, now_s)
        writes += update(NODES, node, judged, subresource="status")
        if judged is not node and not condition_is(node, "Ready", "Unknown"):
            notes += (note(NODES, node, "NodeNotReady", f"Node {name(node)} status is now: NodeNotReady"),)
    tainted = evolve(judged, "spec", "taints", value=_taints(judged, now_s) or None)
    writes += update(NODES, judged, tainted, locked=True)
    if not condition_is(judged, "Ready"):
        writes += _pods_not_ready(world, where[1], now_s)
    return Decision(tuple(writes), notes, again_s)


def last_heard_s(world: World, node: Obj) -> float:
    """When the node last said that it lives: its Lease, its status, or else when it was made."""
    lease = world[LEASES].get((LEASE_NAMESPACE, name(node)))
    renewed = parse_time(spec(lease).get("renewTime")) if lease is not None else 0.0
    ready = condition(node, "Ready")
    beat = parse_time(ready.get("lastHeartbeatTime")) if ready and ready.get("status") != "Unknown" else 0.0
    return max(renewed, beat, created_s(node))


def _with_share(world: World, node: Obj, settings: ControllerSettings) -> Obj | None:
    if spec(node).get("podCIDR"):
        return node
    taken = [cidr for other in world[NODES].objects.values() for cidr in spec(other).get("podCIDRs") or ()]
    share = free_share(settings.pod_subnet, settings.node_prefix, taken)
    if share is None:
        return None
    return evolve(evolve(node, "spec", "podCIDR", value=share), "spec", "podCIDRs", value=[share])


def _give_up(node: Obj, now_s: float) -> Obj:
    """The node with every condition it used to report set to Unknown."""
    conditions = status(node).get("conditions") or []
    for kind in ("Ready", *_PRESSURE):
        old = condition(node, kind)
        if (old is None and kind != "Ready") or (old is not None and old.get("status") == "Unknown"):
            continue
        reason = "NodeStatusUnknown" if old is not None else "NodeStatusNeverUpdated"
        said = "Kubelet stopped posting node status." if old is not None else "Kubelet never posted node status."
        fresh = {"type": kind, "status": "Unknown", "reason": reason, "message": said}
        conditions = with_condition(conditions, fresh, now_s)
    if conditions == (status(node).get("conditions") or []):
        return node
    return evolve(node, "status", "conditions", value=conditions)


def _taints(node: Obj, now_s: float) -> list[Obj]:
    """The node's taints: those others set, as they are, and ours as its conditions demand."""
    ready = condition(node, "Ready")
    state = ready.get("status") if ready else "False"
    demanded: list[tuple[str, str]] = []
    if state == "False":
        demanded += [(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]
    elif state == "Unknown":
        demanded += [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
    demanded += [(taint, "NoSchedule") for kind, taint in _PRESSURE.items() if condition_is(node, kind)]
    if condition_is(node, "NetworkUnavailable"):
        demanded.append((NETWORK_UNAVAILABLE, "NoSchedule"))
    if spec(node).get("unschedulable"):
        demanded.append((UNSCHEDULABLE, "NoSchedule"))
    result: list[Obj] = []
    for taint in spec(node).get("taints") or ():
        place = (taint.get("key", ""), taint.get("effect", ""))
        if place[0] not in _OURS:
            result.append(taint)
        elif place in demanded:
            demanded.remove(place)
            result.append(taint)
    return result + [{"key": taint, "effect": effect, "timeAdded": format_time(now_s)} for taint, effect in demanded]


def _pods_not_ready(world: World, node: str, now_s: float) -> Iterable[Write]:
    """Pods of a node that does not answer serve nobody: their Ready condition goes to False."""
    found = world[NODES].get(("", node))
    if found is None or not condition_is(found, "Ready", "Unknown"):
        return
    for pod in world[PODS].on_node(node):
        if condition_is(pod, "Ready") and not is_finished(pod):
            fresh = {
                "type": "Ready",
                "status": "False",
                "reason": "NodeNotReady",
                "message": "Node is not ready",
            }
            conditions = with_condition(status(pod).get("conditions"), fresh, now_s)
            yield from update(PODS, pod, evolve(pod, "status", "conditions", value=conditions), subresource="status")


def _lease_trigger(world: World, _old: Obj | None, new: Obj | None) -> Iterable[Key]:
    """A renewed Lease matters at once only to a node that was given up."""
    if new is None:
        return ()
    node = world[NODES].get(("", name(new)))
    return (("", name(new)),) if node is not None and condition_is(node, "Ready", "Unknown") else ()


def controller(settings: ControllerSettings) -> Controller:
    """The node controller of a cluster with these settings."""

    def bound(world: World, where: Key, now_s: float) -> Decision:
        return decide(world, where, now_s, settings=settings)

    decided: Callable[[World, Key, float], Decision] = bound
    # One worker: two nodes must not be given the same share.
    return Controller("node", decided, {NODES: itself, LEASES: _lease_trigger}, workers=1)
