"""Who answers for a service: policies are about pods, on the pods' ports, and nodes translate before they judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mycel.model.address import Address, is_ipv4
from mycel.policy.rules import ICMP, ICMPV6, PortMatch
from mycel.policy.services import Ready, Service, ServicePort
from mycel.policy.world import Pod, World


class Behind(NamedTuple):
    """A pod, or an address that is none's, and the port there."""

    pod: Pod | None
    address: Address | None
    port: int


class NobodyAnswers(Exception):
    """What is dialled leads nowhere; the message says why."""


def behind(world: World, service: Service, protocol: int, port: int, *, ipv6: bool) -> list[Behind]:
    """Who takes a connection to this port of a service. Raises NobodyAnswers.

    They are what its EndpointSlices say is ready or, where the manifests have none, the pods it selects. The port of a
    headless service is the pods' own: it has no address to dial.
    """
    if protocol in (ICMP, ICMPV6) and not service.headless:
        raise NobodyAnswers(f"service {service} answers no ICMP: name what is behind it")
    dialled = service.port(protocol, port)
    if service.headless:
        dialled = ServicePort("", protocol, port, port)
    elif dialled is None:
        has = ", ".join(map(str, service.ports)) or "none"
        raise NobodyAnswers(f"service {service} has no port {PortMatch(protocol, port, port)}: it has {has}")
    ready = world.services.ready(service.place)
    ends = (
        _selected(world, service, dialled, ipv6=ipv6)
        if ready is None
        else _ready(world, service, ready, dialled, ipv6=ipv6)
    )
    found = sorted(ends, key=lambda end: _order(end, ipv6=ipv6))
    if not found:
        raise NobodyAnswers(f"service {service} leads nowhere: there is nobody behind it who is ready on {dialled}")
    return found


def _order(end: Behind, *, ipv6: bool) -> tuple[bytes, str, int]:
    """By address: which of several equal ones is named does not hang on the order of manifests."""
    if end.pod is None:
        return end.address or b"", "", end.port
    return end.address or end.pod.address(ipv6=ipv6) or b"", str(end.pod.ref), end.port


def _ready(world: World, service: Service, slices: list[Ready], port: ServicePort, *, ipv6: bool) -> Iterator[Behind]:
    """Of its EndpointSlices."""
    ends = {
        (address, number): None
        for each in slices
        if (number := port.number if service.headless else each.ports.get((port.name, port.protocol))) is not None
        for address in each.addresses
    }
    for address, number in ends:
        if is_ipv4(address) != ipv6:
            yield Behind(world.by_address.get(address), address, number)


def _selected(world: World, service: Service, port: ServicePort, *, ipv6: bool) -> Iterator[Behind]:
    """Pods of its selector; one that selects nothing has no pods."""
    for pod in world.pods.values() if service.selector else ():
        chosen = pod.ref.namespace == service.place[0] and service.selector.items() <= pod.labels.items()
        number = port.target if isinstance(port.target, int) else pod.named_ports.get((port.target, port.protocol))
        if chosen and number is not None and (not pod.addresses or pod.address(ipv6=ipv6)):
            yield Behind(pod, None, number)
