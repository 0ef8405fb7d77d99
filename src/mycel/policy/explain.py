"""Why a connection is let through or not: the rules that decided, the nearest that missed, and what would allow it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mycel.abi import Direction
from mycel.identity.labels import CLUSTER_KEY, NAMED_PORTS_KEY, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX
from mycel.model.address import format_address, is_ipv4
from mycel.policy.labels import Requirement
from mycel.policy.offline import End, Flow, Verdicts, evaluate, peer_of
from mycel.policy.rows import numbered
from mycel.policy.rules import (
    ICMP,
    ICMPV6,
    PROTOCOL_NAMES,
    Decision,
    Labelled,
    Names,
    Outcome,
    Party,
    Peer,
    PortMatch,
    Reason,
    Rule,
    peer_matches,
)
from mycel.policy.world import Pod, World

_OF_ANOTHER_KIND = 100
_ENTITIES = ("host", "kube-apiserver", "remote-node")
"""What addresses of nodes and API servers are called, the most telling first."""
_DERIVED = (NAMESPACE_KEY, CLUSTER_KEY, NAMED_PORTS_KEY, NAMESPACE_LABELS_PREFIX, "io.cilium.k8s.policy.")


@dataclass(frozen=True, slots=True)
class Miss:
    """A rule that does not apply, and why."""

    rule: Rule
    peer: str  # what is wrong about the peer; empty: it is right
    port: str


@dataclass(frozen=True, slots=True)
class Side:
    """One direction of an explanation. `judged_at` None: nobody judges there."""

    direction: Direction
    judged_at: Pod | None
    decision: Decision
    nearest: Miss | None = None
    remedy: dict[str, Any] | None = None  # a policy that would allow it
    proxied: tuple[Rule, ...] = ()  # what a proxy asks of the requests; a rule without a section: nothing
    proxied_open: bool = False  # nothing denies in this direction: requests that no rule is about pass
    with_itself: bool = False  # which never leaves the pod
    own_node: bool = False  # a node enters its own pods, unless a rule denies it


@dataclass(frozen=True, slots=True)
class Explanation:
    """Both directions of a flow."""

    flow: Flow
    outcome: Outcome
    egress: Side
    ingress: Side
    others: tuple[Verdicts, ...] = ()  # of a service's


def explain(world: World, flow: Flow) -> Explanation:
    """Explain a flow in a world; of one to a service the strictest it may become."""
    verdicts = evaluate(world, [flow])[0]
    flow = verdicts.flow
    return Explanation(
        flow,
        verdicts.outcome,
        _side(world, flow, Direction.EGRESS, verdicts.egress),
        _side(world, flow, Direction.INGRESS, verdicts.ingress),
        verdicts.others,
    )


def _side(world: World, flow: Flow, direction: Direction, decision: Decision) -> Side:
    subject, other = _ends(flow, direction)
    pod = subject.pod if subject.pod and subject.pod.party else None
    explained = decision.reason is Reason.DEFAULT_DENY or decision.outcome is Outcome.L7
    if pod is None or pod.party is None or not explained:
        free = decision.reason is Reason.ALLOWED and not decision.rules and world.allow_host
        peer = world.engine.party(peer_of(world, flow, direction))
        from_host = direction == Direction.INGRESS and peer is not None and peer.is_host
        itself = pod is not None and pod is other.pod
        return Side(direction, pod, decision, with_itself=itself, own_node=free and from_host)
    enforced = world.engine.subject(pod.party)
    side = enforced.ingress if direction == Direction.INGRESS else enforced.egress
    number = peer_of(world, flow, direction)
    peer = world.engine.party(number)
    ports = pod.party.named_ports if direction == Direction.INGRESS else peer.named_ports if peer else ()
    rules = side.rules.rules if side.rules else ()
    misses = [Miss(rule, _peer_miss(rule, peer), _port_miss(rule, flow, ports)) for rule in rules if not rule.deny]
    if decision.outcome is Outcome.L7:
        about = tuple(miss.rule for miss in misses if not miss.peer and not miss.port)
        return Side(
            direction,
            pod,
            decision,
            proxied=about,
            proxied_open=side.rules is not None and not side.rules.default_deny,
        )
    nearest = min(misses, key=lambda miss: _distance(miss, peer), default=None)
    return Side(direction, pod, decision, nearest, _remedy(pod, other, flow, direction, peer))


def _ends(flow: Flow, direction: Direction) -> tuple[End, End]:
    ingress = direction == Direction.INGRESS
    return (flow.destination, flow.source) if ingress else (flow.source, flow.destination)


def _peer_miss(rule: Rule, party: Party | None) -> str:
    if rule.peers is None or (party and any(peer_matches(peer, party) for peer in rule.peers)):
        return ""
    if party is None:
        return "the other end has no identity"
    return " or ".join(_one_miss(peer, party) for peer in rule.peers[:3]) or "it selects nobody"


def _one_miss(peer: Peer, party: Party) -> str:
    if isinstance(peer, Names):
        return f"its name is not {' or '.join(peer.names)}"
    if not isinstance(peer, Labelled):
        return f"it is not {peer}"
    if party.is_world:
        return f"it is of the outside, and no pod with {peer}"
    return ", ".join(f"{each} ({_has(each, party)})" for each in peer.selector.missed(party.labels))


def _has(requirement: Requirement, party: Party) -> str:
    found = party.labels.get(requirement.key, ())
    return f"it has {', '.join(value or source for source, value in found)}" if found else "it has no such label"


def _port_miss(rule: Rule, flow: Flow, ports: Iterable[Any]) -> str:
    if rule.ports is None or any(m.covers(flow.protocol, flow.port) for m in numbered(rule.ports, tuple(ports))):
        return ""
    return f"{', '.join(map(str, rule.ports))} and not {_port_text(flow)}"


def _port_text(flow: Flow) -> str:
    return str(PortMatch(flow.protocol, flow.port, flow.port))


def _distance(miss: Miss, party: Party | None) -> tuple[int, int]:
    """How far a rule is from applying: first whether one side of it does, then how much of a selector is missed."""
    missed = [_peer_distance(peer, party) for peer in miss.rule.peers or ()]
    return bool(miss.peer) + bool(miss.port), min(missed, default=_OF_ANOTHER_KIND) if miss.peer else 0


def _peer_distance(peer: Peer, party: Party | None) -> int:
    """Requirements missed; a prefix is far from a pod, and a selector from the outside."""
    outside = party is None or party.is_world
    if isinstance(peer, Labelled):
        missed = len(peer.selector.missed(party.labels if party else {}))
        return missed + _OF_ANOTHER_KIND if outside else missed
    return 1 if outside else _OF_ANOTHER_KIND


def own_labels(party: Party) -> dict[str, str]:
    """The labels of a pod's identity that are the pod's own."""
    return {
        key: value
        for key, found in sorted(party.labels.items())
        for source, value in found
        if source == "k8s" and not key.startswith(_DERIVED)
    }


def _remedy(pod: Pod, other: End, flow: Flow, direction: Direction, peer: Party | None) -> dict[str, Any]:
    """The smallest policy that allows just this connection, for all pods with the labels of its ends."""
    assert pod.party is not None
    ingress = direction == Direction.INGRESS
    way = "from" if ingress else "to"
    entry: dict[str, Any] = _remedy_peer(pod, other, way, peer)
    if flow.protocol in (ICMP, ICMPV6):
        entry["icmps"] = [{"fields": [{"family": "IPv6" if flow.ipv6 else "IPv4", "type": flow.port}]}]
    else:
        protocol = PROTOCOL_NAMES.get(flow.protocol, "ANY")
        entry["toPorts"] = [{"ports": [{"port": str(flow.port), "protocol": protocol}]}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": f"allow-{way}-{_name(other)}", "namespace": pod.ref.namespace},
        "spec": {
            "endpointSelector": {"matchLabels": own_labels(pod.party)},
            direction.name.lower(): [entry],
        },
    }


def _remedy_peer(pod: Pod, other: End, way: str, peer: Party | None) -> dict[str, Any]:
    if other.pod is not None and other.pod.party is not None:
        labels = own_labels(other.pod.party)
        if other.pod.ref.namespace != pod.ref.namespace:
            labels[f"k8s:{NAMESPACE_KEY}"] = other.pod.ref.namespace
        return {f"{way}Endpoints": [{"matchLabels": labels}]}
    if other.names:
        return {f"{way}FQDNs": [{"matchName": name} for name in other.names]}
    entity = next((each for each in _ENTITIES if peer and ("reserved", "") in peer.labels.get(each, ())), "")
    if other.address is not None and not entity:
        length = 32 if is_ipv4(other.address) else 128
        return {f"{way}CIDR": [f"{format_address(other.address)}/{length}"]}
    return {f"{way}Entities": [other.entity or entity or "world"]}


def _name(end: End) -> str:
    if end.pod is not None:
        return end.pod.ref.name
    if end.names:
        return end.names[0].replace(".", "-").replace("_", "-").lower()
    if end.address is not None:
        return format_address(end.address).replace(":", "-").replace(".", "-")
    return end.entity
