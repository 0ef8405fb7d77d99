"""One packet at a time: what each hook makes of it. Every row is run for IPv4 and for IPv6 unless it names a family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mycel import abi
from tests.bpf.conftest import DROP, PASS, REDIRECT, Bench
from tests.bpf.frames import (
    ICMP,
    ICMP6,
    NODE_MAC,
    OTHER_MAC,
    POD_MAC,
    SCTP,
    TCP,
    UDP,
    Frame,
    arp,
    checksum,
    discovery,
    wrapped,
)
from tests.bpf.kernel import Counted
from tests.bpf.rows import addr, prefix, text
from tests.bpf.world import OTHER_NODE_MAC, V4, V6, WORLDS, World, other_row, pod_row

pytestmark = pytest.mark.root

Make = Callable[[World], Frame | bytes]


@dataclass(frozen=True)
class Case:
    """A packet and what must become of it. `out`: the frame afterwards; None: as it came."""

    name: str
    frame: Make
    verdict: int
    point: str | None = None
    reason: str | None = None
    out: Make | None = None
    program: str = "from_pod"
    families: tuple[World, ...] = WORLDS


def delivered(frame: Frame) -> Frame:
    """As the other pod gets it."""
    return frame.but(ttl=frame.ttl - 1, source_mac=OTHER_NODE_MAC, destination_mac=OTHER_MAC)


def echo(world: World, source: str = "pod", destination: str = "other", **fields: object) -> Frame:
    return world.frame(source, destination, protocol=ICMP6 if world is V6 else ICMP, ports=(77, 0), **fields)


def cut(frame: Frame, length: int) -> bytes:
    return bytes(frame)[:length]


def headers(world: World) -> int:
    return 14 + (40 if world is V6 else 20)


def overlay(
    *, source: str = V4.remote, to: str = V4.other, outer: str = V4.remote_node, vni: int = 1003, **fields: object
) -> bytes:
    """A packet of the overlay, as it comes in by the underlay."""
    return wrapped(bytes(Frame(source, to)), outer, V4.node, vni, **fields)


CASES = [
    # -- what a pod sends, by destination
    Case("to a pod here", lambda w: w.frame(), REDIRECT, "TO_ENDPOINT", out=lambda w: delivered(w.frame())),
    Case("UDP to a pod here", lambda w: w.frame(protocol=UDP, payload=b"hi"), REDIRECT, "TO_ENDPOINT",
         out=lambda w: delivered(w.frame(protocol=UDP, payload=b"hi"))),
    Case("ping to a pod here", echo, REDIRECT, "TO_ENDPOINT", out=lambda w: delivered(echo(w))),
    Case("SCTP to a pod here", lambda w: w.frame(protocol=SCTP), REDIRECT, "TO_ENDPOINT",
         out=lambda w: delivered(w.frame(protocol=SCTP))),
    Case("to a pod there", lambda w: w.frame(destination="remote"), REDIRECT, "TO_OVERLAY"),
    Case("to its own node", lambda w: w.frame(destination="node"), PASS, "TO_STACK"),
    Case("to its gateway", lambda w: w.frame(destination="router"), PASS, "TO_STACK"),
    Case("to another node", lambda w: w.frame(destination="remote_node"), REDIRECT, "TO_OVERLAY"),
    Case("to an address nobody has", lambda w: w.frame(destination="nobody"), DROP, reason="UNROUTABLE_IP"),
    Case("to a service's other port", lambda w: w.frame(destination="service", ports=(40000, 81)), DROP,
         reason="UNROUTABLE_IP"),
    Case("to a service without backends", lambda w: w.frame(destination="empty_service", ports=(40000, 80)), DROP,
         reason="SERVICE_BACKEND_NOT_FOUND"),
    Case("SCTP to the outside", lambda w: w.frame(destination="outside", protocol=SCTP), DROP,
         reason="NAT_UNSUPPORTED_PROTOCOL"),
    Case("to a service", lambda w: w.frame(destination="service", ports=(40000, 80)), REDIRECT, "TO_ENDPOINT",
         out=lambda w: delivered(w.frame())),
    Case("UDP to a service", lambda w: w.frame(destination="service", ports=(40000, 80), protocol=UDP), REDIRECT,
         "TO_ENDPOINT", out=lambda w: delivered(w.frame(protocol=UDP))),
    Case("UDP without checksum to a service", families=(V4,), verdict=REDIRECT, point="TO_ENDPOINT",
         frame=lambda w: w.frame(destination="service", ports=(40000, 80), protocol=UDP, udp_checksum=False),
         out=lambda w: delivered(w.frame(protocol=UDP, udp_checksum=False))),
    Case("to a node port here", lambda w: w.frame(destination="node", ports=(40000, 30080)), REDIRECT, "TO_ENDPOINT",
         out=lambda w: delivered(w.frame())),
    Case("to a node port of another node", lambda w: w.frame(destination="remote_node", ports=(40000, 30080)), REDIRECT,
         "TO_ENDPOINT", out=lambda w: delivered(w.frame())),
    # -- what a pod may not send
    Case("with another's address", lambda w: w.frame(source="other"), DROP, reason="INVALID_SOURCE_IP"),
    Case("with the node's address", lambda w: w.frame(source="node"), DROP, reason="INVALID_SOURCE_IP"),
    Case("with another's MAC", lambda w: w.frame(source_mac=OTHER_MAC), DROP, reason="INVALID_SOURCE_MAC"),
    *(
        Case(f"VXLAN to {to}", lambda w, to=to: w.frame(destination=to, protocol=UDP, ports=(40000, 8472)), DROP,
             reason="ENCAP_PROHIBITED")
        for to in ("node", "remote_node", "outside")
    ),
    Case("to the VXLAN port of a pod", lambda w: w.frame(protocol=UDP, ports=(40000, 8472)), REDIRECT, "TO_ENDPOINT",
         out=lambda w: delivered(w.frame(protocol=UDP, ports=(40000, 8472)))),
    Case("at its last hop", lambda w: w.frame(ttl=1), DROP, reason="TTL_EXCEEDED"),
    Case("GRE", lambda w: w.frame(protocol=47), DROP, reason="CT_UNKNOWN_PROTO"),
    Case("an IP header of four words", lambda w: bytes(w.frame())[:14] + b"\x44" + bytes(w.frame())[15:], DROP,
         reason="INVALID_PACKET", families=(V4,)),
    Case("options without end", lambda w: w.frame(protocol=0, ports=(0, 0)), DROP,
         reason="INVALID_EXTENSION_HEADER", families=(V6,)),
    Case("half a TCP header", lambda w: cut(w.frame(), headers(w) + 12), DROP, reason="CT_INVALID_HEADER"),
    Case("half a UDP header", lambda w: cut(w.frame(protocol=UDP), headers(w) + 4), DROP, reason="CT_INVALID_HEADER"),
    Case("a fragment out of nowhere", lambda w: w.frame(protocol=UDP, fragment=(1480, False)), DROP,
         reason="FRAGMENT_NOT_FOUND"),
    Case("an error about no connection", lambda w: echo(w, icmp=(1 if w is V6 else 3, 3),
         quoted=w.frame("other", "pod")), DROP, reason="CT_INVALID_HEADER"),
    Case("an error about another's packet", lambda w: echo(w, icmp=(1 if w is V6 else 3, 3),
         quoted=w.frame("other", "remote")), DROP, reason="INVALID_PACKET"),
    Case("an error to another than it quotes", lambda w: echo(w, icmp=(1 if w is V6 else 3, 3),
         quoted=w.frame("remote", "pod")), DROP, reason="INVALID_PACKET"),
    Case("LLDP", lambda _: b"\xff" * 6 + bytes.fromhex(POD_MAC.replace(":", "")) + b"\x88\xcc" + bytes(46), DROP,
         reason="UNSUPPORTED_L3", families=(V4,)),
    Case("who has the gateway", lambda w: arp(POD_MAC, w.pod, w.router), PASS, families=(V4,)),
    Case("who has the other pod", lambda w: arp(POD_MAC, w.pod, w.other), DROP, reason="UNKNOWN_L3_TARGET",
         families=(V4,)),
    Case("ARP in another's name", lambda w: arp(POD_MAC, w.other, w.router), DROP, reason="INVALID_SOURCE_IP",
         families=(V4,)),
    Case("ARP with another's MAC inside", lambda w: arp(OTHER_MAC, w.pod, w.router), DROP, reason="INVALID_SOURCE_MAC",
         families=(V4,)),
    Case("solicits the gateway", lambda w: discovery(w.pod, w.router, 135, w.router), PASS, families=(V6,)),
    Case("solicits the other pod", lambda w: discovery(w.pod, w.other, 135, w.other), DROP, reason="UNKNOWN_L3_TARGET",
         families=(V6,)),
    Case("solicits from afar", lambda w: discovery(w.pod, w.router, 135, w.router, ttl=64), DROP,
         reason="FORBIDDEN_ICMP6", families=(V6,)),
    *(
        Case(name, lambda w, kind=kind: discovery(w.pod, "ff02::1", kind, w.other), DROP, reason="FORBIDDEN_ICMP6",
             families=(V6,))
        for name, kind in (("router advertisement", 134), ("router solicitation", 133), ("redirect", 137),
                           ("neighbour advertisement", 136), ("multicast report", 143))
    ),
    Case("an IPv4 address in IPv6 clothes", lambda w: w.frame(destination="::ffff:10.244.1.11"), DROP,
         reason="INVALID_PACKET", families=(V6,)),
    # -- what the node's stack sends
    Case("the node to a pod", lambda w: w.frame("node"), REDIRECT, "TO_ENDPOINT", program="from_host",
         out=lambda w: delivered(w.frame("node")).but(ttl=64)),
    Case("the router to a pod there", lambda w: w.frame("router", "remote"), REDIRECT, "TO_OVERLAY",
         program="from_host"),
    Case("the stack to nobody", lambda w: w.frame("node", "nobody"), DROP, reason="UNROUTABLE_IP", program="from_host"),
    Case("the stack at a pod's own door", lambda w: w.frame("node", "pod"), PASS, "TO_ENDPOINT", program="to_pod",
         out=lambda w: w.frame("node", "pod", source_mac=NODE_MAC, destination_mac=POD_MAC)),
    Case("the stack at the wrong door", lambda w: w.frame("node", "other"), DROP, reason="UNROUTABLE_IP",
         program="to_pod"),
    # -- what comes from the underlay
    Case("outside to a pod", lambda w: w.frame("outside"), REDIRECT, "TO_ENDPOINT", program="from_network",
         out=lambda w: delivered(w.frame("outside"))),
    Case("outside to the node", lambda w: w.frame("outside", "node", ports=(50000, 22)), PASS, program="from_network"),
    Case("outside to somebody behind", lambda w: w.frame("outside", "underlay_gateway"), PASS, program="from_network"),
    Case("outside to a ClusterIP", lambda w: w.frame("outside", "service", ports=(50000, 80)), PASS,
         program="from_network"),
    Case("outside in a pod's name", lambda w: w.frame("remote"), DROP, reason="INVALID_SOURCE_IP",
         program="from_network"),
    Case("a new pod's name", lambda w: w.frame("nobody"), DROP, reason="INVALID_SOURCE_IP", program="from_network"),
    Case("outside to a node port", lambda w: w.frame("outside", "node", ports=(50000, 30080)), REDIRECT, "TO_ENDPOINT",
         program="from_network", out=lambda w: delivered(w.frame("outside", ports=(50000, 8080)))),
    Case("outside to a service's own address", lambda w: w.frame("outside", "external", ports=(50000, 80)), REDIRECT,
         "TO_ENDPOINT", program="from_network", out=lambda w: delivered(w.frame("outside", ports=(50000, 8080)))),
    Case("a pod to a service's own address", lambda w: w.frame(destination="external", ports=(40000, 80)), REDIRECT,
         "TO_ENDPOINT", out=lambda w: delivered(w.frame())),
    Case("the overlay's outer packet", lambda w: w.frame("remote_node", "node", protocol=UDP, ports=(50000, 8472)),
         PASS, program="from_network"),
    Case("broken, for a pod", lambda w: cut(w.frame("outside"), headers(w) + 4), DROP, reason="CT_INVALID_HEADER",
         program="from_network"),
    Case("broken, for the node", lambda w: cut(w.frame("outside", "node"), headers(w) + 4), PASS,
         program="from_network"),
    *(
        Case(f"overlay: {name}", lambda w, f=fields: overlay(**f), verdict, point, reason, families=(V4,),
             program="from_network", out=(lambda _: delivered(Frame(V4.remote, V4.other))) if point else None)
        for name, verdict, point, reason, fields in (
            ("a pod there", REDIRECT, "TO_ENDPOINT", None, {}),
            ("the wire's identity is wrong, ours is taken", REDIRECT, "TO_ENDPOINT", None, {"vni": 4711}),
            ("from no node", PASS, None, None, {"outer": V4.outside}),
            ("to the node itself", PASS, None, None, {"to": V4.node}),
            ("to nobody", PASS, None, None, {"to": V4.nobody}),
            ("in the node's own name", DROP, None, "INVALID_IDENTITY", {"vni": 1}),
            ("without identity", DROP, None, "INVALID_IDENTITY", {"vni": 0}),
            ("in our own pod's name", DROP, None, "INVALID_SOURCE_IP", {"source": V4.pod}),
            ("in our own name", DROP, None, "INVALID_SOURCE_IP", {"source": V4.node}),
            ("in our own new pod's name", DROP, None, "INVALID_SOURCE_IP", {"source": V4.nobody}),
            ("a stranger who is not the world", DROP, None, "INVALID_IDENTITY", {"source": V4.outside}),
            ("with a checksum", PASS, None, None, {"udp_checksum": True}),
        )
    ),
    Case("not from a tunnel", lambda w: w.frame("remote"), DROP, reason="NO_TUNNEL_KEY", program="from_overlay"),
    Case("the node's own talk", lambda w: w.frame("node", "outside"), PASS, program="to_network"),
    *(
        Case(f"to {name}, past the overlay", lambda w, to=to: w.frame("node", to), DROP,
             reason="UNROUTABLE_IP", program="to_network")
        for name, to in (("a service", "service"), ("another node's pod", "remote"), ("nobody", "nobody"))
    ),
]  # fmt: skip


def check_wrapped(frame: bytes, inner: bytes) -> None:
    """Small IPv4 leaves wrapped: all but the outer MACs, the outer source port and the inner MACs is known."""
    vni = int.from_bytes(frame[46:49], "big")
    port = int.from_bytes(frame[34:36], "big")
    assert port >= 0xC000
    assert vni in (1001, abi.ReservedIdentity.REMOTE_NODE)
    macs = bytes.fromhex("020000000000")
    expected = bytearray(wrapped(macs + macs + inner[12:], V4.node, V4.remote_node, vni, port=port))
    expected[18:22] = bytes.fromhex("00004000")  # identification 0, do not fragment
    expected[24:26] = b"\0\0"
    expected[24:26] = checksum(bytes(expected[14:34])).to_bytes(2, "big")
    assert frame[12:].hex() == bytes(expected[12:]).hex()


EVERY = [pytest.param(case, world, id=f"{case.name}-{world.name}") for case in CASES for world in case.families]


@pytest.mark.parametrize(("case", "world"), EVERY)
def test_packet(bench: Bench, case: Case, world: World) -> None:
    """Verdict, frame, event and counter agree with the table."""
    frame = case.frame(world)
    seen = bench.send(frame, case.program)
    assert (seen.verdict, seen.reason, seen.points) == (
        case.verdict, case.reason, [case.point] if case.point else []
    )  # fmt: skip
    if case.point == "TO_OVERLAY" and world is V4:
        check_wrapped(seen.frame, bytes(frame))
    elif case.verdict != DROP:
        assert seen.frame.hex() == bytes(case.out(world) if case.out else frame).hex()
    counters = bench.datapath.counters()
    if case.reason is not None:
        direction = abi.Direction.EGRESS if case.program == "from_pod" else abi.Direction.INGRESS
        assert counters == {Counted(abi.DropReason[case.reason], direction): 1}
    else:
        assert sum(counters.values()) == (1 if case.point else 0)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_event_says_it_all(bench: Bench, world: World) -> None:
    """Every field of an event, in the byte order Python reads."""
    (event,) = bench.send(world.frame(destination="service", ports=(40000, 80))).events
    assert event._asdict() == {
        "time_ns": event.time_ns,
        "source": addr(world.pod),
        "destination": addr(world.other),
        "original": addr(world.service),
        "source_identity": 1001,
        "destination_identity": 1002,
        "ifindex": bench.pod,
        "length": 60 if world is V6 else 40,
        "policy_rule": 0,
        "policy_revision": 0,
        "source_port": 40000,
        "destination_port": 8080,
        "original_port": 80,
        "proxy_port": 0,
        "endpoint_id": 12,
        "source_mac": bytes.fromhex(POD_MAC.replace(":", "")),
        "destination_mac": bytes.fromhex(NODE_MAC.replace(":", "")),
        "kind": abi.EventKind.TRACE,
        "sub_type": abi.TracePoint.TO_ENDPOINT,
        "verdict": abi.Verdict.FORWARDED,
        "direction": abi.Direction.INGRESS,
        "protocol": TCP,
        "tcp_flags": 2,
        "icmp_type": 0,
        "icmp_code": 0,
        "reason": abi.TraceReason.NEW,
        "is_reply": abi.ReplyState.FALSE,
        "policy_match": 0,
        "family": 6 if world is V6 else 4,
        "ether_type": 0,
    }
    assert text(event.source) == world.pod
    assert event.time_ns > 0


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_endpoint_that_is_not_ready(bench: Bench, world: World, who: str) -> None:
    """Before its policy is realized nothing leaves an endpoint and nothing enters it."""
    if who == "sender":
        row = pod_row(bench.pod)._replace(flags=0)
        bench.write({"interfaces": {abi.InterfaceKey(bench.pod): row}})
    else:
        row = other_row(bench.other, ready=False)
        bench.write({"endpoints": {abi.EndpointKey(addr(world.other)): row}})
    assert bench.send(world.frame()).reason == "ENDPOINT_NOT_READY"
    assert not bench.datapath.maps["ct"].dump()


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
@pytest.mark.parametrize("program", ["from_pod", "to_pod"])
def test_interface_nobody_registered(bench: Bench, world: World, program: str) -> None:
    """No row for the interface: closed."""
    bench.datapath.maps["interfaces"].remove([abi.InterfaceKey(bench.pod)])
    assert bench.send(world.frame(), program).reason == "NO_ENDPOINT"


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_a_service_of_a_network_nobody_told_us(bench: Bench, world: World) -> None:
    """Its own address does not leave the node either; where others answer too, the outside may."""
    bench.datapath.maps["ipcache_lpm"].remove([prefix(each) for each in world.bits])
    for to, port, verdict in (("service", 80, DROP), ("service", 81, PASS), ("external", 80, PASS)):
        assert bench.send(world.frame("node", to, ports=(40000, port)), "to_network").verdict == verdict
