"""A Service as the allocation of its addresses sees it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mycel.model.service import ServiceRef
from mycel.operator.loadbalancer.pools import IpAddress
from mycel.policy.labels import LabelMap, service_labels

CLASSES = frozenset({"io.cilium/l2-announcer", "io.cilium/bgp-control-plane"})
SATISFIED = "cilium.io/IPAMRequestSatisfied"
# The name of today first, then that of earlier versions.
_IPS = ("lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips")
_SHARING = ("lbipam.cilium.io/sharing-key", "io.cilium/lb-ipam-sharing-key")
_ACROSS = ("lbipam.cilium.io/sharing-cross-namespace", "io.cilium/lb-ipam-sharing-cross-namespace")
_MOST_REQUESTED = 32


class Told(NamedTuple):
    """What a service's status says of its addresses; `reason` empty: we have said nothing."""

    addresses: tuple[str, ...] = ()
    satisfied: bool = False
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A service and what it wants. `wants` False: it is none of ours (any more)."""

    ref: ServiceRef
    uid: str
    created: str
    labels: LabelMap
    wants: bool
    versions: tuple[int, ...]  # families: 4, 6
    requested: tuple[IpAddress, ...]
    unreadable: tuple[str, ...]  # of what it requests
    sharing_key: str
    across: frozenset[str]  # namespaces it shares with besides its own; "*": all
    ports: frozenset[tuple[str, int]]
    local: bool
    selector: Mapping[str, str]
    told: Told

    def shares_with(self, other: Claim) -> bool:
        """Whether both may have one address: same key, no port in common, and packets that go the same way."""
        if not self.sharing_key or self.sharing_key != other.sharing_key or self.ports & other.ports:
            return False
        if self.local != other.local or (self.local and self.selector != other.selector):
            return False
        return self.ref.namespace == other.ref.namespace or (self._lets_in(other) and other._lets_in(self))

    def _lets_in(self, other: Claim) -> bool:
        return bool(self.across & {"*", other.ref.namespace})


def parse_claim(item: Mapping[str, Any]) -> Claim:
    """A v1 Service, read for its addresses."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    ref = ServiceRef(metadata.get("namespace", ""), metadata["name"])
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    requested, unreadable = _requested(annotations, spec)
    kind = spec.get("loadBalancerClass")
    return Claim(
        ref=ref,
        uid=str(metadata.get("uid", "")),
        created=str(metadata.get("creationTimestamp", "")),
        labels=service_labels(*ref, metadata.get("labels") or {}),
        wants=spec.get("type") == "LoadBalancer"
        and (kind is None or kind in CLASSES)
        and not metadata.get("deletionTimestamp"),
        versions=tuple(4 if family == "IPv4" else 6 for family in spec.get("ipFamilies") or ("IPv4",)),
        requested=requested,
        unreadable=unreadable,
        sharing_key=_annotation(annotations, _SHARING),
        across=frozenset(_words(_annotation(annotations, _ACROSS))),
        ports=frozenset((port.get("protocol", "TCP"), port["port"]) for port in spec.get("ports") or ()),
        local=spec.get("externalTrafficPolicy") == "Local",
        selector=spec.get("selector") or {},
        told=_told(item.get("status") or {}),
    )


def _told(status: Mapping[str, Any]) -> Told:
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    addresses = tuple(each["ip"] for each in ingress if each.get("ip"))
    for each in status.get("conditions") or ():
        if each.get("type") == SATISFIED:
            return Told(addresses, each.get("status") == "True", each.get("reason", ""), each.get("message", ""))
    return Told(addresses)


def _requested(
    annotations: Mapping[str, str], spec: Mapping[str, Any]
) -> tuple[tuple[IpAddress, ...], tuple[str, ...]]:
    words = _words(_annotation(annotations, _IPS)) or _words(spec.get("loadBalancerIP") or "")
    found: dict[IpAddress, None] = {}
    unreadable: list[str] = []
    for word in words[:_MOST_REQUESTED]:
        try:
            found[ipaddress.ip_address(word)] = None
        except ValueError:
            unreadable.append(word)
    return tuple(found), tuple(unreadable)


def _annotation(annotations: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((annotations[name].strip() for name in names if name in annotations), "")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
