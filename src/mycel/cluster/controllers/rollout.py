"""How a Deployment moves from old ReplicaSets to the new one: numbers in, numbers out. Pure.

Every function takes the current `Replicas` and answers with the sizes that should change in this pass; the
next pass goes on from there. The arithmetic is that of Kubernetes' rolling update: never more than replicas
+ maxSurge pods, never fewer than replicas - maxUnavailable available ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, NewType

from mycel.cluster.controllers.objects import Obj, created_s, int_or_percent, name, spec, status

SetName = NewType("SetName", str)
Sizes = Mapping[SetName, int]
"""ReplicaSet name → the `spec.replicas` it should get."""


class Replicas(NamedTuple):
    """One ReplicaSet, reduced to what rolling needs. Sequences of these are oldest first."""

    name: SetName
    wanted: int
    available: int

    @classmethod
    def of(cls, replica_set: Obj) -> Replicas:
        """From the API object."""
        return cls(
            SetName(name(replica_set)),
            spec(replica_set).get("replicas", 1),
            status(replica_set).get("availableReplicas", 0),
        )


class Budget(NamedTuple):
    """How far a rolling update may go above and below the wanted number of pods."""

    surge: int
    unavailable: int

    @classmethod
    def of(cls, deployment: Obj) -> Budget:
        """Resolve percentages; both zero would never move, so one unavailable pod is allowed then."""
        wanted = spec(deployment).get("replicas", 1)
        rolling = (spec(deployment).get("strategy") or {}).get("rollingUpdate") or {}
        surge = int_or_percent(rolling.get("maxSurge", "25%"), wanted, round_up=True)
        unavailable = int_or_percent(rolling.get("maxUnavailable", "25%"), wanted, round_up=False)
        if not surge and not unavailable:
            unavailable = 1
        return cls(surge, min(unavailable, wanted))


def new_set_size(wanted: int, new_size: int, total: int, budget: Budget) -> int:
    """The size of the new ReplicaSet; `total` is the sum of all sizes, its own included."""
    if new_size >= wanted:
        return wanted
    room = wanted + budget.surge - total
    return new_size + min(max(room, 0), wanted - new_size)


def shrink_old(wanted: int, new: Replicas, old: Sequence[Replicas], budget: Budget) -> Sizes:
    """Sizes of old ReplicaSets after taking away unavailable pods first, then available ones."""
    floor = wanted - budget.unavailable
    total = new.wanted + sum(one.wanted for one in old)
    removable = total - floor - (new.wanted - new.available)
    if removable <= 0:
        return {}
    sizes: dict[SetName, int] = {}
    left = removable
    for one in old:
        unhealthy = min(left, max(one.wanted - one.available, 0))
        if unhealthy:
            sizes[one.name] = one.wanted - unhealthy
            left -= unhealthy
    spare = new.available + sum(one.available for one in old) - floor
    for one in old:
        if spare <= 0:
            break
        size = sizes.get(one.name, one.wanted)
        taken = min(size, spare)
        if taken > 0:
            sizes[one.name] = size - taken
            spare -= taken
    return sizes


def spread_proportionally(allowed: int, sets: Sequence[tuple[Replicas, int]], *, was_allowed: int) -> Sizes:
    """Resize all active ReplicaSets when the Deployment is scaled in the middle of a rollout.

    `sets` pairs each ReplicaSet with the allowed total it was last scaled for (0: unknown, then
    `was_allowed`); the biggest get the remainder.
    """
    total = sum(one.wanted for one, _ in sets)
    change = allowed - total
    if change == 0 or not sets:
        return {}
    ordered = sorted(sets, key=lambda pair: -pair[0].wanted)
    sizes: dict[SetName, int] = {}
    given = 0
    for one, before in ordered:
        scaled = round(one.wanted * allowed / (before or was_allowed or allowed)) if one.wanted else 0
        step = scaled - one.wanted
        left = change - given
        step = max(min(step, left), 0) if change > 0 else min(max(step, left), 0)
        sizes[one.name] = one.wanted + step
        given += step
    biggest = ordered[0][0].name
    sizes[biggest] = max(sizes[biggest] + change - given, 0)
    return sizes


def oldest_first(replica_sets: Sequence[Obj]) -> list[Obj]:
    """By creation time, then name."""
    return sorted(replica_sets, key=lambda one: (created_s(one), name(one)))
