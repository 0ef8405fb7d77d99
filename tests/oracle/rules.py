"""One policy against one side of a flow, for each of the three APIs. Numbered choices are those of `deviations.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.oracle import selectors
from tests.oracle.parties import Cluster, Object, Party, inside

PORTED = ("TCP", "UDP", "SCTP")
EMPTY_SELECTS_NOTHING = ("Endpoints", "Nodes", "Entities", "CIDR", "CIDRSet")
ICMP_TYPES = {
    4: {
        "EchoReply": 0,
        "DestinationUnreachable": 3,
        "Redirect": 5,
        "Echo": 8,
        "EchoRequest": 8,
        "RouterAdvertisement": 9,
        "RouterSelection": 10,
        "TimeExceeded": 11,
        "ParameterProblem": 12,
        "Timestamp": 13,
        "TimestampReply": 14,
        "Photuris": 40,
        "ExtendedEchoRequest": 42,
        "ExtendedEchoReply": 43,
    },
    6: {
        "DestinationUnreachable": 1,
        "PacketTooBig": 2,
        "TimeExceeded": 3,
        "ParameterProblem": 4,
        "EchoRequest": 128,
        "EchoReply": 129,
        "MulticastListenerQuery": 130,
        "MulticastListenerReport": 131,
        "MulticastListenerDone": 132,
        "RouterSolicitation": 133,
        "RouterAdvertisement": 134,
        "NeighborSolicitation": 135,
        "NeighborAdvertisement": 136,
        "RedirectMessage": 137,
    },
}


class Side(NamedTuple):
    """What is judged: who is subject, who peer, and the packet. `destination` owns the named ports."""

    direction: str  # ingress or egress
    subject: Party
    peer: Party
    destination: Party
    protocol: str
    port: int
    icmp_type: int
    family: int


class Finding(NamedTuple):
    """What one rule of a policy says of one side."""

    rule: str
    isolates: bool
    allows: list[str]
    denies: list[str]
    proxied: bool


def findings(cluster: Cluster, policy: Object, side: Side) -> Iterator[Finding]:
    """What a policy says, one finding for each of its specs that selects the subject in the direction."""
    if policy["kind"] == "NetworkPolicy":
        yield from _kubernetes(cluster, policy, side)
        return
    meta = policy["metadata"]
    namespace = meta.get("namespace") or "default" if policy["kind"] == "CiliumNetworkPolicy" else None
    name = f"{policy['kind']}/{meta['name']}" if namespace is None else f"{policy['kind']}/{namespace}/{meta['name']}"
    if policy.get("spec") is not None:
        yield from _cilium(cluster, f"{name} spec", namespace, policy["spec"], side)
    for number, spec in enumerate(policy.get("specs") or []):
        yield from _cilium(cluster, f"{name} specs[{number}]", namespace, spec, side)


def _cilium(cluster: Cluster, name: str, namespace: str | None, spec: Object, side: Side) -> Iterator[Finding]:
    if spec.get("endpointSelector") is None or not selectors.subject(spec["endpointSelector"], namespace, side.subject):
        return
    allow, deny = spec.get(side.direction) or [], spec.get(f"{side.direction}Deny") or []
    isolates = (spec.get("enableDefaultDeny") or {}).get(side.direction)
    if isolates is None:
        isolates = bool(allow or deny)
    if not allow and not deny and not isolates:
        return
    allows = [f"{name}.{side.direction}[{i}]" for i, e in enumerate(allow) if _entry(cluster, namespace, e, side)]
    denies = [f"{name}.{side.direction}Deny[{i}]" for i, e in enumerate(deny) if _entry(cluster, namespace, e, side)]
    proxied = any(_entry(cluster, namespace, entry, side, only_proxied=True) for entry in allow)
    yield Finding(name, isolates, allows, denies, proxied)


def _entry(cluster: Cluster, namespace: str | None, entry: Object, side: Side, *, only_proxied: bool = False) -> bool:
    """Whether one item of `ingress`, `egressDeny`… fits; with `only_proxied`, whether it sends to the proxy."""
    word = "from" if side.direction == "ingress" else "to"
    if any(entry.get(word + kind) == [] for kind in EMPTY_SELECTS_NOTHING):
        return False
    peers = _peer(cluster, namespace, entry, word, side.peer)
    ports, icmps = entry.get("toPorts") or [], entry.get("icmps") or []
    if peers is None and not ports and not icmps:
        return False
    if peers is False:
        return False
    if only_proxied:
        return any(_port_rule(rule, side) and _is_proxied(rule) for rule in ports)
    if not ports and not icmps:
        return True
    return any(_port_rule(rule, side) for rule in ports) or any(_icmp_rule(rule, side) for rule in icmps)


def _peer(cluster: Cluster, namespace: str | None, entry: Object, word: str, party: Party) -> bool | None:
    """Whether the peer fits; None when the entry names no peer at all."""
    named: bool | None = None
    for kind in (*EMPTY_SELECTS_NOTHING, "Services", "FQDNs", "Groups"):
        for item in entry.get(word + kind) or []:
            named = bool(named)
            if kind == "Endpoints" and selectors.peer(cluster, item, namespace, party):
                return True
            if kind == "Entities" and _entity(item, party):
                return True
            if kind == "CIDR" and _addressable(cluster, party) and inside(party.address, item):
                return True
            if kind == "CIDRSet" and _addressable(cluster, party) and _cidr_set(cluster, item, party.address):
                return True
            if kind == "Services" and _service(cluster, namespace, item, party):
                return True
    return named


def _entity(name: str, party: Party) -> bool:
    if name == "all":
        return True
    if name in ("cluster", "cluster-mesh"):  # of clusters there is one
        return party.kind in ("pod", "node") or party.has("reserved", "kube-apiserver")
    return name != "none" and party.has("reserved", name)


def _addressable(cluster: Cluster, party: Party) -> bool:
    """Whether CIDRs reach a party at all (choice 20)."""
    return bool(party.address) and (party.kind == "world" or f"{party.kind}s" in cluster.cidr_modes)


def _cidr_set(cluster: Cluster, item: Object, address: str) -> bool:
    if item.get("cidrGroupRef"):
        blocks = [
            block
            for group in cluster.of("CiliumCIDRGroup")
            if group["metadata"]["name"] == item["cidrGroupRef"]
            for block in group["spec"].get("externalCIDRs") or []
        ]
    else:
        blocks = [item["cidr"]]
    return any(inside(address, block) for block in blocks) and not any(
        inside(address, block) for block in item.get("except") or []
    )


def _service(cluster: Cluster, namespace: str | None, item: Object, party: Party) -> bool:
    by_name, by_labels = item.get("k8sService"), item.get("k8sServiceSelector")
    for service in cluster.of("Service"):
        home, name = service["metadata"].get("namespace") or "default", service["metadata"]["name"]
        chosen = False
        if by_name:
            chosen = name == by_name["serviceName"] and home == (by_name.get("namespace") or namespace or home)
        if by_labels:
            labels = service["metadata"].get("labels") or {}
            chosen = home == (by_labels.get("namespace") or namespace or home)
            chosen = chosen and selectors.plain(by_labels["selector"], labels)
        if chosen and _behind(cluster, service, home, party):
            return True
    return False


def _behind(cluster: Cluster, service: Object, home: str, party: Party) -> bool:
    selector = (service.get("spec") or {}).get("selector")
    if selector:
        own = party.kind == "pod" and party.namespace == home
        return own and all(party.pod_labels.get(key) == value for key, value in selector.items())
    if party.kind != "world":
        return False
    for piece in cluster.of("EndpointSlice"):
        meta = piece["metadata"]
        owner = (meta.get("labels") or {}).get("kubernetes.io/service-name")
        if (meta.get("namespace") or "default", owner) == (home, service["metadata"]["name"]):
            for endpoint in piece.get("endpoints") or []:
                if inside(party.address, endpoint["addresses"][0]):
                    return True
    return False


def _port_rule(rule: Object, side: Side) -> bool:
    return any(_port(entry, entry.get("protocol") or "ANY", side) for entry in rule.get("ports") or [])


def _port(entry: Object, protocol: str, side: Side) -> bool:
    """`protocol` TCP, UDP, SCTP or ANY; no port or 0 is every port."""
    if side.protocol not in PORTED or protocol not in ("ANY", side.protocol):
        return False
    port = str(entry.get("port") or 0)
    if not port.isdigit():
        return (port.lower(), side.protocol, side.port) in [
            (name.lower(), spoken, number) for name, spoken, number in side.destination.ports
        ]
    first, last = int(port), max(int(port), entry.get("endPort") or 0)
    return last == 0 or first <= side.port <= last


def _icmp_rule(rule: Object, side: Side) -> bool:
    for field in rule.get("fields") or []:
        family = 6 if field.get("family") == "IPv6" else 4
        kind: Any = field["type"]
        number = int(kind) if str(kind).isdigit() else ICMP_TYPES[family][kind]
        spoken = "ICMP" if family == 4 else "ICMPv6"
        if (side.protocol, side.icmp_type) == (spoken, number):
            return True
    return False


def _is_proxied(rule: Object) -> bool:
    l7 = rule.get("rules") or {}
    if any(l7.get(kind) for kind in ("http", "kafka", "dns", "l7", "l7proto")):
        return True
    return any(rule.get(kind) for kind in ("serverNames", "listener", "terminatingTLS", "originatingTLS"))


def _kubernetes(cluster: Cluster, policy: Object, side: Side) -> Iterator[Finding]:
    meta, spec = policy["metadata"], policy["spec"]
    namespace = meta.get("namespace") or "default"
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    if side.direction.capitalize() not in types or side.subject.namespace != namespace:
        return
    if not selectors.matches(spec.get("podSelector") or {}, side.subject):
        return
    name, word = f"NetworkPolicy/{namespace}/{meta['name']} spec", "from" if side.direction == "ingress" else "to"
    allows: list[str] = []
    for number, entry in enumerate(spec.get(side.direction) or []):
        peers, ports = entry.get(word) or [], entry.get("ports") or []
        if peers and not any(_kubernetes_peer(cluster, namespace, peer, side.peer) for peer in peers):
            continue
        if ports and not any(_port(port, port.get("protocol") or "TCP", side) for port in ports):
            continue
        allows.append(f"{name}.{side.direction}[{number}]")
    yield Finding(name, True, allows, [], False)


def _kubernetes_peer(cluster: Cluster, namespace: str, peer: Object, party: Party) -> bool:
    block = peer.get("ipBlock")
    if block is not None:
        if not party.address or (party.kind == "node" and "nodes" not in cluster.cidr_modes):
            return False
        return inside(party.address, block["cidr"]) and not any(
            inside(party.address, hole) for hole in block.get("except") or []
        )
    if party.kind != "pod":
        return False
    homes, pods = peer.get("namespaceSelector"), peer.get("podSelector")
    if homes is None:
        if party.namespace != namespace:
            return False
    elif not selectors.plain(homes, cluster.namespace_labels(party.namespace)):
        return False
    return pods is None or selectors.matches(pods, party)
