"""Events and names for tests of flows."""

import ipaddress
from collections.abc import Mapping
from typing import Any

import numpy as np

from mycel import abi
from mycel.flow.enrich import Enricher, Records
from mycel.flow.kinds import Batch, Kinds
from mycel.flow.records import Endpoint, Owner, PolicyName, Request, ServiceName, Workload
from mycel.flow.rows import EVENT, Events, Rows
from mycel.flow.uuids import UuidSpace
from mycel.model.address import Address

WALL_NS = 1_790_000_000_000_000_000
UUIDS = UuidSpace(bytes(range(8)))
NODE = "default/n1"


def address(text: str) -> Address:
    """An address as the kernel writes it."""
    parsed = ipaddress.ip_address(text)
    return Address(parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed)


CLIENT, ECHO, FRONTEND, WORLD = map(address, ("10.244.1.2", "10.244.2.3", "10.96.0.7", "192.0.2.9"))
NAMED = 0x0100_0001  # the identity of WORLD, which has a name
CLIENT_ENDPOINT = Endpoint(
    1234,
    7,
    "shop",
    "client-5d",
    ("k8s:app=client", "k8s:io.kubernetes.pod.namespace=shop"),
    (Workload("Deployment", "client"),),
    "default",
)
ECHO_ENDPOINT = Endpoint(2345, 0, "shop", "echo-77", ("k8s:app=echo",), (Workload("Deployment", "echo"),), "default")


def event(**changes: Any) -> abi.FlowEvent:
    """A forwarded SYN of client to echo, seen as it enters echo's pod."""
    fields: dict[str, Any] = dict.fromkeys(abi.FlowEvent._fields, 0)
    fields |= {
        "time_ns": 1_000,
        "source": CLIENT,
        "destination": ECHO,
        "original": bytes(16),
        "source_identity": 1234,
        "destination_identity": 2345,
        "source_port": 40_000,
        "destination_port": 8080,
        "source_mac": bytes.fromhex("020000000001"),
        "destination_mac": bytes.fromhex("020000000002"),
        "kind": abi.EventKind.TRACE,
        "verdict": abi.Verdict.FORWARDED,
        "direction": abi.Direction.INGRESS,
        "protocol": 6,
        "tcp_flags": 2,
        "family": 4,
    }
    return abi.FlowEvent(**(fields | changes))


def events(*listed: abi.FlowEvent) -> Events:
    """Events as the ring reader hands them over."""
    return np.frombuffer(b"".join(each.pack() for each in listed), EVENT)


class Names:
    """A directory over dicts; counts what it is asked."""

    def __init__(self) -> None:
        self.version = 0
        self.endpoints = {CLIENT: CLIENT_ENDPOINT, ECHO: ECHO_ENDPOINT}
        self.frontends: dict[bytes, dict[tuple[int, int], ServiceName]] = {
            FRONTEND: {(80, 6): ServiceName("shop", "echo")}
        }
        self.asked: list[bytes] = []

    def owner(self, address: Address, identity: int, at_ns: int) -> Owner:
        self.asked.append(address)
        return Owner(self.endpoints.get(address), 0)

    def identity(self, address: Address) -> int:
        return NAMED if address == WORLD else abi.ReservedIdentity.WORLD

    def labels(self, identity: int) -> tuple[str, ...]:
        return ("k8s:app=other", "k8s:io.kubernetes.pod.namespace=elsewhere") if identity == 999 else ()

    def services(self, address: Address) -> Mapping[tuple[int, int], ServiceName]:
        return self.frontends.get(address, {})

    def names(self, address: Address) -> tuple[str, ...]:
        return ("one.example",) if address == WORLD else ()

    def policies(self, rule: int, endpoint_id: int, *, ingress: bool, denied: bool) -> tuple[PolicyName, ...]:
        if denied and not rule and endpoint_id == 7 and ingress:
            return (PolicyName("NetworkPolicy", "shop", "closed", "spec", 4),)
        return {9: (PolicyName("CiliumNetworkPolicy", "shop", "web", "spec.ingress[1]", 5),)}.get(rule, ())

    def request_policies(self, request: Request) -> tuple[PolicyName, ...]:
        where = "ingress" if request.ingress else "egress"
        if request.listener != 10007 or request.endpoint_id != (0 if request.ingress else 7):
            return ()
        return (PolicyName("CiliumNetworkPolicy", "shop", "web", f"{where} {request.rule} {request.denied}", 5),)

    def interface(self, ifindex: int) -> str:
        return {3: "lxc3"}.get(ifindex, "")


def enrich(*listed: abi.FlowEvent, names: Names | None = None) -> tuple[Rows, Records]:
    """Rows of events, and the records they refer to."""
    records = Records()
    return Enricher(names or Names(), records).enrich(events(*listed), wall_offset_ns=WALL_NS), records


def batch(*listed: abi.FlowEvent, names: Names | None = None) -> Batch:
    """Rows of events with their kinds."""
    rows, records = enrich(*listed, names=names)
    return Kinds(records, node_name=NODE).sort(rows)
