"""DaemonSets: one pod on every node that wants it. Pure.

The pods are placed by the scheduler, each bound to its node by affinity on `metadata.name`, so that host
ports and resources are judged in one place. They tolerate what a node says about itself while it is not
ready.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mycel.cluster.controllers.loop import Controller, its_controller, itself
from mycel.cluster.controllers.objects import (
    Key,
    Obj,
    availability,
    evolve,
    generation,
    int_or_percent,
    is_deleting,
    is_ready,
    labels,
    name,
    spec,
    status,
)
from mycel.cluster.controllers.ownership import claim
from mycel.cluster.controllers.pods import create_pod
from mycel.cluster.controllers.revisions import HASH_LABEL, keep_history
from mycel.cluster.controllers.selectors import fits_node_labels, untolerated
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, Write, delete, note, update
from mycel.k8s.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS

_NO_EXECUTE = ("not-ready", "unreachable")
_NO_SCHEDULE = ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")


class Place(NamedTuple):
    """What a DaemonSet wants of one node."""

    run: bool
    """A pod should be there."""
    keep: bool
    """A pod that is there may stay."""


def decide(world: World, where: Key, now_s: float) -> Decision:
    """One pass over one DaemonSet."""
    daemon_set = world[DAEMON_SETS].get(where)
    if daemon_set is None:
        return Decision()
    claimed = claim(
        DAEMON_SETS,
        daemon_set,
        kind=PODS,
        candidates=world[PODS].within(where[0]),
        selector=spec(daemon_set).get("selector"),
    )
    by_node: dict[str, list[Obj]] = {}
    for pod in claimed.owned:
        by_node.setdefault(target_node(pod), []).append(pod)
    in_use = frozenset(labels(pod).get(HASH_LABEL, "") for pod in claimed.owned)
    history = keep_history(
        DAEMON_SETS,
        daemon_set,
        world[CONTROLLER_REVISIONS].within(where[0]),
        in_use=in_use,
        limit=spec(daemon_set).get("revisionHistoryLimit", 10),
    )
    nodes = list(world[NODES].objects.values())
    writes: list[Write] = [*claimed.writes]
    if not is_deleting(daemon_set):
        writes += history.writes
        scaling = _manage(daemon_set, nodes, by_node, history.hash)
        writes += scaling
        if not scaling:
            writes += _roll(daemon_set, nodes, by_node, history.hash, now_s)
    fresh, again_s = observe(daemon_set, nodes, by_node, history.hash, now_s)
    writes += update(DAEMON_SETS, daemon_set, fresh, subresource="status")
    failed = [pod for pod in claimed.owned if status(pod).get("phase") == "Failed" and not is_deleting(pod)]
    notes = tuple(
        note(
            DAEMON_SETS,
            daemon_set,
            "FailedDaemonPod",
            f"Found failed daemon pod {where[0]}/{name(pod)} on node {target_node(pod)}, will try to kill it",
            warning=True,
        )
        for pod in failed
    )
    return Decision(tuple(writes), notes, again_s)


def wants(daemon_set: Obj, node: Obj) -> Place:
    """Whether a DaemonSet's pod belongs on a node, by its selector, affinity and the node's taints."""
    pod_spec = daemon_pod_spec(daemon_set, name(node))
    template_spec = (spec(daemon_set).get("template") or {}).get("spec") or {}
    if template_spec.get("nodeName") not in (None, "", name(node)) or not fits_node_labels(template_spec, node):
        return Place(False, False)
    return Place(
        run=untolerated(pod_spec, node, ("NoSchedule", "NoExecute")) is None,
        keep=untolerated(pod_spec, node, ("NoExecute",)) is None,
    )


def daemon_pod_spec(daemon_set: Obj, node: str) -> Obj:
    """The template's pod spec, bound to one node and tolerating that node's own troubles."""
    template_spec = (spec(daemon_set).get("template") or {}).get("spec") or {}
    added = [("NoExecute", taint) for taint in _NO_EXECUTE] + [("NoSchedule", taint) for taint in _NO_SCHEDULE]
    if template_spec.get("hostNetwork"):
        added.append(("NoSchedule", "network-unavailable"))
    tolerations: list[Obj] = list(template_spec.get("tolerations") or ())
    for effect, taint in added:
        toleration = {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": effect}
        if toleration not in tolerations:
            tolerations.append(toleration)
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    affinity = template_spec.get("affinity") or {}
    node_affinity = affinity.get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = [{**term, "matchFields": [field]} for term in required.get("nodeSelectorTerms") or ()] or [
        {"matchFields": [field]}
    ]
    bound = {
        **node_affinity,
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
    }
    return {**template_spec, "tolerations": tolerations, "affinity": {**affinity, "nodeAffinity": bound}}


def target_node(pod: Obj) -> str:
    """The node a daemon pod is on or meant for."""
    bound = spec(pod).get("nodeName")
    if bound:
        return bound
    affinity = (spec(pod).get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and field.get("values"):
                return field["values"][0]
    return ""


def _manage(daemon_set: Obj, nodes: list[Obj], by_node: dict[str, list[Obj]], revision: str) -> list[Write]:
    """Create what is missing, delete what is too much, finished or on a node that is gone."""
    creates: list[Write] = []
    deletes: list[Write] = []
    for node in nodes:
        place = wants(daemon_set, node)
        pods = by_node.get(name(node), [])
        finished = [pod for pod in pods if status(pod).get("phase") in ("Failed", "Succeeded")]
        deletes += [delete(PODS, pod) for pod in finished if not is_deleting(pod)]
        alive = [pod for pod in pods if pod not in finished]
        if place.run and not pods:
            pod_spec = daemon_pod_spec(daemon_set, name(node))
            creates.append(create_pod(DAEMON_SETS, daemon_set, extra_labels={HASH_LABEL: revision}, pod_spec=pod_spec))
        surplus = alive[1:] if place.keep else alive
        if len(alive) > 1:
            surplus = sorted(alive, key=lambda pod: (is_deleting(pod), not is_ready(pod), name(pod)))
            surplus = surplus[1:] if place.keep else surplus
        deletes += [delete(PODS, pod) for pod in surplus if not is_deleting(pod)]
    known = {name(node) for node in nodes}
    for node_name, pods in by_node.items():
        if node_name not in known:
            deletes += [delete(PODS, pod) for pod in pods if not is_deleting(pod)]
    return creates + deletes


def _roll(
    daemon_set: Obj, nodes: list[Obj], by_node: dict[str, list[Obj]], revision: str, now_s: float
) -> Iterable[Write]:
    """Delete outdated pods: those that serve nobody at once, the others within maxUnavailable."""
    strategy = spec(daemon_set).get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return []
    wanted = [node for node in nodes if wants(daemon_set, node).run]
    allowed = int_or_percent((strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1), len(wanted), round_up=True)
    min_ready_s = spec(daemon_set).get("minReadySeconds", 0)
    unavailable = 0
    serving: list[Obj] = []
    victims: list[Obj] = []
    for node in wanted:
        pods = [pod for pod in by_node.get(name(node), []) if not is_deleting(pod)]
        up = any(availability(pod, min_ready_s, now_s).now for pod in pods)
        unavailable += not up
        outdated = [pod for pod in pods if labels(pod).get(HASH_LABEL) != revision]
        (serving if up else victims).extend(outdated)
    victims += serving[: max(max(allowed, 1) - unavailable, 0)]
    return [delete(PODS, pod) for pod in victims]


def observe(
    daemon_set: Obj, nodes: list[Obj], by_node: dict[str, list[Obj]], revision: str, now_s: float
) -> tuple[Obj, float | None]:
    """The DaemonSet with fresh status, and when to look again for availability."""
    desired = current = misplaced = ready = updated = available = 0
    again_s: float | None = None
    min_ready_s = spec(daemon_set).get("minReadySeconds", 0)
    for node in nodes:
        pods = [pod for pod in by_node.get(name(node), []) if not is_deleting(pod)]
        if not wants(daemon_set, node).run:
            misplaced += bool(pods)
            continue
        desired += 1
        if not pods:
            continue
        current += 1
        pod = min(pods, key=lambda one: (not is_ready(one), name(one)))
        ready += is_ready(pod)
        updated += labels(pod).get(HASH_LABEL) == revision
        up = availability(pod, min_ready_s, now_s)
        available += up.now
        if up.in_s is not None:
            again_s = min(again_s or up.in_s, up.in_s)
    optional = {
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": desired - available,
    }
    fresh = {
        **{field: value for field, value in status(daemon_set).items() if field not in optional},
        "currentNumberScheduled": current,
        "desiredNumberScheduled": desired,
        "numberMisscheduled": misplaced,
        "numberReady": ready,
        "observedGeneration": generation(daemon_set),
        **{field: count for field, count in optional.items() if count},
    }
    return evolve(daemon_set, "status", value=fresh), again_s


def _node_trigger(world: World, old: Obj | None, new: Obj | None) -> Iterable[Key]:
    """A node that comes, goes, or changes in what decides about placement."""
    if old is not None and new is not None:
        same = labels(old) == labels(new) and spec(old).get("taints") == spec(new).get("taints")
        if same:
            return ()
    return tuple(world[DAEMON_SETS].objects)


CONTROLLER = Controller(
    name="daemonset",
    decide=decide,
    triggers={
        DAEMON_SETS: itself,
        PODS: its_controller("DaemonSet"),
        CONTROLLER_REVISIONS: its_controller("DaemonSet"),
        NODES: _node_trigger,
    },
)
