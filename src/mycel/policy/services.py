"""Services as manifests describe them: where they are dialled, and at which addresses and ports who answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from mycel.model.address import Address
from mycel.policy.fields import Field, labels_of, read_address
from mycel.policy.rules import PROTOCOLS, PortMatch

Place = tuple[str, str]
"""Namespace and name."""


class ServicePort(NamedTuple):
    """A port that is dialled. `target`: the pods' port, or a container port's name."""

    name: str
    protocol: int
    number: int
    target: int | str

    def __str__(self) -> str:
        return str(PortMatch(self.protocol, self.number, self.number))


class Service(NamedTuple):
    """A Service."""

    place: Place
    headless: bool
    own: tuple[Address, ...]  # ClusterIPs; of one that is not applied yet none
    outer: tuple[Address, ...]  # external ones, and those of its load balancer
    ports: tuple[ServicePort, ...]
    selector: Mapping[str, str]

    def __str__(self) -> str:
        return "/".join(self.place)

    def port(self, protocol: int, number: int) -> ServicePort | None:
        """The port that is dialled so; None when there is none."""
        return next((each for each in self.ports if (each.protocol, each.number) == (protocol, number)), None)


class Ready(NamedTuple):
    """Who a slice says is ready, and which numbers ports (by name and protocol) have there."""

    addresses: tuple[Address, ...]
    ports: Mapping[tuple[str, int], int]


@dataclass
class Services:
    """All there are; ask when all are taken in."""

    by_place: dict[Place, Service] = field(default_factory=dict[Place, Service])
    _slices: dict[Place, list[Ready]] = field(default_factory=dict[Place, list[Ready]])
    _endpoints: dict[Place, list[Ready]] = field(default_factory=dict[Place, list[Ready]])

    def take(self, root: Field) -> None:
        """A Service. Raises PolicyInvalid."""
        metadata, spec = root["metadata"], root["spec"]
        place = metadata["namespace"].text("default"), metadata["name"].text()
        balancers = root["status"]["loadBalancer"]["ingress"].items()
        outer = [
            *spec["externalIPs"].items(),
            *(
                each["ip"] for each in balancers if each["ipMode"].value != "Proxy"
            ),  # which wants its own hop (KEP-1860)
        ]
        headless = spec["clusterIP"].value == "None"
        unhandled = headless or spec["type"].value == "ExternalName"
        self.by_place[place] = Service(
            place,
            headless,
            _addresses([spec["clusterIP"], *spec["clusterIPs"].items()]),
            () if unhandled else _addresses(outer),
            tuple(map(_port, spec["ports"].items())),
            labels_of(spec["selector"]),
        )

    def take_slice(self, place: Place, root: Field, ready: Sequence[Address]) -> None:
        """An EndpointSlice of a service, and who of it is ready. Raises PolicyInvalid."""
        self._slices.setdefault(place, []).append(Ready(tuple(ready), _numbers(root["ports"])))

    def take_endpoints(self, place: Place, root: Field) -> list[Ready]:
        """The Endpoints of a service, which are returned. Raises PolicyInvalid."""
        found = [
            Ready(tuple(read_address(item["ip"]) for item in subset["addresses"].items()), _numbers(subset["ports"]))
            for subset in root["subsets"].items()
        ]
        self._endpoints.setdefault(place, []).extend(found)
        return found

    def ready(self, place: Place) -> list[Ready] | None:
        """Who is ready: slices say, as to nodes, or else Endpoints; None when there are neither."""
        return self._slices.get(place, self._endpoints.get(place))

    def at(self, address: Address, protocol: int, port: int) -> Service | None:
        """The service that is dialled there; of a ClusterIP also when it has no such port."""
        return self._dialled.get((address, protocol, port)) or self._own.get(address)

    @cached_property
    def _dialled(self) -> dict[tuple[Address, int, int], Service]:
        found: dict[tuple[Address, int, int], Service] = {}
        for service in self._in_order():
            for address in (*service.own, *service.outer):
                for port in service.ports:
                    found.setdefault((address, port.protocol, port.number), service)
        return found

    @cached_property
    def _own(self) -> dict[Address, Service]:
        return {address: service for service in reversed(list(self._in_order())) for address in service.own}

    def _in_order(self) -> Iterator[Service]:
        """Where two claim one address and port, the first has it, as on nodes."""
        return (service for _, service in sorted(self.by_place.items()))


def slice_ends(root: Field) -> Iterator[tuple[Address, bool]]:
    """Addresses of an EndpointSlice and whether they are ready: the first of each endpoint, as the API has it.

    Names of hosts are no addresses. Raises PolicyInvalid.
    """
    for each in root["endpoints"].items() if root["addressType"].value != "FQDN" else ():
        for item in islice(each["addresses"].items(), 1):
            yield read_address(item), each["conditions"]["ready"].flag() is not False


def _port(each: Field) -> ServicePort:
    number = each["port"].number(least=1, most=65535)
    if number is None:
        raise each["port"].fail("must be there")
    target = each["targetPort"].value or number
    if isinstance(target, str) and target.isdecimal():
        target = int(target)
    if not isinstance(target, int | str):
        raise each["targetPort"].fail("must be a number or the name of a container port")
    return ServicePort(each["name"].text(""), _protocol(each), number, target)


def _numbers(ports: Field) -> dict[tuple[str, int], int]:
    found = (
        (each["name"].text(""), _protocol(each), each["port"].number(least=0, most=65535)) for each in ports.items()
    )
    return {(name, protocol): number for name, protocol, number in found if number}


def _protocol(port: Field) -> int:
    return PROTOCOLS[port["protocol"].choice("TCP", "UDP", "SCTP", default="TCP")]


def _addresses(fields: list[Field]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys(read_address(each) for each in fields if each.value not in (None, "", "None")))
