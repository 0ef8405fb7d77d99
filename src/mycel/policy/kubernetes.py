"""networking.k8s.io/v1 NetworkPolicy → Policy.

Other than in Cilium's own policies, an empty `from` is everybody, and labels are a pod's own, without
sources. https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
"""

from __future__ import annotations

from mycel.identity.labels import NAMESPACE_LABELS_PREFIX
from mycel.policy.fields import Field, network, selector, within
from mycel.policy.labels import IS_POD, Requirement, Selector, in_cluster, in_namespace
from mycel.policy.ports import kubernetes_ports
from mycel.policy.rules import Block, DirectionRules, Labelled, Network, Peer, Policy, Rule, RuleRef

KIND = "NetworkPolicy"


def parse_network_policy(spec: Field, *, namespace: str, name: str, cluster: str) -> tuple[Policy, ...]:
    """The one policy of a NetworkPolicy's spec. Raises PolicyInvalid."""
    spec.knows("podSelector", "ingress", "egress", "policyTypes")
    ref = RuleRef(KIND, namespace, name, spec.path)
    subject = selector(spec["podSelector"], sources=False).requiring(in_namespace(namespace))
    types = spec["policyTypes"].list_of(lambda item: item.choice("Ingress", "Egress"))
    if not types:
        types = ("Ingress", "Egress") if spec["egress"].value else ("Ingress",)
    scope = _Scope(ref, namespace, cluster)
    ingress, egress = scope.rules(spec["ingress"], "from"), scope.rules(spec["egress"], "to")
    return (
        Policy(
            ref,
            subject,
            ingress=DirectionRules(True, ingress) if "Ingress" in types else None,
            egress=DirectionRules(True, egress) if "Egress" in types else None,
        ),
    )


class _Scope:
    """What the entries of one policy have in common."""

    def __init__(self, ref: RuleRef, namespace: str, cluster: str) -> None:
        self._ref = ref
        self._namespace = namespace
        self._cluster = cluster

    def rules(self, entries: Field, way: str) -> tuple[Rule, ...]:
        found: list[Rule] = []
        for entry in entries.items():
            entry.knows(way, "ports")
            peers = tuple(self._peer(item) for item in entry[way].items()) or None
            ports = kubernetes_ports(entry["ports"])
            found.append(Rule(self._ref._replace(field=entry.path), False, peers, ports))
        return tuple(found)

    def _peer(self, field: Field) -> Peer:
        field.knows("podSelector", "namespaceSelector", "ipBlock")
        pods, namespaces, block = field["podSelector"], field["namespaceSelector"], field["ipBlock"]
        if not block.absent:
            if not (pods.absent and namespaces.absent):
                raise block.fail("may not be combined with podSelector or namespaceSelector")
            block.knows("cidr", "except")
            outer = network(block["cidr"])
            return Block(outer, block["except"].list_of(lambda item: _part(item, outer)) or ())
        if pods.absent and namespaces.absent:
            raise field.fail("needs podSelector, namespaceSelector or ipBlock")
        scope = (in_namespace(self._namespace),) if namespaces.absent else _namespaces(namespaces)
        chosen = selector(pods, sources=False)
        return Labelled(chosen.requiring(*scope, IS_POD, in_cluster(self._cluster)))


def _part(field: Field, outer: Network) -> Network:
    """An exception: Kubernetes wants less than the whole. Raises PolicyInvalid."""
    inner = within(field, outer)
    if inner.length == outer.length:
        raise field.fail(f"{inner} is all of {outer}: nothing would be left of it")
    return inner


def _namespaces(field: Field) -> tuple[Requirement, ...]:
    """Requirements on a namespace's labels, as the identities of its pods carry them."""
    chosen: Selector = selector(field, sources=False)
    return tuple(each._replace(key=f"{NAMESPACE_LABELS_PREFIX}{each.key}") for each in chosen.requirements)
