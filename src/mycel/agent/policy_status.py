"""What a policy object's status says: whether it is valid, and from which revision on each node enforces it.

Every agent writes its own node's entry. Validity is the same everywhere, so one node writes it, the first by
name; the others only when it has not after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mycel.agent.named_secrets import NamedSecrets
from mycel.agent.policy_objects import PolicyObjects, PolicyState
from mycel.agent.statuses import PATIENCE_S, REST_S, is_first
from mycel.agent.watches import Watches
from mycel.agent.writing import WriteQueue
from mycel.k8s.client import ApiClient, Patch
from mycel.k8s.resources import CILIUM_CLUSTERWIDE_NETWORK_POLICIES, CILIUM_NETWORK_POLICIES
from mycel.policy.engine import PolicyKeyRef
from mycel.policy.http import SecretRef

_VALID, _RESOLVED = "Valid", "ResolvedRefs"


def status_patch(
    status: Mapping[str, Any],
    state: PolicyState,
    *,
    node: str,
    enforced: bool,
    judge: bool,
    now: str,
    refusal: str = "",
    names: bool = False,
    unresolved: Sequence[str] | None = (),
) -> dict[str, Any]:
    """What has to change in a status; empty when nothing has. `judge`: conditions are ours to write.

    `refusal`: why ports with rules for the proxy are closed on this node. `names`: whether it names any Secrets;
    `unresolved`: what is wrong with them, None when this node does not know.
    """
    patch: dict[str, Any] = {}
    if judge:
        wanted = [_valid(state)]
        if names and unresolved is None:
            wanted += [each for each in status.get("conditions") or [] if each.get("type") == _RESOLVED]
        elif names:
            wanted.append(_resolved(state, unresolved or ()))
        conditions = _conditions(status, wanted, now)
        if conditions != (status.get("conditions") or []):
            patch["conditions"] = conditions
    problem = state.problem or refusal or "; ".join(unresolved or ())
    entry: dict[str, Any] = {
        "ok": not problem,
        "enforcing": enforced and not state.problem,
        "localPolicyRevision": state.revision,
        "observedGeneration": state.generation,
    }
    if problem:
        entry["error"] = problem
    held: Mapping[str, Any] = (status.get("nodes") or {}).get(node) or {}
    if any(held.get(name) != entry.get(name) for name in {*entry, "error"}):
        cleared = {"error": None} if "error" in held and "error" not in entry else {}
        patch["nodes"] = {node: {**entry, **cleared, "lastUpdated": now}}
    return {"status": patch} if patch else {}


def _valid(state: PolicyState) -> dict[str, Any]:
    return {
        "type": _VALID,
        "status": "False" if state.problem else "True",
        "reason": "Invalid" if state.problem else "Valid",
        "message": state.problem or "Policy validation succeeded",
        "observedGeneration": state.generation,
    }


def _resolved(state: PolicyState, unresolved: Sequence[str]) -> dict[str, Any]:
    return {
        "type": _RESOLVED,
        "status": "False" if unresolved else "True",
        "reason": "RefNotPermittedOrMissing" if unresolved else "ResolvedRefs",
        "message": "; ".join(unresolved) or "all it names is there",
        "observedGeneration": state.generation,
    }


def _conditions(status: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]], now: str) -> list[dict[str, Any]]:
    """A status' conditions with ours as they are to be; those of others stay."""
    before: Mapping[str, Any] = {each.get("type", ""): each for each in status.get("conditions") or []}
    found = [dict(each) for name, each in before.items() if name not in (_VALID, _RESOLVED)]
    for each in wanted:
        held = before.get(each["type"]) or {}
        since = held.get("lastTransitionTime") if held.get("status") == each["status"] else None
        found.append({**each, "lastTransitionTime": since or now})
    return found


def _says(status: Mapping[str, Any], state: PolicyState) -> bool:
    """Whether the status already has our judgement."""
    held = next((each for each in status.get("conditions") or [] if each.get("type") == _VALID), {})
    wanted = _valid(state)
    return (held.get("status"), held.get("observedGeneration")) == (wanted["status"], wanted["observedGeneration"])


class PolicyStatus:
    """Writes the status of CiliumNetworkPolicies and clusterwide ones; Kubernetes' own have none."""

    def __init__(
        self,
        client: ApiClient,
        watches: Watches,
        objects: PolicyObjects,
        *,
        node: str,
        secrets: NamedSecrets,
        refusal: Callable[[PolicyKeyRef], str],
        unresolved: Callable[[Iterable[SecretRef]], Sequence[str] | None],
    ) -> None:
        """`refusal`: why rules for the proxy are not in force here. `unresolved`: what is wrong with Secrets; None when
        nobody knows here.
        """
        self._client = client
        self._secrets = secrets
        self._unresolved = unresolved
        self._watches = watches
        self._objects = objects
        self._refusal = refusal
        self._node = node
        self._queue: WriteQueue[PolicyKeyRef] = WriteQueue(self._write, what="status of", rest_s=REST_S)
        self._resources = {
            each.kind: (each, informer)
            for each, informer in (
                (CILIUM_NETWORK_POLICIES, watches.cilium_policies),
                (CILIUM_CLUSTERWIDE_NETWORK_POLICIES, watches.clusterwide_policies),
            )
        }
        objects.subscribe(self.touch)

    def touch(self, key: PolicyKeyRef) -> None:
        """An object, or how it stands here, changed."""
        if key.kind in self._resources:
            self._queue.touch(key)

    async def run(self) -> None:
        """Write until cancelled."""
        for key in self._objects.states:
            self.touch(key)
        await self._queue.run()

    async def _write(self, key: PolicyKeyRef) -> bool:
        state = self._objects.states.get(key)
        resource, informer = self._resources[key.kind]
        found = informer.get(key.name, key.namespace)
        if state is None or found is None:
            return False
        enforced = self._objects.realized_revision >= state.revision
        if not enforced and not state.problem:
            return False  # told when it is
        waited_s = asyncio.get_running_loop().time() - state.taken_at
        judge = is_first(self._watches, self._node) or waited_s >= PATIENCE_S
        status: Mapping[str, Any] = found.get("status") or {}
        if not judge and not _says(status, state):
            self._queue.touch_after(key, PATIENCE_S - waited_s)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        named = self._secrets.of(key)
        body = status_patch(
            status,
            state,
            node=self._node,
            enforced=enforced,
            judge=judge,
            now=now,
            refusal=self._refusal(key),
            names=bool(named),
            unresolved=self._unresolved(named),
        )
        if body:
            await self._client.patch(
                resource,
                key.name,
                body,
                namespace=key.namespace or None,
                kind=Patch.MERGE,
                subresource="status",
            )
        return bool(body)
