"""Which nodes a pod fits, why not the others, and which of those that fit is best. Pure."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mycel.cluster.controllers.objects import Obj, controller_uid, spec
from mycel.cluster.controllers.scheduler.affinity import Relations, relate
from mycel.cluster.controllers.scheduler.quantity import pod_requests
from mycel.cluster.controllers.scheduler.snapshot import HostPort, NodeState, Snapshot, host_ports
from mycel.cluster.controllers.selectors import fits_node_labels, matches_node_term, tolerates, untolerated

_ANY = "0.0.0.0"  # noqa: S104 (a wildcard in a comparison, nothing listens)
_DEFAULT_REQUEST = {"cpu": 100, "memory": 200 * 1024 * 1024}
"""What a pod without requests counts for when nodes are compared (not when they are filtered)."""


class Choice(NamedTuple):
    """A node's name, or the sentence that says why there is none."""

    node: str | None
    message: str


def choose(pod: Obj, snapshot: Snapshot) -> Choice:
    """The best node for a pod."""
    relations = relate(pod, snapshot)
    requests, ports = pod_requests(spec(pod)), host_ports(spec(pod))
    fitting: list[NodeState] = []
    reasons: collections.Counter[str] = collections.Counter()
    for node in snapshot.nodes.values():
        found = misfits(pod, node, relations, requests=requests, ports=ports)
        if found:
            reasons.update(found)
        else:
            fitting.append(node)
    if not fitting:
        return Choice(None, explain(len(snapshot.nodes), reasons))
    best = max(sorted(fitting, key=lambda node: node.name), key=lambda node: _rank(pod, node, relations, requests))
    return Choice(best.name, "")


def misfits(
    pod: Obj, node: NodeState, relations: Relations, *, requests: Mapping[str, int], ports: set[HostPort]
) -> list[str]:
    """Why the node does not take the pod; empty if it does. The first kind of obstacle alone is told."""
    pod_spec = spec(pod)
    if spec(node.node).get("unschedulable") and not tolerates(
        pod_spec.get("tolerations"), {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    ):
        return ["node(s) were unschedulable"]
    taint = untolerated(pod_spec, node.node, ("NoSchedule", "NoExecute"))
    if taint is not None:
        value = taint.get("value") or ""
        return [f"node(s) had untolerated taint {{{taint.get('key')}: {value}}}"]
    if not fits_node_labels(pod_spec, node.node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if any(_clash(mine, theirs) for mine in ports for theirs in node.ports):
        return ["node(s) didn't have free ports for the requested pod ports"]
    short = list(_shortages(node, requests))
    if short:
        return short
    away = relations.keep_away(node)
    return [away] if away is not None else []


def _clash(one: HostPort, other: HostPort) -> bool:
    return one[1:] == other[1:] and (one[0] == other[0] or _ANY in (one[0], other[0]))


def _shortages(node: NodeState, requests: Mapping[str, int]) -> Iterable[str]:
    if "pods" in node.capacity and len(node.pods) + 1 > node.capacity["pods"]:
        yield "Too many pods"
    for resource, amount in requests.items():
        if amount and node.used.get(resource, 0) + amount > node.capacity.get(resource, 0):
            yield f"Insufficient {resource}"


def explain(nodes: int, reasons: Mapping[str, int]) -> str:
    """`0/4 nodes are available: 1 Insufficient cpu, 3 node(s) …`, sorted as the scheduler prints it."""
    if not nodes:
        return "no nodes available to schedule pods"
    parts = sorted(f"{count} {reason}" for reason, count in reasons.items())
    return f"0/{nodes} nodes are available: {', '.join(parts)}."


def _rank(pod: Obj, node: NodeState, relations: Relations, requests: Mapping[str, int]) -> tuple[float, ...]:
    """Higher is better: wishes of the pod first, then few siblings, then free room. Ties go by node name."""
    wishes = _node_preference(pod, node) + relations.preference(node)
    soft_skew = sum(
        spread.skew(node) for spread in relations.spreads if not spread.hard and spread.topology_key in node.labels
    )
    owner = controller_uid(pod)
    siblings = sum(controller_uid(other) == owner for other in node.pods) if owner else 0
    return (-_soft_taints(pod, node), wishes, -soft_skew, -siblings, _free(node, requests))


def _node_preference(pod: Obj, node: NodeState) -> int:
    affinity = (spec(pod).get("affinity") or {}).get("nodeAffinity") or {}
    return sum(
        one.get("weight", 1)
        for one in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        if matches_node_term(one.get("preference") or {}, node.node)
    )


def _soft_taints(pod: Obj, node: NodeState) -> int:
    return sum(
        taint.get("effect") == "PreferNoSchedule" and not tolerates(spec(pod).get("tolerations"), taint)
        for taint in spec(node.node).get("taints") or ()
    )


def _free(node: NodeState, requests: Mapping[str, int]) -> float:
    """The share of cpu and memory left with the pod there; pods without requests count a little."""
    shares: list[float] = []
    for resource, small in _DEFAULT_REQUEST.items():
        capacity = node.capacity.get(resource, 0)
        if capacity:
            asked = node.used.get(resource, 0) + requests.get(resource, 0) + small * (len(node.pods) + 1)
            shares.append(1 - asked / capacity)
    return round(sum(shares) / len(shares), 4) if shares else -float(len(node.pods))
