"""What is garbage: identities nobody has, endpoints of pods that are gone, nodes that left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mycel.identity.numbering import unused
from mycel.model.workload import Identity, IdentityId, PodRef, PublishedEndpoint


@dataclass
class Ageing:
    """Keys that qualify, with the time since when. A key that stops qualifying starts anew."""

    grace_s: float
    since_s: dict[object, float] = field(default_factory=dict[object, float])

    def due(self, keys: Iterable[object], now_s: float) -> set[object]:
        """Those that have qualified, without a break, for the whole grace."""
        current = set(keys)
        self.since_s = {key: self.since_s.get(key, now_s) for key in current}
        return {key for key, since_s in self.since_s.items() if now_s - since_s >= self.grace_s}


def unused_identities(
    identities: Iterable[Identity], endpoints: Iterable[PublishedEndpoint]
) -> dict[IdentityId, Identity]:
    """Identities no CiliumEndpoint names."""
    known = {identity.id: identity for identity in identities}
    return {number: known[number] for number in unused(known.values(), (endpoint.identity for endpoint in endpoints))}


def orphans(endpoints: Iterable[PublishedEndpoint], pods: Mapping[PodRef, bool]) -> set[PodRef]:
    """CiliumEndpoints whose pod is gone or has ended. `pods` tells whether each existing pod still runs."""
    return {endpoint.ref for endpoint in endpoints if not pods.get(endpoint.ref, False)}


def departed_nodes(published: Iterable[str], nodes: Iterable[str]) -> set[str]:
    """CiliumNodes without a node."""
    return set(published) - set(nodes)
