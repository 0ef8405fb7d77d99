"""Policies in force: what an engine has to know of them beside their rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mycel.model.address import ANY_IPV4, ANY_IPV6
from mycel.policy.numbers import digest
from mycel.policy.rules import (
    Block,
    Cidr,
    DirectionRules,
    Labelled,
    Names,
    Network,
    Peer,
    Policy,
)

ALL_IPV4 = Network(ANY_IPV4, 96)
ALL_IPV6 = Network(ANY_IPV6, 0)
_FAMILIES = ("world-ipv4", "world-ipv6")


class Held(NamedTuple):
    """A policy as it is in force: its peers resolved."""

    policy: Policy
    digest: int


def hold(policy: Policy) -> Held:
    """A resolved policy, with the digest of its content."""
    return Held(policy, digest(policy))


def sides_of(policies: Iterable[Held]) -> Iterable[DirectionRules]:
    """What policies say of either direction, those of nodes left out."""
    for held in policies:
        if not held.policy.of_nodes:
            yield from (side for side in (held.policy.ingress, held.policy.egress) if side is not None)


def peers_of(policies: Iterable[Held]) -> Iterable[Peer]:
    """Peers that have to be looked for: everybody and nobody need not be."""
    for side in sides_of(policies):
        for rule in side.rules:
            for peer in rule.peers or ():
                if isinstance(peer, Labelled | Cidr | Block | Names):
                    yield peer


def selectors_of(policies: Iterable[Held]) -> Iterable[str]:
    """Selectors of toFQDNs; what stands for nobody (groups of a cloud, nodes) has a space in it."""
    for peer in peers_of(policies):
        if isinstance(peer, Names):
            yield from (name for name in peer.names if " " not in name)


def world_labels(network: Network) -> tuple[str, ...]:
    """Labels of the outside's addresses."""
    return "reserved:world=", f"reserved:world-{'ipv4' if network.is_ipv4 else 'ipv6'}="


def networks_of(policies: Iterable[Held]) -> Iterable[Network]:
    """Prefixes that need identities of their own."""
    for peer in peers_of(policies):
        if isinstance(peer, Cidr | Block):
            yield peer.network
            yield from peer.excepts
        elif isinstance(peer, Labelled) and any(each.key in _FAMILIES for each in peer.selector.requirements):
            yield ALL_IPV4
            yield ALL_IPV6


def has_names(side: DirectionRules) -> bool:
    """Whether a rule is about a named port."""
    return any(match.name for rule in side.rules for match in rule.ports or ())
