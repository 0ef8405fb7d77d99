"""Rules between pods: affinity and anti-affinity by topology domain, and even spreading. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mycel.cluster.controllers.objects import Obj, is_deleting, labels, namespace, spec
from mycel.cluster.controllers.scheduler.snapshot import NodeState, Snapshot
from mycel.cluster.controllers.selectors import fits_node_labels, matches_labels, untolerated

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
Domain = tuple[str, str]
"""(topology key, its value on a node)."""


def _terms(pod: Obj, side: str, kind: str) -> list[Obj]:
    return ((spec(pod).get("affinity") or {}).get(side) or {}).get(kind) or []


def term_selects(term: Mapping[str, Any], owner: Obj, other: Obj, snapshot: Snapshot) -> bool:
    """Whether an affinity term of `owner` speaks of the pod `other`."""
    spaces = term.get("namespaces") or ()
    selector = term.get("namespaceSelector")
    if selector is not None:
        in_space = namespace(other) in spaces or matches_labels(selector, snapshot.namespaces.get(namespace(other), {}))
    else:
        in_space = namespace(other) in (spaces or (namespace(owner),))
    return in_space and matches_labels(_with_keys(term, owner), labels(other))


def _with_keys(term: Mapping[str, Any], owner: Obj) -> Mapping[str, Any] | None:
    """The term's selector, narrowed by matchLabelKeys and mismatchLabelKeys to the owner's own values."""
    selector: Mapping[str, Any] | None = term.get("labelSelector")
    added = [
        {"key": label, "operator": operator, "values": [labels(owner)[label]]}
        for field_, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
        for label in term.get(field_) or ()
        if label in labels(owner)
    ]
    if selector is None or not added:
        return selector
    return {**selector, "matchExpressions": [*(selector.get("matchExpressions") or ()), *added]}


@dataclass(frozen=True, slots=True)
class Spread:
    """One topologySpreadConstraint with the matching pods counted in each domain."""

    topology_key: str
    max_skew: int
    hard: bool
    counts: Mapping[str, int]
    matches_self: bool

    def skew(self, node: NodeState) -> int:
        """How far the node's domain would be above the emptiest one with the pod there."""
        here = self.counts.get(node.labels[self.topology_key], 0)
        return here + int(self.matches_self) - min(self.counts.values(), default=0)


@dataclass(frozen=True, slots=True)
class Relations:
    """What the placed pods mean for one pod to be placed; computed once per pod, asked once per node."""

    wanted: tuple[tuple[Obj, frozenset[str], bool], ...]
    """Required affinity: the term, the domains where a selected pod is, and whether the pod selects
    itself.
    """
    some_selected: bool
    """A selected pod exists somewhere, for any of the terms."""
    avoided: frozenset[Domain]
    """Domains the pod's own required anti-affinity rules out."""
    refused: frozenset[Domain]
    """Domains where another pod's required anti-affinity keeps this one away."""
    preferred: Mapping[Domain, int] = field(default_factory=dict[Domain, int])
    """Weights of domains, positive and negative."""
    spreads: tuple[Spread, ...] = ()

    def keep_away(self, node: NodeState) -> str | None:
        """Why the node is out of the question, in the scheduler's words; None if it is not."""
        if self.wanted and not self._affine(node):
            return "node(s) didn't match pod affinity rules"
        if any(node.labels.get(label) == value for label, value in self.avoided):
            return "node(s) didn't match pod anti-affinity rules"
        if any(node.labels.get(label) == value for label, value in self.refused):
            return "node(s) didn't satisfy existing pods anti-affinity rules"
        for spread in self.spreads:
            if not spread.hard:
                continue
            if spread.topology_key not in node.labels:
                return "node(s) didn't match pod topology spread constraints (missing required label)"
            if spread.skew(node) > spread.max_skew:
                return "node(s) didn't match pod topology spread constraints"
        return None

    def _affine(self, node: NodeState) -> bool:
        if any(term.get("topologyKey") not in node.labels for term, _, _ in self.wanted):
            return False
        if all(node.labels[term["topologyKey"]] in domains for term, domains, _ in self.wanted):
            return True
        # The first pod of a group that wants to be together must not wait for itself.
        return not self.some_selected and all(own for _, _, own in self.wanted)

    def preference(self, node: NodeState) -> int:
        """Sum of the weights that speak for (or against) the node."""
        return sum(weight for (label, value), weight in self.preferred.items() if node.labels.get(label) == value)


def relate(pod: Obj, snapshot: Snapshot) -> Relations:
    """Look at every placed pod once."""
    needs = _terms(pod, "podAffinity", _REQUIRED)
    avoids = _terms(pod, "podAntiAffinity", _REQUIRED)
    likes = [(one, 1) for one in _terms(pod, "podAffinity", _PREFERRED)]
    likes += [(one, -1) for one in _terms(pod, "podAntiAffinity", _PREFERRED)]
    domains: list[set[str]] = [set() for _ in needs]
    avoided: set[Domain] = set()
    refused: set[Domain] = set()
    preferred: dict[Domain, int] = {}
    selected = False
    for node, other in snapshot.all_pods():
        for place, term in zip(domains, needs, strict=True):
            if term_selects(term, pod, other, snapshot):
                selected = True
                _note_domain(place, node, term)
        for term in avoids:
            if term_selects(term, pod, other, snapshot):
                avoided.update(_domain(node, term))
        for weighted, sign in likes:
            term = weighted.get("podAffinityTerm") or {}
            if term_selects(term, pod, other, snapshot):
                for domain in _domain(node, term):
                    preferred[domain] = preferred.get(domain, 0) + sign * weighted.get("weight", 1)
        for term in _terms(other, "podAntiAffinity", _REQUIRED):
            if term_selects(term, other, pod, snapshot):
                refused.update(_domain(node, term))
    wanted = tuple(
        (term, frozenset(found), term_selects(term, pod, pod, snapshot))
        for term, found in zip(needs, domains, strict=True)
    )
    return Relations(
        wanted, selected, frozenset(avoided), frozenset(refused), preferred, tuple(_spreads(pod, snapshot))
    )


def _note_domain(place: set[str], node: NodeState, term: Obj) -> None:
    value = node.labels.get(term.get("topologyKey", ""))
    if value is not None:
        place.add(value)


def _domain(node: NodeState, term: Mapping[str, Any]) -> Iterable[Domain]:
    label = term.get("topologyKey", "")
    return ((label, node.labels[label]),) if label in node.labels else ()


def _spreads(pod: Obj, snapshot: Snapshot) -> Iterable[Spread]:
    for constraint in spec(pod).get("topologySpreadConstraints") or ():
        label = constraint["topologyKey"]
        selector = _with_keys(constraint, pod)
        counts: dict[str, int] = {}
        for node in snapshot.nodes.values():
            if label not in node.labels or not _counts(constraint, pod, node):
                continue
            value = node.labels[label]
            counts[value] = counts.get(value, 0) + sum(
                namespace(other) == namespace(pod)
                and not is_deleting(other)
                and matches_labels(selector, labels(other))
                for other in node.pods
            )
        yield Spread(
            topology_key=label,
            max_skew=constraint.get("maxSkew", 1),
            hard=constraint.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule",
            counts=_at_least(counts, constraint.get("minDomains")),
            matches_self=matches_labels(selector, labels(pod)),
        )


def _counts(constraint: Mapping[str, Any], pod: Obj, node: NodeState) -> bool:
    """Whether a node's pods are part of the sum (nodeAffinityPolicy Honor, nodeTaintsPolicy Ignore by
    default).
    """
    if constraint.get("nodeAffinityPolicy", "Honor") == "Honor" and not fits_node_labels(spec(pod), node.node):
        return False
    if constraint.get("nodeTaintsPolicy") == "Honor":
        return untolerated(spec(pod), node.node, ("NoSchedule", "NoExecute")) is None
    return True


def _at_least(counts: dict[str, int], domains: int | None) -> Mapping[str, int]:
    """With fewer domains than `minDomains` the emptiest one counts as 0."""
    return {**counts, "": 0} if domains and len(counts) < domains else counts
