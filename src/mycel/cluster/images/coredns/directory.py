"""Services, their endpoints and namespaces as DNS needs them, kept up to date one object at a time."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mycel.kit.dns import IPAddress

ServiceName = tuple[str, str]
"""(namespace, name)."""


class Port(NamedTuple):
    """One port of a service or slice."""

    name: str
    protocol: str
    number: int


class Service(NamedTuple):
    """One service."""

    cluster_ips: tuple[IPAddress, ...]
    ports: tuple[Port, ...]
    external_name: str = ""

    @property
    def headless(self) -> bool:
        """Whether its name stands for its endpoints."""
        return not self.cluster_ips and not self.external_name


class Endpoint(NamedTuple):
    """One endpoint of a headless service."""

    hostname: str
    pod: str
    addresses: tuple[IPAddress, ...]

    def label(self, address: IPAddress, *, pod_names: bool = False) -> str:
        """The endpoint's own name below its service: its hostname, else its address with dashes."""
        if self.hostname:
            return self.hostname
        if pod_names and self.pod and len(self.pod) <= 63:
            return self.pod
        return str(address).replace(".", "-").replace(":", "-")


class Slice(NamedTuple):
    """The ready endpoints of one EndpointSlice."""

    service: ServiceName
    ports: tuple[Port, ...]
    endpoints: tuple[Endpoint, ...]


class Directory:
    """Everything the kubernetes plugin answers from."""

    def __init__(self, *, synced: bool = False) -> None:
        self.synced = synced  # before that, a name that is missing says nothing
        self.serial = 1
        self.namespaces: set[str] = set()
        self._services: dict[ServiceName, Service] = {}
        self._slices: dict[ServiceName, dict[tuple[str, str], Slice]] = {}
        self._slice_service: dict[tuple[str, str], ServiceName] = {}
        self._by_cluster_ip: dict[IPAddress, ServiceName] = {}
        self._by_endpoint: dict[IPAddress, dict[ServiceName, Endpoint]] = {}
        self._pods: dict[str, set[str]] = {}

    def service(self, name: ServiceName) -> Service | None:
        """The service of that name."""
        return self._services.get(name)

    def slices(self, name: ServiceName) -> Iterable[Slice]:
        """The slices of a service."""
        return self._slices.get(name, {}).values()

    def by_cluster_ip(self, address: IPAddress) -> ServiceName | None:
        """The service that has this cluster IP."""
        return self._by_cluster_ip.get(address)

    def by_endpoint(self, address: IPAddress) -> Mapping[ServiceName, Endpoint]:
        """The services that have an endpoint with this address."""
        return self._by_endpoint.get(address, {})

    def has_pod(self, namespace: str, address: str) -> bool:
        """Whether a pod of the namespace has the address (only where pods are watched)."""
        return address in self._pods.get(namespace, ())

    def put_service(self, name: ServiceName, service: Service | None) -> None:
        """A service came, changed, or (None) went."""
        self.serial += 1
        old = self._services.pop(name, None)
        for address in old.cluster_ips if old else ():
            if self._by_cluster_ip.get(address) == name:
                del self._by_cluster_ip[address]
        if service is not None:
            self._services[name] = service
            for address in service.cluster_ips:
                self._by_cluster_ip[address] = name

    def put_slice(self, key: tuple[str, str], found: Slice | None) -> None:
        """An EndpointSlice came, changed, or (None) went."""
        self.serial += 1
        service = self._slice_service.pop(key, None)
        if service is not None:
            old = self._slices[service].pop(key)
            if not self._slices[service]:
                del self._slices[service]
            for endpoint in old.endpoints:
                for address in endpoint.addresses:
                    owners = self._by_endpoint.get(address, {})
                    owners.pop(service, None)
                    if not owners:
                        self._by_endpoint.pop(address, None)
        if found is not None:
            self._slice_service[key] = found.service
            self._slices.setdefault(found.service, {})[key] = found
            for endpoint in found.endpoints:
                for address in endpoint.addresses:
                    self._by_endpoint.setdefault(address, {})[found.service] = endpoint

    def put_namespace(self, name: str, *, there: bool) -> None:
        """A namespace came or went."""
        (self.namespaces.add if there else self.namespaces.discard)(name)

    def put_pod(self, namespace: str, old: Iterable[str], new: Iterable[str]) -> None:
        """A pod's addresses changed."""
        found = self._pods.setdefault(namespace, set())
        found.difference_update(old)
        found.update(new)


def parse_addresses(texts: Iterable[str]) -> tuple[IPAddress, ...]:
    """Addresses out of API fields; empty strings and `None` (headless) are none."""
    return tuple(ipaddress.ip_address(text) for text in texts if text and text != "None")
