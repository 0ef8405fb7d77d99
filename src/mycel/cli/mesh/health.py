"""What a cluster says of the mesh → one report. Pure: `agents` reads, this judges.

The rules are those `cilium status` applies to DaemonSets, Deployments, pods and the agents' own words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

Object = dict[str, Any]


class State(StrEnum):
    """How a component is."""

    OK = "OK"
    WARNING = "warning"
    ERROR = "error"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Part:
    """A component to look for: its workload object and the label of its pods."""

    title: str
    kind: str
    name: str
    selector: str
    required: bool


PARTS = (
    Part("Agent", "DaemonSet", "cilium", "k8s-app=cilium", True),
    Part("Operator", "Deployment", "cilium-operator", "io.cilium/app=operator", True),
    Part("Envoy", "DaemonSet", "cilium-envoy", "name=cilium-envoy", False),
    Part("Hubble Relay", "Deployment", "hubble-relay", "k8s-app=hubble-relay", False),
    Part("Hubble UI", "Deployment", "hubble-ui", "k8s-app=hubble-ui", False),
    Part("ClusterMesh", "Deployment", "clustermesh-apiserver", "k8s-app=clustermesh-apiserver", False),
)


@dataclass(frozen=True, slots=True)
class Component:
    """One part as it was found."""

    part: Part
    state: State
    desired: int = 0
    ready: int = 0
    available: int = 0
    phases: Mapping[str, int] = field(default_factory=dict[str, int])
    images: Mapping[str, int] = field(default_factory=dict[str, int])
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything `mycel status` shows."""

    components: tuple[Component, ...]
    pods: int
    managed: int
    unmanaged: tuple[str, ...]  # namespace/name of running pods the mesh does not know
    nodes: int
    nodes_ready: int
    chart_version: str
    notes: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """No errors and no warnings."""
        return not self.problems()

    def problems(self) -> list[str]:
        """Sentences, errors first."""
        found: list[str] = []
        for component in self.components:
            found += [f"{component.part.name}: {text}" for text in component.errors]
        for component in self.components:
            found += [f"{component.part.name}: {text}" for text in component.warnings]
        if self.nodes_ready < self.nodes:
            found.append(f"nodes: {self.nodes - self.nodes_ready} of {self.nodes} not ready")
        if self.unmanaged:
            names = ", ".join(self.unmanaged[:3]) + (", …" if len(self.unmanaged) > 3 else "")
            found.append(f"pods: {len(self.unmanaged)} running ones are not managed: {names}")
        return found

    def progress(self) -> str:
        """One line for who waits."""
        parts = [
            f"{component.part.title.lower()} {component.ready}/{component.desired}"
            for component in self.components
            if component.state is not State.DISABLED
        ]
        parts.append(f"nodes ready {self.nodes_ready}/{self.nodes}")
        parts.append(f"pods managed {self.managed}/{self.pods}")
        return ", ".join(parts)

    def as_json(self) -> Object:
        """For `-o json`."""
        return {
            "healthy": self.healthy,
            "components": {
                component.part.name: {
                    "state": component.state.value,
                    "desired": component.desired,
                    "ready": component.ready,
                    "available": component.available,
                    "pods": dict(component.phases),
                    "images": dict(component.images),
                    "errors": list(component.errors),
                    "warnings": list(component.warnings),
                }
                for component in self.components
            },
            "nodes": {"total": self.nodes, "ready": self.nodes_ready},
            "pods": {"total": self.pods, "managed": self.managed, "unmanaged": list(self.unmanaged)},
            "chartVersion": self.chart_version,
            "problems": self.problems(),
            "notes": list(self.notes),
        }


def judge(
    part: Part, workload: Object | None, pods: Sequence[Object], said: Mapping[str, Object | str] | None = None
) -> Component:
    """One component. `said` maps agent pods to their status, or to why it could not be had."""
    if workload is None:
        state = State.ERROR if part.required else State.DISABLED
        errors = (f"{part.kind} {part.name} does not exist: mycel install creates it",) if part.required else ()
        return Component(part, state, errors=errors)
    desired, ready, available, errors, warnings = _workload(part, workload)
    phases = Counter(str(pod.get("status", {}).get("phase", "Unknown")) for pod in pods)
    images = Counter(
        str(container.get("image")) for pod in pods for container in pod.get("spec", {}).get("containers") or []
    )
    for pod in pods:
        pod_errors, pod_warnings = _pod(pod)
        errors += pod_errors
        warnings += pod_warnings
    for name, status in (said or {}).items():
        agent_errors, agent_warnings = _agent(name, status)
        errors += agent_errors
        warnings += agent_warnings
    state = State.ERROR if errors else State.WARNING if warnings else State.OK
    return Component(part, state, desired, ready, available, dict(phases), dict(images), tuple(errors), tuple(warnings))


def _workload(part: Part, item: Object) -> tuple[int, int, int, list[str], list[str]]:
    status: Object = item.get("status") or {}
    if part.kind == "DaemonSet":
        desired = int(status.get("desiredNumberScheduled", 0))
        ready = int(status.get("numberReady", 0))
        available = int(status.get("numberAvailable", 0))
        updated = int(status.get("updatedNumberScheduled", 0))
    else:
        desired = int(item.get("spec", {}).get("replicas", 1))
        ready = int(status.get("readyReplicas", 0))
        available = int(status.get("availableReplicas", 0))
        updated = int(status.get("updatedReplicas", 0))
    errors: list[str] = []
    warnings: list[str] = []
    if status.get("observedGeneration") != item["metadata"].get("generation"):
        warnings.append("its latest change has not been taken up yet")
    if desired == 0:
        errors.append("no pod of it is wanted anywhere")
    if ready < desired:
        errors.append(f"{desired - ready} pods of {desired} are not ready")
    elif available < desired:
        warnings.append(f"{desired - available} pods of {desired} are not available yet")
    if updated < desired:
        warnings.append(f"{desired - updated} pods of {desired} are not updated yet")
    return desired, ready, available, errors, warnings


def _pod(pod: Object) -> tuple[list[str], list[str]]:
    name = pod["metadata"]["name"]
    status: Object = pod.get("status") or {}
    errors: list[str] = []
    if status.get("phase") == "Failed":
        errors.append(f"pod {name} has failed: {status.get('message') or status.get('reason') or 'no reason given'}")
    for container in status.get("containerStatuses") or []:
        waiting: Object = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in {"CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull"}:
            errors.append(f"pod {name} is in {waiting['reason']}: {waiting.get('message', '')}".rstrip(": "))
    warnings = [f"pod {name} is pending"] if status.get("phase") == "Pending" else []
    return errors, warnings


def _agent(pod: str, status: Object | str) -> tuple[list[str], list[str]]:
    """An agent's own words: `cilium status -o json` (models.StatusResponse)."""
    if isinstance(status, str):
        return [f"{pod} does not answer: {status}"], []
    errors: list[str] = []
    warnings: list[str] = []
    cluster: Object = status.get("cluster") or {}
    named = {
        "agent": status.get("cilium"),
        "kubernetes": status.get("kubernetes"),
        "hubble": status.get("hubble"),
        "health": cluster.get("ciliumHealth"),
    }
    for what, entry in named.items():
        state = (entry or {}).get("state", "")
        text = f"{pod}: {what}: {(entry or {}).get('msg') or state}"
        if state == "Failure":
            errors.append(text)
        elif state == "Warning":
            warnings.append(text)
    for controller in status.get("controllers") or []:
        outcome: Object = controller.get("status") or {}
        if outcome.get("consecutive-failure-count"):
            warnings.append(f"{pod}: {controller.get('name')} fails: {outcome.get('last-failure-msg', '')}")
    return errors, warnings


class Pods(NamedTuple):
    """How many pods the mesh should wire, how many it does, and which running ones it does not."""

    total: int
    managed: int
    unmanaged: tuple[str, ...]


def count_pods(pods: Sequence[Object], endpoints: Sequence[Object]) -> Pods:
    """Compare pods off the host's network, running or about to, with the agents' CiliumEndpoints."""
    known = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in endpoints}
    total, managed, unmanaged = 0, 0, list[str]()
    for pod in pods:
        metadata, phase = pod["metadata"], pod.get("status", {}).get("phase")
        if pod.get("spec", {}).get("hostNetwork") or "deletionTimestamp" in metadata:
            continue
        if phase not in {"Running", "Pending"}:
            continue
        total += 1
        if (metadata["namespace"], metadata["name"]) in known:
            managed += 1
        elif phase == "Running":
            unmanaged.append(f"{metadata['namespace']}/{metadata['name']}")
    return Pods(total, managed, tuple(sorted(unmanaged)))


def dns_waits(services: Sequence[Object], slices: Sequence[Object]) -> bool:
    """Whether the cluster has a DNS service for which nothing answers yet: names would not resolve."""
    if not services:
        return False
    return not any(
        endpoint.get("conditions", {}).get("ready") is not False and endpoint.get("addresses")
        for item in slices
        for endpoint in item.get("endpoints") or []
    )


def count_ready(nodes: Sequence[Object]) -> int:
    """Nodes whose condition Ready is True."""
    return sum(
        1
        for node in nodes
        if any(
            condition.get("type") == "Ready" and condition.get("status") == "True"
            for condition in node.get("status", {}).get("conditions") or []
        )
    )
