"""What lint finds of policies in a world of pods, nodes and addresses: who is meant, and whether it can matter."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from mycel.abi import Direction
from mycel.identity.reserved import HOST
from mycel.model.address import Address, format_address
from mycel.model.workload import IdentityId
from mycel.policy.rules import (
    L7,
    Cidr,
    CidrGroup,
    Everyone,
    Labelled,
    Names,
    Party,
    Peer,
    Policy,
    PortMatch,
    Rule,
    RuleRef,
    ServicePeer,
    host_network,
)
from mycel.policy.world import World


class Finding(NamedTuple):
    """One thing worth a look."""

    object: str
    field: str
    rule: str  # a short name, the same for all of a kind
    message: str


Unserved = Callable[[Direction, L7], str]
"""Why no proxy can serve a section, so that its ports are closed; empty when one can."""


class Look:
    """Policies in a world, each looked at by itself; what they have in common is found out once."""

    def __init__(self, world: World, unserved: Unserved) -> None:
        self._world = world
        self._unserved = unserved
        self._everybody = frozenset(party.identity for party in world.engine.parties)
        self._subjects: defaultdict[RuleRef, list[Party]] = defaultdict(list)
        self._policies: dict[IdentityId, list[Policy]] = {}
        for party in {pod.party.identity: pod.party for pod in world.pods.values() if pod.party}.values():
            self._policies[party.identity] = world.engine.selecting(party)
            for policy in self._policies[party.identity]:
                self._subjects[policy.ref].append(party)
        about = {"pods": world.by_address, "nodes": world.nodes}
        kinds = {kind: of for kind, of in about.items() if kind not in world.engine.cidr_modes}
        self._addresses: list[tuple[Address, str]] = sorted((each, kind) for kind, of in kinds.items() for each in of)

    def findings(self, policy: Policy) -> Iterator[Finding]:
        """Of one policy in force, resolved."""
        subjects = self._subjects[policy.ref]
        if not subjects and not policy.of_nodes:
            where = f"{policy.ref.field}.{'podSelector' if policy.ref.kind == 'NetworkPolicy' else 'endpointSelector'}"
            yield Finding(policy.ref.object, where, "selects-nothing", f"selects no pod ({policy.subject})")
        for direction in (Direction.INGRESS, Direction.EGRESS):
            side = policy.side(direction)
            for rule in side.rules if side else ():
                for field, kind, message in self._of_rule(policy, rule, direction, subjects):
                    yield Finding(rule.ref.object, field, kind, message)

    def unresolved(self, policy: Policy) -> Iterator[Finding]:
        """Services and groups of a policy, as it is written, that stand for nothing."""
        for rule in (rule for side in policy.sides for rule in side.rules):
            for peer in rule.peers or ():
                if isinstance(peer, ServicePeer | CidrGroup) and not self._world.resolution.resolve(peer):
                    message = f"{peer} is not there, or stands for nobody: it matches nothing"
                    yield Finding(rule.ref.object, rule.ref.field, "selects-nothing", message)

    def _of_rule(
        self, policy: Policy, rule: Rule, direction: Direction, subjects: list[Party]
    ) -> Iterator[tuple[str, str, str]]:
        at = rule.ref.field
        for peer in rule.peers or ():
            if isinstance(peer, Labelled) and not self._meant(peer):
                yield at, "selects-nothing", f"selects nobody there is ({peer})"
            elif isinstance(peer, Cidr) and peer.network.length not in (0, 96) and (inside := self._inside(peer)):
                address, kind = inside
                message = f"{peer} covers {kind} ({format_address(address)}), and CIDR rules are not about {kind} here"
                yield at, "cidr-of-the-cluster", message
        if any(isinstance(peer, Names) for peer in rule.peers or ()) and not self._have_dns(subjects):
            message = "names are learnt from DNS answers, and no rule with dns lets its pods ask: it matches nothing"
            yield f"{at}.toFQDNs", "no-dns", message
        if rule.deny and direction == Direction.INGRESS and not policy.of_nodes and self._is_about(rule, HOST):
            message = "denies the pods' own node, too: probes of the kubelet come from there"
            yield at, "denies-probes", message
        if rule.l7 is not None and rule.l7.parser != "dns" and (why := self._unserved(direction, rule.l7)):
            yield rule.section or at, "layer-7", why
        if not rule.deny and subjects:
            by = [self._shadow(party, rule, direction) for party in subjects]
            if all(by) and by[0] is not None:
                yield at, "shadowed-by-deny", f"never allows anything: {by[0].ref} denies all of it"

    def _meant(self, peer: Peer) -> Collection[IdentityId]:
        return self._everybody if isinstance(peer, Everyone) else self._world.engine.among(peer)

    def _is_about(self, rule: Rule, identity: IdentityId) -> bool:
        return rule.peers is None or any(identity in self._meant(peer) for peer in rule.peers)

    def _inside(self, peer: Cidr) -> tuple[Address, str] | None:
        """The first address of the cluster that a prefix covers."""
        at = bisect_left(self._addresses, (peer.network.address, ""))
        while at < len(self._addresses) and peer.network.contains(host_network(self._addresses[at][0])):
            if peer.covers(host_network(self._addresses[at][0])):
                return self._addresses[at]
            at += 1
        return None

    def _have_dns(self, subjects: list[Party]) -> bool:
        return all(
            any(
                rule.l7 is not None and rule.l7.parser == "dns"
                for policy in self._policies[party.identity]
                if policy.egress is not None
                for rule in policy.egress.rules
            )
            for party in subjects
        )

    def _shadow(self, party: Party, rule: Rule, direction: Direction) -> Rule | None:
        """A denial that covers an allowance of a subject's."""
        for other in self._policies[party.identity]:
            side = other.side(direction)
            for denial in side.rules if side else ():
                if denial.deny and _ports_within(rule, denial) and self._peers_within(rule, denial):
                    return denial
        return None

    def _peers_within(self, rule: Rule, denial: Rule) -> bool:
        if denial.peers is None:
            return True
        if rule.peers is None:
            return False
        meant = {identity for peer in rule.peers for identity in self._meant(peer)}
        return bool(meant) and all(self._is_about(denial, identity) for identity in meant)


def _ports_within(rule: Rule, denial: Rule) -> bool:
    if denial.ports is None:
        return True
    return rule.ports is not None and all(
        any(_port_within(match, other) for other in denial.ports) for match in rule.ports
    )


def _port_within(match: PortMatch, other: PortMatch) -> bool:
    if match.name or other.name:
        return (match.name, match.protocol) == (other.name, other.protocol)
    return match.protocol == other.protocol and other.first <= match.first and match.last <= other.last
