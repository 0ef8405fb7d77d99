"""What a policy object's status says: whether it is valid, and from which revision on each node enforces it.

Every agent writes its own node's entry. Validity is the same everywhere, so one node writes it, the first by
name; the others only when it has not after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mycel.agent.policies import Policies, PolicyState
from mycel.agent.statuses import PATIENCE_S, StatusQueue, is_first
from mycel.agent.watches import Watches
from mycel.k8s.client import ApiClient, Patch
from mycel.k8s.resources import CILIUM_CLUSTERWIDE_NETWORK_POLICIES, CILIUM_NETWORK_POLICIES
from mycel.policy.engine import PolicyKeyRef


def status_patch(
    status: Mapping[str, Any],
    state: PolicyState,
    *,
    node: str,
    enforced: bool,
    judge: bool,
    now: str,
    refusal: str = "",
) -> dict[str, Any]:
    """What has to change in a status; empty when nothing has. `judge`: validity is ours to say.

    `refusal`: why ports with rules for the proxy are closed on this node.
    """
    patch: dict[str, Any] = {}
    if judge and not _says(status, state):
        valid = not state.problem
        condition = {
            "type": "Valid",
            "status": "True" if valid else "False",
            "reason": "Valid" if valid else "Invalid",
            "message": state.problem or "Policy validation succeeded",
            "observedGeneration": state.generation,
            "lastTransitionTime": _since(status, valid=valid) or now,
        }
        others = [each for each in status.get("conditions") or [] if each.get("type") != "Valid"]
        patch["conditions"] = [*others, condition]
    entry: dict[str, Any] = {
        "ok": not state.problem and not refusal,
        "enforcing": enforced and not state.problem,
        "localPolicyRevision": state.revision,
        "observedGeneration": state.generation,
    }
    if state.problem or refusal:
        entry["error"] = state.problem or refusal
    held: Mapping[str, Any] = (status.get("nodes") or {}).get(node) or {}
    if any(held.get(name) != entry.get(name) for name in {*entry, "error"}):
        cleared = {"error": None} if "error" in held and "error" not in entry else {}
        patch["nodes"] = {node: {**entry, **cleared, "lastUpdated": now}}
    return {"status": patch} if patch else {}


def _says(status: Mapping[str, Any], state: PolicyState) -> bool:
    """Whether the status already has our judgement."""
    found = _condition(status)
    return (
        found.get("status") == ("False" if state.problem else "True")
        and found.get("observedGeneration") == state.generation
        and (not state.problem or found.get("message") == state.problem)
    )


def _since(status: Mapping[str, Any], *, valid: bool) -> str:
    found = _condition(status)
    return str(found.get("lastTransitionTime", "")) if found.get("status") == str(valid) else ""


def _condition(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions") or [] if each.get("type") == "Valid"), {})


class PolicyStatus:
    """Writes the status of CiliumNetworkPolicies and clusterwide ones; Kubernetes' own have none."""

    def __init__(self, client: ApiClient, watches: Watches, policies: Policies, *, node: str) -> None:
        self._client = client
        self._watches = watches
        self._policies = policies
        self._node = node
        self._queue: StatusQueue[PolicyKeyRef] = StatusQueue(self._write)
        self._resources = {
            each.kind: (each, informer)
            for each, informer in (
                (CILIUM_NETWORK_POLICIES, watches.cilium_policies),
                (CILIUM_CLUSTERWIDE_NETWORK_POLICIES, watches.clusterwide_policies),
            )
        }
        policies.changed = self.touch

    def touch(self, key: PolicyKeyRef) -> None:
        """An object, or how it stands here, changed."""
        if key.kind in self._resources:
            self._queue.touch(key)

    async def run(self) -> None:
        """Write until cancelled."""
        for key in self._policies.states:
            self.touch(key)
        await self._queue.run()

    async def _write(self, key: PolicyKeyRef) -> None:
        state = self._policies.states.get(key)
        resource, informer = self._resources[key.kind]
        found = informer.get(key.name, key.namespace)
        if state is None or found is None:
            return
        enforced = self._policies.realized_revision >= state.revision
        if not enforced and not state.problem:
            return  # told when it is
        waited_s = asyncio.get_running_loop().time() - state.taken_at
        judge = is_first(self._watches, self._node) or waited_s >= PATIENCE_S
        status: Mapping[str, Any] = found.get("status") or {}
        if not judge and not _says(status, state):
            self._queue.touch_after(key, PATIENCE_S - waited_s)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        refusal = self._policies.refusal(key)
        body = status_patch(status, state, node=self._node, enforced=enforced, judge=judge, now=now, refusal=refusal)
        if body:
            await self._client.patch(
                resource,
                key.name,
                body,
                namespace=key.namespace or None,
                kind=Patch.MERGE,
                subresource="status",
            )
