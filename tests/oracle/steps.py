"""A flow of the generator → the packets two nodes would see of its first packet, and what the model expects of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mycel import abi
from mycel.model.address import Address, format_address, is_ipv4
from mycel.model.workload import PodRef
from mycel.policy.offline import End, Flow
from mycel.policy.rules import ICMP, ICMPV6
from mycel.policy.world import Pod, World
from tests.bpf.frames import NODE_MAC, POD_MAC, Frame, wrapped
from tests.bpf.world import V4
from tests.oracle.model import SideVerdict, Verdict
from tests.oracle.node_tables import STRANGER, node_addresses

REASONS = {"default-deny": "POLICY_DENIED", "deny-rule": "POLICY_DENY"}
PROXIED = "PROXY_LOOKUP_FAILED"
_ECHOES = (0, 8, 128, 129)
_ROUTER_ADVERTISEMENT = 134


class Place(NamedTuple):
    """An end as packets know it. `node` is "" outside; `pod` None for nodes."""

    address: Address
    node: str
    pod: Pod | None


class Judged(NamedTuple):
    """One side, as the model has it."""

    direction: abi.Direction
    subject: Pod
    side: SideVerdict
    silent: bool  # the node may enter without anything being looked up


class Step(NamedTuple):
    """A packet at a node's hook. `sides` are judged in order, up to the first denial."""

    node: str
    program: str
    interface: PodRef | None  # whose; None: any
    frame: bytes
    outer: tuple[int, str] | None  # VNI and underlay address of the sender, for the overlay's hook
    sides: tuple[Judged, ...]
    portless: str  # what makes it a connection, when neither a source port nor an identifier does; else empty
    reason: str | None  # a drop that has nothing to do with policy


def place(world: World, end: End, other: End, *, ipv6: bool) -> Place | None:
    """Where an end is; None when it has no address of the family, or is none a packet can come from."""
    pod = end.pod
    if pod is not None and pod.party is not None:
        address = end.address or pod.address(ipv6=ipv6)
        return Place(address, pod.node, pod) if address else None
    node = ""
    if pod is not None:
        node = pod.node
    elif end.address is not None:
        node = world.nodes.get(end.address, "")
        return Place(end.address, node, None)
    elif end.entity == "remote-node":
        node = STRANGER
    elif end.entity == "kube-apiserver" and not world.api_nodes:
        address = next((each for each in world.api_outside if is_ipv4(each) != ipv6), None)
        return Place(address, "", None) if address else None
    else:
        assert other.pod is not None
        node = other.pod.node
        if end.entity == "kube-apiserver" and node not in world.api_nodes:
            node = min(world.api_nodes)
    address = next((each for each in node_addresses(world, node) if is_ipv4(each) != ipv6), None)
    return Place(address, node, None) if address else None


def steps(world: World, flow: Flow, expected: Verdict, number: int, *, host_enters: bool) -> Iterator[Step]:
    """The packets of a flow, `number` of its state: the number is its source port."""
    source = place(world, flow.source, flow.destination, ipv6=flow.ipv6)
    destination = place(world, flow.destination, flow.source, ipv6=flow.ipv6)
    if source is None or destination is None or source.pod is destination.pod is not None:
        return
    frame = _frame(flow, source, destination, 20000 + number)
    portless = ""
    if flow.protocol in (ICMP, ICMPV6) and flow.port not in _ECHOES:
        portless = f"{frame.source} {frame.destination} {flow.port}"
    egress, ingress = _judged(source, destination, expected, host_enters=host_enters)
    if source.pod is not None:
        both = ingress if destination.node == source.node else ()
        forged = flow.protocol == ICMPV6 and flow.port == _ROUTER_ADVERTISEMENT
        sides = () if forged else (*egress, *both)
        reason = "FORBIDDEN_ICMP6" if forged else None
        yield Step(source.node, "from_pod", source.pod.ref, bytes(frame), None, sides, portless, reason)
        if forged or destination.node == source.node:
            return
    if not ingress:
        return
    assert destination.pod is not None
    if not source.node:
        from_outside = frame.but(source_mac="02:00:00:00:00:99")
        yield Step(destination.node, "from_network", None, bytes(from_outside), None, ingress, portless, None)
    elif source.node == destination.node:
        yield Step(source.node, "from_host", None, bytes(frame), None, ingress, portless, None)
    else:
        vni = source.pod.party.identity if source.pod and source.pod.party else abi.ReservedIdentity.REMOTE_NODE
        outer = "172.31.77.4" if source.node == STRANGER else V4.remote_node
        yield Step(destination.node, "from_overlay_of", None, bytes(frame), (vni, outer), ingress, portless, None)
        if not flow.ipv6:  # small IPv4 needs not wait for the device
            frame = _frame(flow, source, destination, 40000 + number)
            whole = wrapped(bytes(frame), outer, V4.node, vni)
            yield Step(destination.node, "from_network", None, whole, None, ingress, portless, None)


def _judged(
    source: Place, destination: Place, expected: Verdict, *, host_enters: bool
) -> tuple[tuple[Judged, ...], tuple[Judged, ...]]:
    egress, ingress = (), ()
    if source.pod is not None:
        egress = (Judged(abi.Direction.EGRESS, source.pod, expected.egress, False),)
    if destination.pod is not None:
        denied = expected.ingress.verdict == "denied"
        own_node = host_enters and not denied and source.pod is None and source.node == destination.node
        ingress = (Judged(abi.Direction.INGRESS, destination.pod, expected.ingress, own_node),)
    return egress, ingress


def _frame(flow: Flow, source: Place, destination: Place, port: int) -> Frame:
    ends = format_address(source.address), format_address(destination.address)
    if flow.protocol in (ICMP, ICMPV6):
        return Frame(*ends, flow.protocol, (port, 0), icmp=(flow.port, 0), source_mac=POD_MAC, destination_mac=NODE_MAC)
    return Frame(*ends, flow.protocol, (port, flow.port), source_mac=POD_MAC, destination_mac=NODE_MAC)
