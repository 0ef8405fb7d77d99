"""Label selectors of the policy model: matchLabels and matchExpressions over labels with sources."""

from __future__ import annotations

from typing import Any

from tests.oracle.parties import CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS, Cluster, Party

Selector = dict[str, Any]


def split(key: str) -> tuple[str, str]:
    """`source:key`, `key` (any source) or `$host` as (source, key)."""
    if key.startswith("$"):
        return "reserved", key[1:]
    source, colon, rest = key.partition(":")
    return (source, rest) if colon else ("any", key)


def _values(party: Party, written: str) -> list[str]:
    source, key = split(written)
    return [value for found, value in party.labels.get(key, ()) if source in ("any", found)]


def matches(selector: Selector, party: Party) -> bool:
    """Whether a party's labels fit a selector as written; the empty one fits everybody."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if value not in _values(party, key):
            return False
    return all(_expression(entry, _values(party, entry["key"])) for entry in selector.get("matchExpressions") or [])


def _expression(entry: dict[str, Any], have: list[str]) -> bool:
    wanted = entry.get("values") or []
    if entry["operator"] == "In":
        return any(value in wanted for value in have)
    if entry["operator"] == "NotIn":
        return not any(value in wanted for value in have)
    return bool(have) == (entry["operator"] == "Exists")


def plain(selector: Selector, labels: dict[str, str]) -> bool:
    """A Kubernetes selector over an object's own labels (namespaces, services)."""
    everything = {key: [("k8s", value)] for key, value in labels.items()}
    return matches(selector, Party("pod", "", "", "", everything, labels, "", ()))


def _names(selector: Selector) -> list[tuple[str, str]]:
    written = [*(selector.get("matchLabels") or {}), *(e["key"] for e in selector.get("matchExpressions") or [])]
    return [split(key) for key in written]


def subject(selector: Selector, namespace: str | None, party: Party) -> bool:
    """`endpointSelector` of a policy in `namespace` (None: clusterwide), choice 11."""
    if namespace is not None:
        if party.namespace != namespace:
            return False
        labels = {
            key: value for key, value in (selector.get("matchLabels") or {}).items() if split(key)[1] != NAMESPACE_KEY
        }
        selector = {**selector, "matchLabels": labels}
    return matches(selector, party)


def peer(cluster: Cluster, selector: Selector, namespace: str | None, party: Party) -> bool:
    """`fromEndpoints`/`toEndpoints` of a policy in `namespace` (None: clusterwide), choice 17."""
    names = _names(selector)
    if any(source == "reserved" for source, _ in names):
        return matches(selector, party)
    keys = [key for source, key in names if source in ("any", "k8s")]
    if CLUSTER_KEY not in keys and ("k8s", cluster.cluster_name) not in party.labels.get(CLUSTER_KEY, ()):
        return False
    if not any(key == NAMESPACE_KEY or key.startswith(NAMESPACE_LABELS) for key in keys):
        if NAMESPACE_KEY not in party.labels:
            return False
        if namespace is not None and party.namespace != namespace:
            return False
    return matches(selector, party)
