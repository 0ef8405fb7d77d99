"""What an object's status says: whether it can be used, what it names is there, and which nodes' Envoys hold it.

Every agent writes its own node's entry; the first node by name the conditions, of the entries and what it sees itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mycel.agent.envoy_configs.configs import Configs
from mycel.agent.statuses import REST_S, is_first
from mycel.agent.watches import Watches
from mycel.agent.writing import WriteQueue
from mycel.envoy.config.model import ConfigRef
from mycel.k8s.client import ApiClient, Patch
from mycel.policy.labels import Selector, kubernetes_labels

Json = Mapping[str, Any]
_FRAGMENT = 400  # characters of one node's words in a condition; all of them are in the node's entry
_MOST_WORDS = 4096


class View(NamedTuple):
    """How an object stands here. `taken` None: it is not for this node."""

    generation: int
    problem: str = ""
    unresolved: Sequence[str] = ()
    empty: Sequence[str] = ()
    taken: bool | None = None
    refusals: Sequence[str] = ()


def node_entry(view: View) -> dict[str, Any] | None:
    """What this node says; None when the object is not for it."""
    if view.taken is None:
        return None
    entry: dict[str, Any] = {"programmed": view.taken and not view.problem, "observedGeneration": view.generation}
    words = view.problem or "; ".join(view.refusals)
    return entry | ({"error": words[:_MOST_WORDS]} if words else {})


def judged(view: View, entries: Mapping[str, Json], nodes: Sequence[str]) -> list[dict[str, Any]]:
    """The three conditions: of the object, and of what the nodes it is for have said."""
    accepted = _condition(
        "Accepted", view, status=not view.problem, reasons=("Accepted", "Invalid"), message=view.problem or "valid"
    )
    resolved = _condition(
        "ResolvedRefs",
        view,
        status=not view.unresolved,
        reasons=("ResolvedRefs", "RefNotPermittedOrMissing"),
        message="; ".join(view.unresolved) or "all it names is there",
    )
    return [accepted, resolved, _programmed(view, entries, nodes)]


def _programmed(view: View, entries: Mapping[str, Json], nodes: Sequence[str]) -> dict[str, Any]:
    said = {node: entries.get(node) or {} for node in nodes}
    current = {node: entry for node, entry in said.items() if entry.get("observedGeneration") == view.generation}
    refused = {node: str(entry["error"]) for node, entry in current.items() if entry.get("error")}
    holding = [node for node, entry in current.items() if entry.get("programmed")]
    parts = [f"on {len(holding)} of {len(nodes)} nodes"]
    if view.problem:
        message = f"{parts[0]}: not accepted; what it said before stays"
        return _condition("Programmed", view, status=False, reasons=("", "Refused"), message=message)
    parts += [f"{node}: {words[:_FRAGMENT]}" for node, words in sorted(refused.items())]
    waiting = sorted(node for node in nodes if node not in refused and node not in holding)
    if waiting:
        parts.append(f"waiting for Envoy of {', '.join(waiting)}")
    if view.empty:
        parts.append(f"no endpoints: cluster {', '.join(view.empty)}")
    message = "; ".join(parts)
    if refused:
        return _condition("Programmed", view, status=False, reasons=("", "Refused"), message=message)
    if waiting:
        return _condition("Programmed", view, status=None, reasons=("", "Pending"), message=message)
    reason = "NoEndpoints" if view.empty else "Programmed"
    return _condition("Programmed", view, status=True, reasons=(reason, ""), message=message)


def _condition(kind: str, view: View, *, status: bool | None, reasons: tuple[str, str], message: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "Unknown" if status is None else str(status),
        "reason": reasons[0] if status else reasons[1],
        "message": message,
        "observedGeneration": view.generation,
    }


def status_patch(
    status: Json, *, node: str, entry: Json | None, conditions: Sequence[Json], now: str
) -> dict[str, Any]:
    """What has to change in a status; empty when nothing has. No conditions: they are not ours to say."""
    patch: dict[str, Any] = {}
    entries: Mapping[str, Json] = status.get("nodes") or {}
    held = entries.get(node)
    if entry is None:
        if held is not None:
            patch["nodes"] = {node: None}
    elif held is None or any(held.get(name) != entry.get(name) for name in {*entry, "error"}):
        patch["nodes"] = {node: {"error": None, **entry, "lastUpdated": now} if held else {**entry, "lastUpdated": now}}
    before = {each.get("type"): each for each in status.get("conditions") or []}
    made = [{**each, "lastTransitionTime": _since(before.get(each["type"], {}), each) or now} for each in conditions]
    if conditions and any(before.get(each["type"]) != each for each in made):
        kinds = {each["type"] for each in made}
        patch["conditions"] = [*(each for kind, each in before.items() if kind not in kinds), *made]
    return {"status": patch} if patch else {}


def _since(before: Json, condition: Json) -> str:
    return str(before.get("lastTransitionTime", "")) if before.get("status") == condition["status"] else ""


class ConfigStatus:
    """Writes the status of every object."""

    def __init__(self, client: ApiClient, watches: Watches, configs: Configs, *, node: str) -> None:
        self._client = client
        self._watches = watches
        self._configs = configs
        self._node = node
        self._informers = {informer.resource.kind: informer for informer in watches.envoy_configs}
        self._queue: WriteQueue[ConfigRef] = WriteQueue(self._write, what="status of", rest_s=REST_S)
        configs.changed = self._queue.touch
        watches.published_nodes.subscribe(
            lambda _key, old, new: self.touch_all() if (old is None) != (new is None) else None
        )

    def touch_all(self) -> None:
        """Every object may stand differently."""
        for informer in self._informers.values():
            for key in informer.store:
                self._queue.touch(ConfigRef(key.namespace, key.name))

    async def run(self) -> None:
        """Write until cancelled."""
        self.touch_all()
        await self._queue.run()

    async def _write(self, ref: ConfigRef) -> bool:
        informer = self._informers[ref.kind]
        found = informer.get(ref.name, ref.namespace)
        standing = self._configs.standing(ref)
        if found is None or standing is None or found["metadata"].get("generation") != standing.generation:
            return False
        view = self._view(ref)
        status: Json = found.get("status") or {}
        entry = node_entry(view)
        conditions: list[dict[str, Any]] = []
        if is_first(self._watches, self._node):
            entries = dict(status.get("nodes") or {}) | ({self._node: entry} if entry else {})
            conditions = judged(view, entries, self._nodes(standing.config.nodes if standing.config else Selector()))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = status_patch(status, node=self._node, entry=entry, conditions=conditions, now=now)
        if body:
            await self._client.patch(
                informer.resource,
                ref.name,
                body,
                namespace=ref.namespace or None,
                kind=Patch.MERGE,
                subresource="status",
            )
        return bool(body)

    def _view(self, ref: ConfigRef) -> View:
        standing, configs = self._configs.standing(ref), self._configs
        assert standing is not None
        config = standing.config
        if config is None:
            return View(standing.generation, standing.problem, taken=False)
        return View(
            standing.generation,
            standing.problem,
            (*config.unresolved, *configs.missing_secrets(config), *configs.missing_services(config)),
            configs.empty_clusters(config),
            configs.taken(config) if configs.serves(config) else None,
            configs.refusals(config),
        )

    def _nodes(self, selector: Selector) -> list[str]:
        """The nodes an object is for, of those with an agent."""
        labels = {node.name: node.labels for node in self._watches.nodes.store.values()}
        names = sorted(key.name for key in self._watches.published_nodes.store)
        return [name for name in names if selector.matches(kubernetes_labels(labels.get(name, {})))]
