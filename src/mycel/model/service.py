"""Services and EndpointSlices as the API server tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Protocol(StrEnum):
    """Transport protocols a service may have."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"

    @property
    def number(self) -> int:
        """IANA's number."""
        return _NUMBERS[self]


_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}


class ServiceRef(NamedTuple):
    """A service's place."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ServicePort(NamedTuple):
    """One port of a service; `node_port` is 0 without one."""

    name: str
    protocol: Protocol
    port: int
    node_port: int


@dataclass(frozen=True, slots=True)
class Service:
    """A Service. Headless ones have no `cluster_addresses`."""

    ref: ServiceRef
    cluster_addresses: tuple[str, ...]
    external_addresses: tuple[str, ...]
    ingress_addresses: tuple[str, ...]  # of the load balancer
    ports: tuple[ServicePort, ...]
    ip_families: tuple[int, ...]  # 4, 6
    affinity_s: int  # 0: none
    local_external: bool
    local_internal: bool
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    selector: Mapping[str, str] = field(default_factory=dict[str, str])  # empty: its slices are somebody else's
    load_balancer_class: str = ""  # empty: the cluster's default


class SlicePort(NamedTuple):
    """A port of a slice."""

    name: str
    protocol: Protocol
    port: int


class SliceEndpoint(NamedTuple):
    """One target of a slice."""

    address: str
    node: str
    ready: bool
    serving: bool
    terminating: bool


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """An EndpointSlice of a service (those of nobody have an empty service name)."""

    ref: ServiceRef  # of the service
    name: str
    ports: tuple[SlicePort, ...]
    endpoints: tuple[SliceEndpoint, ...]
