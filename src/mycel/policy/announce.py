"""CiliumL2AnnouncementPolicy, and which addresses a node may announce by them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from mycel.model.address import Address, is_ipv4, parse_address
from mycel.model.service import Service, ServiceRef
from mycel.policy.errors import PolicyInvalid
from mycel.policy.expressions import expression_problem
from mycel.policy.fields import Field, selector
from mycel.policy.labels import LabelMap, Selector, kubernetes_labels, service_labels

CLASSES = frozenset({"", "io.cilium/l2-announcer"})
_PREFIX = "cilium-l2announce-"


@dataclass(frozen=True, slots=True)
class AnnouncementPolicy:
    """A policy. `problem`: it cannot be used and announces nothing."""

    name: str
    services: Selector
    nodes: Selector
    interfaces: tuple[str, ...]  # regular expressions; none: every one
    load_balancer_addresses: bool
    external_addresses: bool
    problem: str = ""

    def runs_on(self, labels: LabelMap, devices: Iterable[str]) -> bool:
        """Whether a node with these labels and devices is one of its."""
        import re2  # a library of its own, for policies that need it

        if self.problem or not self.nodes.matches(labels):
            return False
        return not self.interfaces or any(
            re2.search(pattern, device) for pattern in self.interfaces for device in devices
        )

    def addresses(self, service: Service) -> tuple[str, ...]:
        """The addresses of a service it has announced."""
        found: tuple[str, ...] = ()
        if not self.services.matches(service_labels(*service.ref, service.labels)):
            return found
        if self.load_balancer_addresses and service.load_balancer_class in CLASSES:
            found += service.ingress_addresses
        if self.external_addresses:
            found += service.external_addresses
        return found


class Wish(NamedTuple):
    """What one lease is about: addresses, and the nodes that may have it."""

    addresses: frozenset[Address]
    nodes: frozenset[str]

    def preferred(self, lease: str) -> str:
        """The node that should take a free lease first, so that services spread over nodes."""
        return min(sorted(self.nodes), key=lambda node: hashlib.sha256(f"{lease}/{node}".encode()).digest(), default="")


def parse_policy(item: Mapping[str, Any]) -> AnnouncementPolicy:
    """A policy of its object."""
    name, spec = str(item["metadata"]["name"]), Field(item.get("spec"), "spec")
    try:
        return AnnouncementPolicy(
            name,
            services=selector(spec["serviceSelector"], sources=False),
            nodes=selector(spec["nodeSelector"], sources=False),
            interfaces=spec["interfaces"].list_of(_pattern) or (),
            load_balancer_addresses=bool(spec["loadBalancerIPs"].flag()),
            external_addresses=bool(spec["externalIPs"].flag()),
        )
    except PolicyInvalid as problem:
        return AnnouncementPolicy(name, Selector(), Selector(), (), False, False, str(problem))


def _pattern(field: Field) -> str:
    if problem := expression_problem(field.text()):
        raise field.fail(problem)
    return field.text()


def lease_name(service: ServiceRef) -> str:
    """The lease a service's addresses go by."""
    return f"{_PREFIX}{service.namespace}-{service.name}"


def is_lease_name(name: str) -> bool:
    """Whether a lease is about announcing."""
    return name.startswith(_PREFIX)


def wishes(
    policies: Iterable[AnnouncementPolicy],
    services: Iterable[Service],
    *,
    node: str,
    nodes: Mapping[str, Mapping[str, str]],
    devices: Iterable[str],
    serving: Set[ServiceRef],
    taken: Set[Address] = frozenset(),
) -> dict[str, Wish]:
    """Leases this node may have, by name.

    `nodes`: every node's labels; `devices`: this node's to the others; `serving`: services with a backend here, as
    those with externalTrafficPolicy Local need one; `taken`: addresses of nodes, which no service may have announced.
    Services that share an address share the first one's lease.
    """
    devices = tuple(devices)
    labels = {name: kubernetes_labels(each) for name, each in nodes.items()}
    here = [
        (policy, frozenset(name for name in labels if policy.nodes.matches(labels[name])))
        for policy in policies
        if policy.runs_on(labels.get(node, {}), devices)
    ]
    owner: dict[Address, ServiceRef] = {}
    found: dict[ServiceRef, dict[Address, None]] = {}
    allowed: dict[ServiceRef, frozenset[str]] = {}
    for service in sorted(services, key=lambda each: each.ref):
        if service.local_external and service.ref not in serving:
            continue
        for policy, among in here:
            for address in map(parse_address, policy.addresses(service)):
                if is_ipv4(address) and address not in taken:
                    first = owner.setdefault(address, service.ref)
                    found.setdefault(first, {})[address] = None
                    allowed[first] = allowed.get(first, frozenset()) | among
    return {lease_name(ref): Wish(frozenset(addresses), allowed[ref]) for ref, addresses in found.items()}
