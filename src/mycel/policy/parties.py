"""Identities as policy sees them."""

from __future__ import annotations

from collections.abc import Iterable

from mycel.identity.labels import NAMED_PORTS_KEY, parse_named_ports
from mycel.identity.reserved import HOST, RESERVED_LABELS
from mycel.model.workload import IdentityId
from mycel.policy.labels import label_map
from mycel.policy.rules import PROTOCOLS, ContainerPort, Party


def party_of(identity: IdentityId, labels: Iterable[str]) -> Party:
    """Somebody with these labels; a pod's named ports are among them."""
    found = label_map(labels)
    ports = tuple(
        sorted(
            ContainerPort(each.name, each.port, PROTOCOLS[each.protocol])
            for source, value in found.get(NAMED_PORTS_KEY, ())
            if source == "k8s"
            for each in parse_named_ports(value)
            if each.protocol in PROTOCOLS
        )
    )
    return Party(identity, found, named_ports=ports)


def reserved_parties(*, host_runs_apiserver: bool = False) -> list[Party]:
    """The parties that are always there. The host of an API server is that, too."""
    also = ("reserved:kube-apiserver",) if host_runs_apiserver else ()
    return [
        party_of(number, labels + (also if number == HOST else ()))
        for number, labels in RESERVED_LABELS.items()
        if number
    ]
