"""What services' and pools' statuses should say, and the patches that make them say it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mycel.model.service import ServiceRef
from mycel.operator.loadbalancer.assign import Decision, Outcome, PoolState, Reason
from mycel.operator.loadbalancer.claims import SATISFIED, Told

CONFLICT = "cilium.io/PoolConflict"
TOTAL, AVAILABLE, USED = "cilium.io/IPsTotal", "cilium.io/IPsAvailable", "cilium.io/IPsUsed"


class PoolTold(NamedTuple):
    """What a pool's status says."""

    conflict: str
    total: str
    available: str
    used: str


def services_told(decision: Decision) -> dict[ServiceRef, Told]:
    """Every service's status."""
    return {ref: _told(outcome) for ref, outcome in decision.services.items()}


def _told(outcome: Outcome) -> Told:
    return Told(
        tuple(map(str, outcome.addresses)), outcome.reason is Reason.SATISFIED, outcome.reason.value, outcome.message
    )


def pool_told(state: PoolState) -> PoolTold:
    """A pool's status."""
    return PoolTold(state.conflict, str(state.total), str(state.available), str(state.used))


def service_patch(told: Told | None, now: str) -> dict[str, Any]:
    """A strategic merge patch of a service's status; None: it is none of ours any more."""
    if told is None:
        gone = {"type": SATISFIED, "$patch": "delete"}
        return {"status": {"loadBalancer": {"ingress": None}, "conditions": [gone]}}
    return {
        "status": {
            "loadBalancer": {"ingress": [{"ip": address} for address in told.addresses] or None},
            "conditions": [_condition(SATISFIED, str(told.satisfied), told.reason, told.message, now)],
        }
    }


def parse_pool_status(item: Mapping[str, Any]) -> PoolTold | None:
    """What a pool says; None while it says nothing."""
    found = {each.get("type"): each for each in (item.get("status") or {}).get("conditions") or ()}
    if not {CONFLICT, TOTAL, AVAILABLE, USED} <= found.keys():
        return None
    conflict = found[CONFLICT].get("message", "") if found[CONFLICT].get("status") == "True" else ""
    return PoolTold(conflict, *(found[each].get("message", "") for each in (TOTAL, AVAILABLE, USED)))


def pool_patch(told: PoolTold, now: str) -> dict[str, Any]:
    """A merge patch of a pool's status. Numbers are messages of conditions, as kubectl's columns read them."""
    numbers = ((TOTAL, told.total), (AVAILABLE, told.available), (USED, told.used))
    conflict = ("True", "unusable", told.conflict) if told.conflict else ("False", "resolved", "")
    return {
        "status": {
            "conditions": [
                _condition(CONFLICT, *conflict, now),
                *(_condition(kind, "Unknown", "noreason", text, now) for kind, text in numbers),
            ]
        }
    }


def _condition(kind: str, status: str, reason: str, message: str, now: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}
