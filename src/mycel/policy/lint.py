"""What is valid and probably not meant: empty lists and their traps, selectors that match nobody, and the like.

Two looks: at each manifest as it is written (what an empty list means depends on which one it is), and at the
policies in a world of pods, nodes and addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mycel.abi import Direction
from mycel.model.address import format_address
from mycel.policy.parse import POLICY_KINDS
from mycel.policy.rules import (
    L7,
    Cidr,
    CidrGroup,
    Labelled,
    Names,
    Party,
    Peer,
    Policy,
    PortMatch,
    Rule,
    ServicePeer,
    host_network,
    peer_matches,
)
from mycel.policy.world import World

_NOTHING = ("Endpoints", "Nodes", "Entities", "CIDR", "CIDRSet")
_ANYBODY = ("Services", "FQDNs", "Groups")


class Finding(NamedTuple):
    """One thing worth a look."""

    object: str
    field: str
    rule: str  # a short name, the same for all of a kind
    message: str


Unserved = Callable[[Direction, L7], str]
"""Why no proxy can serve a section, so that its ports are closed; empty when one can."""


def lint(world: World, objects: Iterable[Mapping[str, Any]], *, unserved: Unserved) -> list[Finding]:
    """Everything found, in order of objects."""
    found = [each for manifest in objects if manifest.get("kind") in POLICY_KINDS for each in _written(manifest)]
    for policy in sorted(world.engine.held(), key=lambda each: each.ref):
        found += _in_world(world, policy)
        found += _closed(policy, unserved)
    for policies in world.engine.policies.values():
        found += [each for policy in policies for each in _unresolved(world, policy)]
    return found


# ---- as it is written


def _written(manifest: Mapping[str, Any]) -> Iterator[Finding]:
    metadata = manifest["metadata"]
    place = "/".join(str(part) for part in (metadata.get("namespace"), metadata["name"]) if part)
    name = f"{manifest['kind']} {place}"
    specs = [("spec", manifest.get("spec"))]
    specs += [(f"specs[{index}]", spec) for index, spec in enumerate(manifest.get("specs") or [])]
    look = _kubernetes_spec if manifest["kind"] == "NetworkPolicy" else _cilium_spec
    for path, spec in specs:
        if isinstance(spec, dict):
            for field, rule, message in look(path, spec):
                yield Finding(name, field, rule, message)


_Found = Iterator[tuple[str, str, str]]


def _kubernetes_spec(path: str, spec: Mapping[str, Any]) -> _Found:
    for direction, way in (("ingress", "from"), ("egress", "to")):
        for index, entry in enumerate(spec.get(direction) or []):
            at = f"{path}.{direction}[{index}]"
            if not entry.get(way) and not entry.get("ports"):
                yield at, "allows-everything", f"has neither {way} nor ports: it allows everything"
            elif entry.get(way) == []:
                yield f"{at}.{way}", "empty-list", f"is empty, which is as if it were absent: everybody ({direction})"
            if entry.get("ports") == []:
                yield f"{at}.ports", "empty-list", "is empty, which is as if it were absent: every port"


def _cilium_spec(path: str, spec: Mapping[str, Any]) -> _Found:
    if spec.get("nodeSelector") is not None:
        yield f"{path}.nodeSelector", "no-effect", "is about nodes, and there is no host firewall: it does nothing"
    for section in ("ingress", "ingressDeny", "egress", "egressDeny"):
        way = "from" if section.startswith("ingress") else "to"
        for index, entry in enumerate(spec.get(section) or []):
            yield from _cilium_entry(f"{path}.{section}[{index}]", entry or {}, way, deny=section.endswith("Deny"))


def _cilium_entry(at: str, entry: Mapping[str, Any], way: str, *, deny: bool) -> _Found:
    verb = "denies" if deny else "allows"
    said = {name: value for name, value in entry.items() if value is not None}
    if all(value != [] and (name == "authentication" or not value) for name, value in said.items()):
        yield at, "empty-entry", f"is empty: it {verb} nothing, and default deny is on"
    for name in _NOTHING:
        if said.get(f"{way}{name}") == []:
            yield f"{at}.{way}{name}", "empty-list", f"is empty and selects nobody: the entry {verb} nothing"
    for name in _ANYBODY:
        if said.get(f"{way}{name}") == []:
            yield f"{at}.{way}{name}", "empty-list", "is empty, which is as if it were absent: everybody"
    if said.get(f"{way}Nodes"):
        yield f"{at}.{way}Nodes", "no-effect", "matches nobody: identities of nodes carry no labels of theirs"
    if said.get(f"{way}Groups"):
        yield f"{at}.{way}Groups", "no-effect", "matches nobody: there is no cloud provider to ask"
    if said.get("toPorts") == []:
        yield f"{at}.toPorts", "empty-list", "is empty, which is as if it were absent: every port"
    for index, ports in enumerate(said.get("toPorts") or []):
        port_at = f"{at}.toPorts[{index}]"
        if not ports.get("ports"):
            yield port_at, "empty-list", f"has no ports: the entry {verb} nothing"
        rules = ports.get("rules")
        if rules is not None and not any(rules.values()):
            yield f"{port_at}.rules", "empty-list", "is empty: there is no layer 7 rule, every request is allowed"


# ---- in its world


def _in_world(world: World, policy: Policy) -> Iterator[Finding]:
    pods = [pod.party for pod in world.pods.values() if pod.party]
    subjects = {party.identity: party for party in pods if policy.subject.matches(party.labels)}
    where = f"{policy.ref.field}.{'podSelector' if policy.ref.kind == 'NetworkPolicy' else 'endpointSelector'}"
    if not subjects and not policy.of_nodes:
        yield Finding(policy.ref.object, where, "selects-nothing", f"selects no pod ({policy.subject})")
    sides = [side for side in (policy.ingress, policy.egress) if side is not None]
    for rule in (rule for side in sides for rule in side.rules):
        for peer in rule.peers or ():
            yield from _peer(world, rule, peer)
    if policy.egress is not None:
        for rule in policy.egress.rules:
            if any(isinstance(peer, Names) for peer in rule.peers or ()) and not _has_dns(world, subjects.values()):
                message = (
                    "names are learnt from DNS answers, and no rule with dns lets its pods ask: it matches nothing"
                )
                yield Finding(rule.ref.object, f"{rule.ref.field}.toFQDNs", "no-dns", message)
    yield from _shadowed(world, policy, list(subjects.values()))


def _closed(policy: Policy, unserved: Unserved) -> Iterator[Finding]:
    """Sections no proxy understands yet."""
    for direction in (Direction.INGRESS, Direction.EGRESS):
        side = policy.side(direction)
        for rule in side.rules if side else ():
            if rule.l7 is not None and rule.l7.parser != "dns" and (why := unserved(direction, rule.l7)):
                yield Finding(rule.ref.object, rule.section or rule.ref.field, "layer-7", why)


def _unresolved(world: World, policy: Policy) -> Iterator[Finding]:
    """Services and groups that stand for nothing."""
    for rule in (rule for side in policy.sides for rule in side.rules):
        for peer in rule.peers or ():
            if isinstance(peer, ServicePeer | CidrGroup) and not world.resolution.resolve(peer):
                message = f"{peer} is not there, or stands for nobody: it matches nothing"
                yield Finding(rule.ref.object, rule.ref.field, "selects-nothing", message)


def _peer(world: World, rule: Rule, peer: Peer) -> Iterator[Finding]:
    if isinstance(peer, Labelled):
        if not any(peer_matches(peer, party) for party in world.engine.parties):
            yield Finding(rule.ref.object, rule.ref.field, "selects-nothing", f"selects nobody there is ({peer})")
    elif isinstance(peer, Cidr) and peer.network.length not in (0, 96):
        about = {"pods": world.by_address, "nodes": world.nodes}
        inside = [
            (kind, address)
            for kind, addresses in about.items()
            if kind not in world.engine.cidr_modes
            for address in addresses
            if peer.covers(host_network(address))
        ]
        if inside:
            kind, address = inside[0]
            message = f"{peer} covers {kind} ({format_address(address)}), and CIDR rules are not about {kind} here"
            yield Finding(rule.ref.object, rule.ref.field, "cidr-of-the-cluster", message)


def _has_dns(world: World, subjects: Iterable[Party]) -> bool:
    return all(
        any(
            rule.l7 is not None and rule.l7.parser == "dns"
            for policy in world.engine.selecting(party)
            if policy.egress is not None
            for rule in policy.egress.rules
        )
        for party in subjects
    )


def _shadowed(world: World, policy: Policy, subjects: list[Party]) -> Iterator[Finding]:
    """Allowances that a denial covers for every subject: they never allow anything."""
    for side_of in ("ingress", "egress"):
        side = getattr(policy, side_of)
        for rule in side.rules if side else ():
            if rule.deny or not subjects:
                continue
            by = [_shadow(world, party, rule, side_of) for party in subjects]
            if all(by) and by[0] is not None:
                message = f"never allows anything: {by[0].ref} denies all of it"
                yield Finding(rule.ref.object, rule.ref.field, "shadowed-by-deny", message)


def _shadow(world: World, party: Party, rule: Rule, side_of: str) -> Rule | None:
    for other in world.engine.selecting(party):
        side = getattr(other, side_of)
        for denial in side.rules if side else ():
            if denial.deny and _peers_within(world, rule, denial) and _ports_within(rule, denial):
                return denial
    return None


def _peers_within(world: World, rule: Rule, denial: Rule) -> bool:
    if denial.peers is None:
        return True
    if rule.peers is None:
        return False
    meant = [party for party in world.engine.parties if any(peer_matches(peer, party) for peer in rule.peers)]
    return bool(meant) and all(any(peer_matches(peer, party) for peer in denial.peers) for party in meant)


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
