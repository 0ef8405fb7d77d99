"""Nodes with the pods on them, at one moment; a scheduling pass places pods into it one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mycel.cluster.controllers.nodes import NOT_READY, UNREACHABLE
from mycel.cluster.controllers.objects import (
    Obj,
    condition_is,
    container_ports,
    evolve,
    is_finished,
    labels,
    name,
    spec,
    status,
)
from mycel.cluster.controllers.scheduler.quantity import amounts, pod_requests
from mycel.cluster.controllers.world import World
from mycel.k8s.resources import NAMESPACES, NODES, PODS

HostPort = tuple[str, str, int]
"""(address, protocol, port); the address 0.0.0.0 means all."""


@dataclass(slots=True)
class NodeState:
    """One node and what is on it. Grows while a pass places pods."""

    node: Obj
    name: str
    labels: Mapping[str, str]
    capacity: Mapping[str, int]
    used: dict[str, int] = field(default_factory=dict[str, int])
    ports: set[HostPort] = field(default_factory=set[HostPort])
    pods: list[Obj] = field(default_factory=list[Obj])

    def place(self, pod: Obj) -> None:
        """Count the pod in."""
        for resource, amount in pod_requests(spec(pod)).items():
            self.used[resource] = self.used.get(resource, 0) + amount
        self.ports.update(host_ports(spec(pod)))
        self.pods.append(pod)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All nodes by name, and the namespaces' labels (for namespaceSelector)."""

    nodes: Mapping[str, NodeState]
    namespaces: Mapping[str, Mapping[str, str]]

    def all_pods(self) -> Iterable[tuple[NodeState, Obj]]:
        """Every placed pod with its node."""
        for state in self.nodes.values():
            for pod in state.pods:
                yield state, pod


def take(world: World, assumed: Mapping[str, tuple[Obj, str]]) -> Snapshot:
    """The cluster now; `assumed` are pods (by uid) whose binding is on its way to a node."""
    nodes: dict[str, NodeState] = {}
    for node in world[NODES].objects.values():
        found = status(node)
        capacity = amounts(found.get("allocatable") or found.get("capacity"))
        nodes[name(node)] = NodeState(_tainted(node), name(node), labels(node), capacity)
    for node_name, state in nodes.items():
        for pod in world[PODS].on_node(node_name):
            if not is_finished(pod):
                state.place(pod)
    for pod, node_name in assumed.values():
        if node_name in nodes:
            nodes[node_name].place(pod)
    spaces = {name(one): labels(one) for one in world[NAMESPACES].objects.values()}
    return Snapshot(nodes, spaces)


def _tainted(node: Obj) -> Obj:
    """The node with the taint that a new node, not ready yet, is about to get from the node controller."""
    taints = spec(node).get("taints") or []
    if condition_is(node, "Ready") or any(one.get("key") in (NOT_READY, UNREACHABLE) for one in taints):
        return node
    return evolve(node, "spec", "taints", value=[*taints, {"key": NOT_READY, "effect": "NoSchedule"}])


def host_ports(pod_spec: Obj) -> set[HostPort]:
    """The ports of the node itself that a pod takes."""
    found: set[HostPort] = set()
    shared = bool(pod_spec.get("hostNetwork"))
    for port in container_ports(pod_spec):
        number = port.get("hostPort") or (port.get("containerPort") if shared else None)
        if number:
            found.add((port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", number))  # noqa: S104
    return found
