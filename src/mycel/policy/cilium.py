"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy → Policy.

Scope is the object's: a namespaced policy's subject is in its namespace whatever the selector says, and its
peers are unless they name a namespace themselves; a clusterwide policy's label selectors are about pods.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mycel.abi import Direction
from mycel.identity.labels import CLUSTER_KEY, NAMESPACE_KEY
from mycel.policy.conflicts import check_protocols
from mycel.policy.errors import PolicyInvalid
from mycel.policy.fields import Field, network, selector, within
from mycel.policy.l7 import dns_name, parse_l7
from mycel.policy.labels import (
    IS_POD,
    Operator,
    Requirement,
    Selector,
    equals,
    in_cluster,
    in_namespace,
    reserved,
    split_key,
)
from mycel.policy.ports import cilium_ports, icmp_types
from mycel.policy.rules import (
    L7,
    Cidr,
    CidrGroup,
    DirectionRules,
    Everyone,
    Labelled,
    Names,
    Peer,
    Policy,
    PortMatch,
    Rule,
    RuleRef,
    ServicePeer,
)

KIND = "CiliumNetworkPolicy"
CLUSTERWIDE_KIND = "CiliumClusterwideNetworkPolicy"

_CLUSTER_ENTITY = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver")
_RESERVED_ENTITIES = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver", "world")
ENTITIES = ("all", "cluster", "cluster-mesh", *_RESERVED_ENTITIES, "world-ipv4", "world-ipv6", "none")
_SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")
_ENTRY = ("Endpoints", "Requires", "CIDR", "CIDRSet", "Entities", "Groups", "Nodes")


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a policy is written: `namespace` is empty for a clusterwide one."""

    kind: str
    namespace: str
    name: str
    cluster: str


def parse_cilium_policy(manifest: Field, scope: Scope) -> tuple[Policy, ...]:
    """The policies of an object: its spec and its specs. Raises PolicyInvalid."""
    spec, specs = manifest["spec"], manifest["specs"]
    sections = ([] if spec.absent else [spec]) + list(specs.items())
    if not sections:
        raise manifest.fail("needs spec or specs")
    return tuple(_policy(section, scope) for section in sections)


def _policy(spec: Field, scope: Scope) -> Policy:
    spec.knows("description", "endpointSelector", "nodeSelector", *_SECTIONS, "enableDefaultDeny", "labels", "log")
    endpoints, nodes = spec["endpointSelector"], spec["nodeSelector"]
    if endpoints.absent == nodes.absent:
        problem = "needs endpointSelector" if endpoints.absent else "takes endpointSelector or nodeSelector, not both"
        raise spec.fail(problem + (" (write {} for every pod)" if endpoints.absent else ""))
    if not nodes.absent and scope.namespace:
        raise nodes.fail("belongs into a CiliumClusterwideNetworkPolicy")
    subject = _subject(endpoints, scope) if nodes.absent else selector(nodes)
    if not any(list(spec[name].items()) for name in _SECTIONS):
        raise spec.fail(f"needs an entry in at least one of {', '.join(_SECTIONS)}: a policy without any says nothing")
    default = spec["enableDefaultDeny"].knows("ingress", "egress")
    peers = _Peers(scope, clusterwide_pods=not subject.mentions_reserved)
    ref = RuleRef(scope.kind, scope.namespace, scope.name, spec.path)
    sides = {
        direction: _direction(spec, direction, default[direction.name.lower()].flag(), _Entries(ref, peers))
        for direction in (Direction.INGRESS, Direction.EGRESS)
    }
    if not nodes.absent and (section := _http_section(sides.values())):
        raise PolicyInvalid(f"{section}.rules.http", "cannot be asked of nodes: of layer 7, only DNS of egress can")
    return Policy(
        ref,
        subject,
        ingress=sides[Direction.INGRESS],
        egress=sides[Direction.EGRESS],
        of_nodes=not nodes.absent,
    )


def _http_section(sides: Iterable[DirectionRules | None]) -> str:
    """Where the first rules for requests are written; empty when there are none."""
    rules = (rule for side in sides if side is not None for rule in side.rules)
    return next((rule.section for rule in rules if rule.l7 and rule.l7.parser == "http"), "")


def _subject(field: Field, scope: Scope) -> Selector:
    """A namespaced policy's subject is in its namespace, whatever labels name another and whatever else it says."""
    if not scope.namespace:
        return selector(field)
    labels = field["matchLabels"].mapping()
    kept = {key: value for key, value in labels.items() if split_key(str(key))[1] != NAMESPACE_KEY}
    if labels:
        field = field._replace(value=field.mapping() | {"matchLabels": kept})
    return selector(field).requiring(in_namespace(scope.namespace))


def _direction(spec: Field, direction: Direction, default: bool | None, entries: _Entries) -> DirectionRules | None:
    name = direction.name.lower()
    allow, deny = list(spec[name].items()), list(spec[f"{name}Deny"].items())
    if not (allow or deny or default):
        return None
    rules = [rule for entry in allow for rule in entries.rules(entry, direction, deny=False)]
    rules += [rule for entry in deny for rule in entries.rules(entry, direction, deny=True)]
    check_protocols(rules)
    return DirectionRules(True if default is None else default, tuple(rules))


class _Entries:
    """Entries of a direction → rules: one for each of an entry's toPorts."""

    def __init__(self, ref: RuleRef, peers: _Peers) -> None:
        self._ref = ref
        self._peers = peers

    def rules(self, entry: Field, direction: Direction, *, deny: bool) -> list[Rule]:
        ingress = direction == Direction.INGRESS
        way = "from" if ingress else "to"
        known = [f"{way}{name}" for name in _ENTRY]
        known += [] if ingress else ["toServices"] + ([] if deny else ["toFQDNs"])
        entry.knows(*known, "toPorts", "icmps", *([] if deny else ["authentication"]))
        peers = self._peers.of(entry, way)
        ports, icmps = list(entry["toPorts"].items()), list(entry["icmps"].items())
        if ports and icmps:
            raise entry["icmps"].fail("may not be combined with toPorts in one entry: write two")
        if len(ports) > 40:
            raise entry["toPorts"].fail(f"has {len(ports)} entries: at most 40 are allowed")
        sections: list[tuple[tuple[PortMatch, ...] | None, L7 | None, str]]
        if ports:
            home = self._ref.namespace
            sections = [(*_section(each, ingress=ingress, deny=deny, home=home), each.path) for each in ports]
        elif icmps:
            sections = [(icmp_types(entry["icmps"]), None, "")]
        else:
            sections = [(None, None, "")]
        required = _authentication(entry["authentication"]) if not deny else None
        ref = self._ref._replace(field=entry.path)
        return [
            Rule(ref, deny, peers, matches, required or l7, at if l7 and not required else "")
            for matches, l7, at in sections
            # Nobody, no port, or neither peers nor ports: the entry says nothing (its default deny remains).
            if peers != () and matches != () and not (peers is None and matches is None)
        ]


def _section(entry: Field, *, ingress: bool, deny: bool, home: str) -> tuple[tuple[PortMatch, ...], L7 | None]:
    if deny:
        entry.knows("ports")
        return cilium_ports(entry["ports"]), None
    entry.knows("ports", "rules", "serverNames", "listener", "terminatingTLS", "originatingTLS")
    ports = cilium_ports(entry["ports"])
    return ports, parse_l7(entry, ports, ingress=ingress, home=home)


def _authentication(field: Field) -> L7 | None:
    """What must be authenticated stays closed: nothing here authenticates."""
    if field.absent:
        return None
    field.knows("mode")
    mode = field["mode"].choice("disabled", "required", "test-always-fail")
    return None if mode == "disabled" else L7("authentication", mode)


class _Peers:
    """Peers of entries in the scope of their policy."""

    def __init__(self, scope: Scope, *, clusterwide_pods: bool) -> None:
        self._namespace = scope.namespace
        self._cluster = scope.cluster
        self._clusterwide_pods = clusterwide_pods

    def of(self, entry: Field, way: str) -> tuple[Peer, ...] | None:
        """None: everybody; empty: nobody. Raises PolicyInvalid."""
        requires = entry[f"{way}Requires"]
        if list(requires.items()):
            raise requires.fail("is no longer supported: select with further labels instead")
        # A list that is there and empty selects nobody; of the last three kinds an empty list says nothing.
        said: dict[str, tuple[Peer, ...] | None] = {
            f"{way}Endpoints": entry[f"{way}Endpoints"].list_of(self._pods),
            f"{way}Nodes": entry[f"{way}Nodes"].list_of(_nodes),
            f"{way}CIDR": entry[f"{way}CIDR"].list_of(lambda item: Cidr(network(item))),
            f"{way}CIDRSet": entry[f"{way}CIDRSet"].list_of(_cidr_rule),
            f"{way}Entities": self._entities(entry[f"{way}Entities"]),
        }
        loose: dict[str, tuple[Peer, ...] | None] = {
            f"{way}Groups": tuple(Names((f"group {item.path}",)) for item in entry[f"{way}Groups"].items()) or None,
        }
        if way == "to":
            loose["toServices"] = entry["toServices"].list_of(self._service) or None
            loose["toFQDNs"] = tuple(Names((dns_name(item),)) for item in entry["toFQDNs"].items()) or None
        empty_entities = entry[f"{way}Entities"].value == []
        given = {name: peers for name, peers in (said | loose).items() if peers is not None}
        filled = [name for name, peers in given.items() if peers or (name.endswith("Entities") and not empty_entities)]
        if len(filled) > 1:
            raise entry.fail(f"takes one kind of peers, not {' and '.join(filled)}: write an entry for each")
        if not given:
            return None
        if any(not peers for peers in given.values()):
            return ()
        return next(iter(given.values()))

    def _pods(self, field: Field) -> Peer:
        chosen = selector(field)
        if chosen.mentions_reserved:
            return Labelled(chosen)
        return Labelled(chosen.requiring(*self._scope(chosen), *self._cluster_scope(chosen)))

    def _scope(self, chosen: Selector) -> tuple[Requirement, ...]:
        if chosen.mentions_namespace:
            return ()
        if self._namespace:
            return (in_namespace(self._namespace),)
        return (IS_POD,) if self._clusterwide_pods else ()

    def _cluster_scope(self, chosen: Selector) -> tuple[Requirement, ...]:
        return () if chosen.mentions(CLUSTER_KEY) else (in_cluster(self._cluster),)

    def _service(self, field: Field) -> Peer:
        """Services of the policy's own namespace unless it says another; of any for a clusterwide one."""
        field.knows("k8sService", "k8sServiceSelector")
        named, chosen = field["k8sService"], field["k8sServiceSelector"]
        if named.absent == chosen.absent:
            raise field.fail("takes exactly one of k8sService and k8sServiceSelector")
        if not named.absent:
            named.knows("serviceName", "namespace")
            return ServicePeer(named["serviceName"].text(), named["namespace"].text("") or self._namespace)
        chosen.knows("selector", "namespace")
        if chosen["selector"].absent:
            raise chosen.fail("needs selector")
        return ServicePeer("", chosen["namespace"].text("") or self._namespace, selector(chosen["selector"]))

    def _entities(self, field: Field) -> tuple[Peer, ...] | None:
        chosen = field.list_of(lambda item: item.choice(*ENTITIES))
        return None if chosen is None else tuple(peer for name in chosen for peer in self._entity(name))

    def _entity(self, name: str) -> tuple[Peer, ...]:
        match name:
            case "all":
                return (Everyone(),)
            case "none":
                return ()
            case "cluster" | "cluster-mesh":
                everyone = tuple(Labelled(reserved(each)) for each in _CLUSTER_ENTITY)
                own = equals(CLUSTER_KEY, self._cluster)
                any_cluster = Requirement("k8s", CLUSTER_KEY, Operator.EXISTS)
                return (*everyone, Labelled(Selector((own if name == "cluster" else any_cluster,))))
            case _:
                return (Labelled(reserved(name)),)


def _nodes(field: Field) -> Peer:
    """Nodes by label: nobody, since identities of nodes carry no labels of theirs; never pods that share them."""
    selector(field)
    return Names((f"nodes {field.path}",))


def _cidr_rule(field: Field) -> Peer:
    field.knows("cidr", "cidrGroupRef", "cidrGroupSelector", "except")
    kinds: dict[str, Any] = {name: field[name] for name in ("cidr", "cidrGroupRef", "cidrGroupSelector")}
    given = [name for name, value in kinds.items() if not value.absent]
    if len(given) != 1:
        raise field.fail("takes exactly one of cidr, cidrGroupRef and cidrGroupSelector")
    if given == ["cidr"]:
        outer = network(field["cidr"])
        return Cidr(outer, field["except"].list_of(lambda item: within(item, outer)) or ())
    if list(field["except"].items()):
        raise field["except"].fail(f"may not be given with {given[0]}")
    if given == ["cidrGroupRef"]:
        return CidrGroup(field["cidrGroupRef"].text())
    return CidrGroup("", selector(field["cidrGroupSelector"]))
