"""Workloads: pods as the API server tells them, and what agents publish of them for each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, NewType

from mycel.model.address import Address
from mycel.model.service import Protocol

IdentityId = NewType("IdentityId", int)
EndpointId = NewType("EndpointId", int)
"""A pod's number on its node, 1..65535; 0 is the node itself."""

Labels = Mapping[str, str]


class PodRef(NamedTuple):
    """A pod's place."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class NamedPort(NamedTuple):
    """A container port with a name."""

    name: str
    port: int
    protocol: str


class HostPort(NamedTuple):
    """A container port that the pod's node answers at; `address` empty: at each of the node's addresses."""

    address: str
    port: int
    protocol: Protocol
    target: int


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod."""

    ref: PodRef
    uid: str
    node: str
    labels: Labels
    service_account: str
    host_network: bool
    addresses: tuple[str, ...]
    owner: tuple[str, str]  # kind and name of the controller, empty without one
    named_ports: tuple[NamedPort, ...]
    finished: bool  # Succeeded or Failed: its address may be given away
    deleted: bool  # deletionTimestamp is set
    host_ports: tuple[HostPort, ...] = ()
    visibility: str | None = None  # what an annotation wants to be looked at; None: it is silent


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace's name and labels, and what an annotation wants to be looked at in its pods."""

    name: str
    labels: Labels
    visibility: str | None = None


@dataclass(frozen=True, slots=True)
class PublishedEndpoint:
    """A CiliumEndpoint: what the agent of a pod's node says of it."""

    ref: PodRef
    endpoint_id: EndpointId
    identity: IdentityId
    labels: tuple[str, ...]  # source:key=value, sorted
    addresses: tuple[str, ...]
    node_address: str  # underlay address of its node
    enforcing: tuple[bool, bool] = (False, False)  # ingress, egress


@dataclass(frozen=True, slots=True)
class Identity:
    """A CiliumIdentity: a number and the label set it stands for."""

    id: IdentityId
    labels: tuple[str, ...]  # source:key=value, sorted
    uid: str = ""
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A pod wired on this node: what CNI ADD made, kept on disk so that a restart finds it again.

    `identity` is 0 until its labels are known; then the kernel drops everything of it.
    """

    ref: PodRef
    uid: str
    container_id: str
    endpoint_id: EndpointId
    addresses: tuple[Address, ...]
    interface: str  # the node's side of the pair
    ifindex: int
    mac: bytes  # the pod's
    node_mac: bytes  # of the node's side
    netns: str
    pod_interface: str = "eth0"
    identity: IdentityId = IdentityId(0)
    labels: tuple[str, ...] = ()  # of the identity
