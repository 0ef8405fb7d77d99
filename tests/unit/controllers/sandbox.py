"""A cluster of dicts: performs the writes that rules decide on, as the API server and the nodes would."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from mycel.cluster.controllers.objects import Key, Obj, evolve, format_time, key, meta, name, spec, status
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, Verb, Write
from mycel.k8s.resources import (
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)

KINDS = (
    NAMESPACES, NODES, LEASES, PODS, SERVICES, ENDPOINTS, ENDPOINT_SLICES, DEPLOYMENTS, REPLICA_SETS, DAEMON_SETS,
    STATEFUL_SETS, CONTROLLER_REVISIONS,
)  # fmt: skip
NOW_S = 1_700_000_000.0


class Sandbox:
    """Objects with uids and versions; `settle` runs rules until none wants anything more."""

    def __init__(self) -> None:
        self.world = World(KINDS)
        self.now_s = NOW_S
        self.log: list[str] = []
        self._numbers = itertools.count(1)

    def add(self, resource: Resource, body: dict[str, Any]) -> Obj:
        """Create an object."""
        number = next(self._numbers)
        metadata = {**body["metadata"]}
        metadata.setdefault("name", f"{metadata.get('generateName', '')}{number:05d}")
        metadata.update(
            uid=f"uid-{number}", resourceVersion=str(number), generation=1, creationTimestamp=format_time(self.now_s)
        )
        made = {**body, "metadata": metadata}
        self.world.observe(resource, made)
        return made

    def change(self, resource: Resource, obj: Obj, *, new_spec: bool = False) -> Obj:
        """Store another version of an object."""
        fresh = evolve(obj, "metadata", "resourceVersion", value=str(next(self._numbers)))
        if new_spec:
            fresh = evolve(fresh, "metadata", "generation", value=meta(obj)["generation"] + 1)
        self.world.observe(resource, fresh)
        return fresh

    def remove(self, resource: Resource, obj: Obj) -> None:
        """Take an object away for good."""
        self.world.forget(resource, key(obj), meta(obj)["uid"])

    def perform(self, decision: Decision) -> None:
        """Do what a rule wants done."""
        for write in decision.writes:
            self.log.append(str(write))
            self._perform(write)

    def _perform(self, write: Write) -> None:
        if write.verb is Verb.CREATE:
            self.add(write.resource, dict(write.body))
            return
        old = self.world[write.resource].get((write.namespace, write.name))
        if old is None:
            return
        if write.verb is Verb.DELETE:
            self.remove(write.resource, old)
        elif write.verb is Verb.PATCH:
            merged = merge(old, dict(write.body))
            self.change(write.resource, merged, new_spec=spec(merged) != spec(old))

    def settle(
        self, rules: Iterable[tuple[Callable[[World, Key, float], Decision], Resource]], steps: int = 60
    ) -> None:
        """Run rules over all objects of their kinds until nothing changes."""
        for _ in range(steps):
            before = len(self.log)
            for rule, resource in rules:
                for where in list(self.world[resource].objects):
                    self.perform(rule(self.world, where, self.now_s))
            if len(self.log) == before:
                return
        raise AssertionError(f"no rest after {steps} rounds; last writes: {self.log[-6:]}")

    def run_pods(self, ready: Callable[[Obj], bool] = lambda _pod: True) -> None:
        """Every pod starts; `ready` says which become ready."""
        for pod in list(self.world[PODS].objects.values()):
            state = "True" if ready(pod) else "False"
            if status(pod).get("phase") == "Running" and status(pod)["conditions"][0]["status"] == state:
                continue
            conditions = [{"type": "Ready", "status": state, "lastTransitionTime": format_time(self.now_s)}]
            number = next(self._numbers)
            running = {
                "phase": "Running",
                "podIP": f"10.244.{number // 250}.{number % 250}",
                "conditions": conditions,
            }
            self.change(
                PODS, evolve(pod, "status", value={**running, **{k: v for k, v in status(pod).items() if k == "podIP"}})
            )

    def all(self, resource: Resource) -> list[Obj]:
        """Objects of a kind by name."""
        return sorted(self.world[resource].objects.values(), key=name)


def merge(old: Obj, patch: Obj) -> Obj:
    """RFC 7396."""
    fresh = dict(old)
    for field, value in patch.items():
        if value is None:
            fresh.pop(field, None)
        elif isinstance(value, dict) and isinstance(fresh.get(field), dict):
            fresh[field] = merge(fresh[field], value)
        else:
            fresh[field] = value
    return fresh


def deployment(replicas: int = 3, image: str = "one", **more: Any) -> Obj:
    """A Deployment as the API server would have completed it."""
    return {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            **more,
        },
    }


def node(node_name: str, *, taints: list[Obj] | None = None, ready: bool = True, **labels: str) -> Obj:
    """A node."""
    return {
        "metadata": {"name": node_name, "labels": {"kubernetes.io/hostname": node_name, **labels}},
        "spec": {"taints": taints} if taints else {},
        "status": {
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def pod(pod_name: str, *, labels: dict[str, str] | None = None, namespace: str = "shop", **spec_fields: Any) -> Obj:
    """A pod that waits for a node unless `nodeName` is given."""
    return {
        "metadata": {"name": pod_name, "namespace": namespace, "labels": labels or {}},
        "spec": {"containers": [{"name": "main"}], **spec_fields},
        "status": {"phase": "Pending"},
    }
