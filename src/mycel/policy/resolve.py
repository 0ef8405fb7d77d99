"""What services and CIDR groups stand for: pods by the service's own selector, or addresses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mycel.model.address import Address
from mycel.policy.labels import LabelMap, Selector, equals, in_namespace
from mycel.policy.rules import (
    Cidr,
    CidrGroup,
    DirectionRules,
    Labelled,
    Network,
    Peer,
    Policy,
    Rule,
    ServicePeer,
    host_network,
)

Resolver = Callable[[Peer], tuple[Peer, ...]]
"""What a service or CIDR group stands for."""


class ServiceFacts(NamedTuple):
    """What matters of a Service."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    selector: Mapping[str, str]  # empty: its endpoints are somebody else's business


@dataclass
class Resolution:
    """Services and groups there are. What they stand for does not depend on the order they were told in."""

    services: dict[tuple[str, str], ServiceFacts] = field(default_factory=dict[tuple[str, str], ServiceFacts])
    addresses: dict[tuple[str, str], list[Address]] = field(default_factory=dict[tuple[str, str], list[Address]])
    groups: dict[str, tuple[Mapping[str, str], tuple[Network, ...]]] = field(
        default_factory=dict[str, tuple[Mapping[str, str], tuple[Network, ...]]]
    )

    @property
    def apiservers(self) -> Collection[Address]:
        """Where the API servers are, as their own service tells."""
        return self.addresses.get(("default", "kubernetes"), ())

    def resolve(self, peer: Peer) -> tuple[Peer, ...]:
        """Pods and networks a peer stands for; others are themselves."""
        match peer:
            case ServicePeer():
                # In an order of their own: sets are named after what is in them, however services came about.
                meant = (each for _, each in sorted(self.services.items()) if _is_meant(peer, each))
                return tuple(found for each in meant for found in self._behind(each))
            case CidrGroup(name, selector):
                return tuple(
                    Cidr(network)
                    for group, (labels, networks) in sorted(self.groups.items())
                    if (selector.matches(_plain(labels)) if selector else group == name)
                    for network in networks
                )
            case _:
                return (peer,)

    def _behind(self, service: ServiceFacts) -> tuple[Peer, ...]:
        if service.selector:
            pods = (equals(key, value) for key, value in sorted(service.selector.items()))
            return (Labelled(Selector((in_namespace(service.namespace), *pods))),)
        found = self.addresses.get((service.namespace, service.name), ())
        return tuple(Cidr(host_network(address)) for address in sorted(set(found)))


def needs_resolving(policy: Policy) -> bool:
    """Whether a policy, as it is written, names services or CIDR groups."""
    return any(
        _stands_for_others(peer)
        for side in (policy.ingress, policy.egress)
        if side is not None
        for rule in side.rules
        for peer in rule.peers or ()
    )


def resolved(policy: Policy, resolve: Resolver) -> Policy:
    """A policy with what its peers stand for in their place. A rule whose peers stand for nobody is about nobody."""
    if not needs_resolving(policy):
        return policy
    ingress, egress = (_resolved_side(side, resolve) for side in (policy.ingress, policy.egress))
    return dataclasses.replace(policy, ingress=ingress, egress=egress)


def _resolved_side(side: DirectionRules | None, resolve: Resolver) -> DirectionRules | None:
    if side is None:
        return None
    rules: list[Rule] = []
    for rule in side.rules:
        if rule.peers is not None and any(map(_stands_for_others, rule.peers)):
            peers = (resolve(peer) if _stands_for_others(peer) else (peer,) for peer in rule.peers)
            rule = dataclasses.replace(rule, peers=tuple(found for each in peers for found in each))
        if rule.peers != ():
            rules.append(rule)
    return side._replace(rules=tuple(rules))


def _stands_for_others(peer: Peer) -> bool:
    return isinstance(peer, ServicePeer | CidrGroup)


def _is_meant(peer: ServicePeer, service: ServiceFacts) -> bool:
    if peer.namespace and peer.namespace != service.namespace:
        return False
    if peer.selector is not None:
        return peer.selector.matches(_plain(service.labels))
    return peer.name == service.name


def _plain(labels: Mapping[str, str]) -> LabelMap:
    return {key: (("k8s", value),) for key, value in labels.items()}
