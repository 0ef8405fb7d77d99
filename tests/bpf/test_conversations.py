"""Several packets in a row: connection tracking, policy, translation both ways, fragments. Both families."""

from __future__ import annotations

from typing import Any

import pytest

from mycel import abi
from mycel.abi import CtFlags, EndpointFlags, PolicyMatch, ServiceFlags, TraceReason
from tests.bpf.conftest import DROP, PASS, REDIRECT, Bench
from tests.bpf.frames import ACK, FIN, ICMP, ICMP6, NODE_MAC, OTHER_MAC, POD_MAC, PSH, RST, SYN, TCP, UDP, Frame
from tests.bpf.rows import addr, ct_key, key_of, text
from tests.bpf.world import OTHER_ID, OTHER_NODE_MAC, POD_ID, REVISION, V6, WORLDS, World, other_row, pod_row

pytestmark = [pytest.mark.root, pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)]

FROM_OTHER: dict[str, Any] = {"source_mac": OTHER_MAC, "destination_mac": OTHER_NODE_MAC}
TO_POD: dict[str, Any] = {"ttl": 63, "source_mac": NODE_MAC, "destination_mac": POD_MAC}
TO_OTHER: dict[str, Any] = {"ttl": 63, "source_mac": OTHER_NODE_MAC, "destination_mac": OTHER_MAC}


def back(frame: Frame, **changes: Any) -> Frame:
    """The other pod's answer, as it leaves that pod."""
    return frame.answer(**(FROM_OTHER | {"ttl": 64} | changes))


def echo(world: World, **fields: Any) -> Frame:
    icmp = {"icmp": (128 if world is V6 else 8, 0)} | fields
    return world.frame(protocol=ICMP6 if world is V6 else ICMP, ports=(77, 0), **icmp)


def shown(bench: Bench, frame: Frame, by: str = "pod") -> list[str]:
    """The trace points of one packet that passes."""
    seen = bench.send(frame, by=by)
    assert seen.verdict == REDIRECT, seen
    return seen.points


# -- connection tracking


def test_events_of_a_connection(bench: Bench, world: World) -> None:
    """New flags of a direction are shown once; the packets between are not."""
    syn = world.frame()
    assert shown(bench, syn) == ["TO_ENDPOINT"]
    assert shown(bench, syn) == []  # said again
    assert shown(bench, back(syn, flags=SYN | ACK), "other") == ["TO_ENDPOINT"]
    assert shown(bench, syn.but(flags=ACK)) == ["TO_ENDPOINT"]
    assert shown(bench, syn.but(flags=ACK)) == []
    assert shown(bench, syn.but(flags=ACK | PSH, payload=b"GET")) == ["TO_ENDPOINT"]
    assert shown(bench, syn.but(flags=ACK | PSH, payload=b"GET")) == []
    assert shown(bench, back(syn, flags=ACK), "other") == []
    assert shown(bench, syn.but(flags=ACK | FIN)) == ["TO_ENDPOINT"]
    assert bench.datapath.counters() == {(0, abi.Direction.INGRESS): 9}


def test_a_connection_is_one_row(bench: Bench, world: World) -> None:
    """Both directions and both identities in one row, whichever end is the lower one."""
    bench.send(world.frame())
    bench.send(back(world.frame(), flags=SYN | ACK), by="other")
    ((key, row),) = bench.datapath.maps["ct"].dump().items()
    assert key == ct_key(world.pod, world.other, (40000, 8080), TCP)
    assert (row.source_identity, row.destination_identity) == (POD_ID, OTHER_ID)
    judged = CtFlags.EGRESS_JUDGED | CtFlags.INGRESS_JUDGED | CtFlags.SEEN_REPLY
    assert row.flags & ~CtFlags.SOURCE_IS_HIGH == judged
    assert (row.egress_revision, row.ingress_revision) == (REVISION, REVISION)


def test_reasons_and_identities(bench: Bench, world: World) -> None:
    """New, reply, established, reopened: as the client reads them."""
    syn = world.frame()
    (first,) = bench.send(syn).events
    (second,) = bench.send(back(syn, flags=SYN | ACK), by="other").events
    (third,) = bench.send(syn.but(flags=ACK)).events
    bench.send(syn.but(flags=RST))
    (again,) = bench.send(syn).events
    reasons = [each.reason for each in (first, second, third, again)]
    assert reasons == [TraceReason.NEW, TraceReason.REPLY, TraceReason.ESTABLISHED, TraceReason.REOPENED]
    assert [each.is_reply for each in (first, second, third, again)] == [0, 1, 0, 0]
    assert (second.source_identity, second.destination_identity) == (OTHER_ID, POD_ID)
    assert [each.direction for each in (first, second)] == [abi.Direction.INGRESS, abi.Direction.EGRESS]


def test_an_old_row_is_no_connection(bench: Bench, world: World) -> None:
    """A row past its lifetime is as good as none: the answer is then a new connection, from the other side."""
    bench.send(world.frame(protocol=UDP))
    ((key, row),) = bench.datapath.maps["ct"].dump().items()
    bench.datapath.maps["ct"].write({key: row._replace(last_seen_ns=max(0, row.last_seen_ns - 61 * 10**9))})
    (event,) = bench.send(back(world.frame(protocol=UDP)), by="other").events
    assert (event.reason, event.is_reply) == (TraceReason.NEW, 0)


# -- policy


def enforce(bench: Bench, rows: dict[abi.PolicyKey, abi.PolicyValue] | None, *, side: str = "ingress") -> None:
    """The other pod enforces ingress with these rows, or the pod egress. None: a set that is not there."""
    if rows is not None:
        bench.write({"policy": {7: rows}})
    if side == "ingress":
        row = other_row(bench.other, flags=EndpointFlags.ENFORCE_INGRESS, ingress_set=7)
        tables: dict[str, Any] = {"interfaces": {abi.InterfaceKey(bench.other): row}}
        addresses = [world.other for world in WORLDS]
    else:
        row = pod_row(bench.pod, flags=EndpointFlags.ENFORCE_EGRESS, egress_set=7)
        tables = {"interfaces": {abi.InterfaceKey(bench.pod): row}}
        addresses = [world.pod for world in WORLDS]
    bench.write(tables | {"endpoints": {abi.EndpointKey(addr(each)): row for each in addresses}})


def rule(
    identity: int = 0, protocol: int = 0, port: int = 0, *, bits: int | None = None, **value: int
) -> tuple[abi.PolicyKey, abi.PolicyValue]:
    """A policy row; its prefix ends after the last field that is given, or after `bits` bits of the port."""
    length = 48 + bits if bits is not None else 64 if port else 40 if protocol else 32
    fields = {"proxy_port": 0, "deny": 0, "precedence": 0, "rule": 9, "match": PolicyMatch.L3_L4, "looks": 0} | value
    return abi.PolicyKey(length, identity, protocol, port), abi.PolicyValue(**fields)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (None, "POLICY_DENIED"),
        ([], "POLICY_DENIED"),
        ([rule(POD_ID, TCP, 8080)], None),
        ([rule(POD_ID, TCP)], None),
        ([rule(POD_ID)], None),
        ([rule(0, TCP, 8080)], None),
        ([rule()], None),
        ([rule(POD_ID, TCP, 8080, bits=12)], None),
        ([rule(POD_ID, TCP, 8192, bits=3)], "POLICY_DENIED"),
        ([rule(POD_ID, TCP, 8081)], "POLICY_DENIED"),
        ([rule(POD_ID, UDP, 8080)], "POLICY_DENIED"),
        ([rule(POD_ID + 1, TCP, 8080)], "POLICY_DENIED"),
        ([rule(POD_ID, TCP, 8080, deny=1)], "POLICY_DENY"),
        ([rule(POD_ID, TCP, 8080), rule(0, TCP, 8080, deny=1)], "POLICY_DENY"),
        ([rule(POD_ID, TCP, 8080, deny=1), rule(0, TCP, 8080)], "POLICY_DENY"),
        ([rule(POD_ID, TCP, 8080, proxy_port=10000)], "PROXY_LOOKUP_FAILED"),
        ([rule(POD_ID, TCP, 8080, proxy_port=10000, looks=1)], None),
        ([rule(POD_ID, TCP, 8080, proxy_port=10000, looks=1), rule(0, TCP, 8080, deny=1)], "POLICY_DENY"),
        ([rule(POD_ID, TCP, 8081, proxy_port=10000, looks=1)], "POLICY_DENIED"),
        ([rule(POD_ID, TCP, 8080), rule(0, TCP, 8080, proxy_port=10000, precedence=3)], "PROXY_LOOKUP_FAILED"),
    ],
)
def test_ingress_policy(bench: Bench, world: World, rows: Any, reason: str | None) -> None:
    """What a set of rows says of one connection; nothing is remembered of a denied one. No listener is there."""
    enforce(bench, None if rows is None else dict(rows))
    seen = bench.send(world.frame())
    assert seen.reason == reason
    assert seen.verdict == (DROP if reason else REDIRECT)
    to_listener = reason == "PROXY_LOOKUP_FAILED"
    assert len(bench.datapath.maps["ct"].dump()) == (0 if reason and not to_listener else 1)
    (verdict,) = (each for each in seen.events if each.kind == abi.EventKind.POLICY_VERDICT)
    outcome = abi.Verdict.REDIRECTED if to_listener else abi.Verdict.DROPPED if reason else abi.Verdict.FORWARDED
    assert (verdict.verdict, verdict.proxy_port) == (outcome, 10000 if to_listener else 0)
    assert (verdict.direction, verdict.endpoint_id) == (abi.Direction.INGRESS, 12)
    assert verdict.policy_match == (PolicyMatch.NONE if reason == "POLICY_DENIED" else PolicyMatch.L3_L4)


@pytest.mark.parametrize("allowed", [True, False])
def test_egress_policy(bench: Bench, world: World, allowed: bool) -> None:
    """The sender's own policy, by the receiver's identity."""
    enforce(bench, dict([rule(OTHER_ID if allowed else POD_ID, TCP, 8080)]), side="egress")
    assert bench.send(world.frame()).verdict == (REDIRECT if allowed else DROP)


def test_icmp_policy_goes_by_type(bench: Bench, world: World) -> None:
    """A row for echo requests lets them in, and their answers out; not an answer nobody asked for."""
    request = echo(world)
    enforce(bench, dict([rule(POD_ID, request.protocol, 128 if world is V6 else 8)]))
    assert bench.send(echo(world, icmp=(129 if world is V6 else 0, 0))).reason == "POLICY_DENIED"
    assert bench.send(request).verdict == REDIRECT
    assert bench.send(back(request), by="other").points == ["TO_ENDPOINT"]


def test_answers_pass_a_closed_door(bench: Bench, world: World) -> None:
    """Who may not be asked may ask: answers belong to the connection."""
    bench.write({"policy": {7: {}}})
    closed = pod_row(bench.pod, flags=EndpointFlags.ENFORCE_INGRESS, ingress_set=7)
    bench.write({"endpoints": {abi.EndpointKey(addr(world.pod)): closed},
                 "interfaces": {abi.InterfaceKey(bench.pod): closed}})  # fmt: skip
    bench.send(world.frame())
    assert bench.send(back(world.frame(), flags=SYN | ACK), by="other").verdict == REDIRECT
    # The same ports the other way round are another matter: a SYN is a question.
    assert bench.send(back(world.frame(), flags=SYN), by="other").reason == "POLICY_DENIED"
    assert bench.send(back(world.frame(protocol=UDP)), by="other").reason == "POLICY_DENIED"


def test_a_listener_that_only_looks_gets_no_connection_under_way(bench: Bench, world: World) -> None:
    """One that rules ask for ends it: nobody has seen its beginning."""
    enforce(bench, dict([rule()]))
    bench.send(world.frame())
    bench.send(back(world.frame(), flags=SYN | ACK), by="other")
    for revision, looks, reason in ((6, 1, None), (7, 0, "PROXY_LOOKUP_FAILED"), (8, 1, None)):
        bench.write({"policy": {7: dict([rule(0, TCP, 8080, proxy_port=10000, looks=looks)])}})
        row = other_row(bench.other, flags=EndpointFlags.ENFORCE_INGRESS, ingress_set=7)._replace(
            policy_revision=revision
        )
        bench.write({"endpoints": {abi.EndpointKey(addr(world.other)): row}})
        assert bench.send(world.frame(flags=ACK)).reason == reason


def test_a_later_denial_ends_the_connection(bench: Bench, world: World) -> None:
    """A newer policy revision judges a known connection again, and a newer one still may allow it again."""
    bench.send(world.frame())
    bench.send(back(world.frame(), flags=SYN | ACK), by="other")
    bench.write({"policy": {7: {}}})
    for revision, rows, verdict in ((6, {}, DROP), (7, dict([rule(POD_ID)]), REDIRECT)):
        bench.write({"policy": {7: rows}})
        row = other_row(bench.other, flags=EndpointFlags.ENFORCE_INGRESS, ingress_set=7)._replace(
            policy_revision=revision
        )
        bench.write({"endpoints": {abi.EndpointKey(addr(world.other)): row}})
        for _ in range(2):
            assert bench.send(world.frame(flags=ACK)).verdict == verdict


def test_the_node_may_enter_its_pods(bench: Bench, world: World) -> None:
    """Probes come from the node; somebody the node forwards for is judged as who he is."""
    enforce(bench, {})
    assert bench.send(world.frame("node"), "from_host").verdict == REDIRECT
    assert bench.send(world.frame("outside"), "from_host").reason == "POLICY_DENIED"
    assert bench.send(world.frame("outside"), "from_network").reason == "POLICY_DENIED"
    assert bench.send(world.frame("pod"), "from_host").reason == "POLICY_DENIED"


# -- translation


def test_a_services_answer_comes_from_the_service(bench: Bench, world: World) -> None:
    """Both directions of a connection to a service, translated packet by packet, with one choice of backend."""
    ask = world.frame(destination="service", ports=(40000, 80))
    for flags in (SYN, ACK):
        seen = bench.send(ask.but(flags=flags))
        assert seen.frame.hex() == bytes(world.frame(flags=flags, **TO_OTHER)).hex()
        answer = bench.send(back(world.frame(), flags=flags | ACK), by="other")
        assert answer.frame.hex() == bytes(ask.answer(flags=flags | ACK, **TO_POD)).hex()


def test_a_pod_meets_itself_behind_a_service(bench: Bench, world: World) -> None:
    """It sees an address that is not its own, or its stack would refuse the packet."""
    row = abi.BackendValue(addr(world.pod), 8080, TCP, 0)
    service_id = 110 if world is V6 else 100
    bench.write({"backends": {abi.BackendKey(service_id): row}})
    ask = world.frame(destination="service", ports=(40000, 80))
    inward = bench.send(ask)
    expected = Frame(world.loopback, world.pod, ports=(40000, 8080), **TO_POD)
    assert inward.frame.hex() == bytes(expected).hex()
    outward = bench.send(Frame(world.pod, world.loopback, ports=(8080, 40000), flags=SYN | ACK))
    assert outward.frame.hex() == bytes(ask.answer(flags=SYN | ACK, **TO_POD)).hex()


@pytest.mark.parametrize("protocol", [TCP, UDP, ICMP])
def test_masquerade(bench: Bench, world: World, protocol: int) -> None:
    """To the outside: the node's address and a port of its range; and back. It is tracked as the pod's own."""
    ping = protocol == ICMP
    ask = echo(world, destination="outside") if ping else world.frame(destination="outside", protocol=protocol)
    out = bench.send(ask)
    assert (out.verdict, out.points) == (REDIRECT, ["TO_NETWORK"])
    rows = bench.datapath.maps["nat"].dump()
    forward = rows[key_of(world.pod, world.outside, ask.ports, ask.protocol)].rewritten
    port = forward.source_port
    assert text(forward.source) == world.node
    assert 61000 <= port <= 65535
    ports = (port, ask.ports[1])
    changed = ask.but(source=world.node, ports=ports, ttl=63)
    assert out.frame.hex() == bytes(changed).hex()
    assert len(bench.datapath.maps["ct"].dump()) == 1
    answer = bench.send(changed.answer(ttl=64, flags=SYN | ACK), "from_network")
    assert answer.frame.hex() == bytes(ask.answer(flags=SYN | ACK, **TO_POD)).hex()
    (event,) = answer.events
    assert (text(event.destination), event.reason) == (world.pod, TraceReason.REPLY)


def test_masquerade_gives_each_connection_its_port(bench: Bench, world: World) -> None:
    """Two pods with equal ports to one place do not meet, and a connection keeps its port."""
    bench.send(world.frame(destination="outside"))
    bench.send(world.frame("other", "outside", **FROM_OTHER), by="other")
    bench.send(world.frame(destination="outside", flags=ACK))
    rows = bench.datapath.maps["nat"].dump()
    assert len(rows) == 4
    assert len({row.rewritten.source_port for row in rows.values() if text(row.rewritten.source) == world.node}) == 2


def test_nobody_answers_a_stranger(bench: Bench, world: World) -> None:
    """A packet to a port of the range that no connection has is the node's own affair."""
    assert bench.send(world.frame("outside", "node", ports=(443, 61000)), "from_network").verdict == PASS


def test_closed_translation_is_let_go(bench: Bench, world: World) -> None:
    """After RST both rows of a pair say so, and a new SYN opens them again."""
    ask = world.frame(destination="outside")
    for flags, closing in ((SYN, False), (RST, True), (SYN, False)):
        bench.send(ask.but(flags=flags))
        rows = bench.datapath.maps["nat"].dump()
        assert [bool(row.flags & abi.NatFlags.CLOSING) for row in rows.values()] == [closing] * 2


def test_a_port_that_another_connection_has_is_not_used(bench: Bench, world: World) -> None:
    """A connection that begins again finds its port given away (its way back was evicted): it gets another one."""
    nat = bench.datapath.maps["nat"]
    ask, other = world.frame(destination="outside"), world.frame("other", "outside", **FROM_OTHER)
    forward = key_of(world.pod, world.outside, ask.ports, TCP)
    bench.send(ask)
    bench.send(ask.but(flags=RST))
    given = nat.get(forward).rewritten
    back = abi.Tuple(given.destination, given.source, given.destination_port, given.source_port, given.protocol)
    whose = nat.get(back).rewritten._replace(destination=addr(world.other), destination_port=other.ports[0])
    bench.write({"nat": {back: nat.get(back)._replace(rewritten=whose)}})
    bench.send(ask)
    assert nat.get(forward).rewritten.source_port != given.source_port
    assert nat.get(back).rewritten == whose


@pytest.mark.parametrize("kind", ["unreachable", "too big"])
def test_an_error_about_a_masqueraded_packet(bench: Bench, world: World, kind: str) -> None:
    """A router's error reaches the pod, about the packet as the pod sent it."""
    ask = world.frame(destination="outside", protocol=UDP, payload=b"x" * 20)
    bench.send(ask)
    forward = bench.datapath.maps["nat"].dump()[key_of(world.pod, world.outside, ask.ports, UDP)].rewritten
    sent = ask.but(source=world.node, ports=(forward.source_port, ask.ports[1]), ttl=63)
    icmp = (
        ((1, 4) if kind == "unreachable" else (2, 0)) if world is V6 else ((3, 3) if kind == "unreachable" else (3, 4))
    )
    protocol = ICMP6 if world is V6 else ICMP
    error = Frame(world.underlay_gateway, world.node, protocol, ports=(0, 0), icmp=icmp, quoted=sent)
    seen = bench.send(error, "from_network")
    assert (seen.verdict, seen.points) == (REDIRECT, ["TO_ENDPOINT"])
    assert seen.events[0].reason == TraceReason.RELATED
    whole = error.but(destination=world.pod, quoted=ask.but(ttl=63), **TO_POD)
    # The quoted packet's own checksum, over addresses that changed, is the one thing nobody mends or reads.
    expected, got = bytes(whole), seen.frame
    at = 14 + (40 + 8 + 40 if world is V6 else 20 + 8 + 20) + 6
    assert got[:at].hex()[: 2 * (at - 60)] == expected[:at].hex()[: 2 * (at - 60)]
    assert got[14 + (48 if world is V6 else 28) : at].hex() == expected[14 + (48 if world is V6 else 28) : at].hex()
    assert checksum_holds(got, world)


def checksum_holds(frame: bytes, world: World) -> bool:
    """Whether the ICMP checksum of a frame is right."""
    from tests.bpf.frames import checksum

    if world is V6:
        body = frame[54:]
        pseudo = frame[22:54] + len(body).to_bytes(4, "big") + (58).to_bytes(4, "big")
        return checksum(pseudo + body) == 0
    return checksum(frame[34:]) == 0


def test_an_error_between_pods(bench: Bench, world: World) -> None:
    """A pod's refusal passes as related to the packet it quotes, to whom sent that."""
    ask = world.frame(protocol=UDP)
    bench.send(ask)
    refusal = Frame(
        world.other, world.pod, ICMP6 if world is V6 else ICMP, ports=(0, 0),
        icmp=(1, 4) if world is V6 else (3, 3), quoted=ask, **FROM_OTHER,
    )  # fmt: skip
    seen = bench.send(refusal, by="other")
    assert (seen.verdict, seen.points) == (REDIRECT, ["TO_ENDPOINT"])
    assert (seen.events[0].reason, seen.events[0].is_reply) == (TraceReason.RELATED, 1)


def test_an_error_from_behind_a_service(bench: Bench, world: World) -> None:
    """The pod that dialled a service is told that the service refused, about the packet that it sent."""
    ask = world.frame(destination="service", ports=(40000, 80), protocol=UDP)
    inward = bench.send(ask)
    assert inward.verdict == REDIRECT
    refusal = Frame(
        world.other, world.pod, ICMP6 if world is V6 else ICMP, ports=(0, 0),
        icmp=(1, 4) if world is V6 else (3, 3), quoted=world.frame(protocol=UDP, ttl=63), **FROM_OTHER,
    )  # fmt: skip
    seen = bench.send(refusal, by="other")
    assert seen.verdict == REDIRECT
    source = 22 if world is V6 else 26
    size = 16 if world is V6 else 4
    assert seen.frame[source : source + size] == addr(world.service)[-size:]
    quoted = 14 + (40 + 8 + 24 if world is V6 else 20 + 8 + 16)
    assert seen.frame[quoted : quoted + size] == addr(world.service)[-size:]
    assert checksum_holds(seen.frame, world)


def test_node_port_and_back(bench: Bench, world: World) -> None:
    """From outside to a node port with a pod here: the pod sees the client, the client sees the node."""
    ask = world.frame("outside", "node", ports=(50000, 30080))
    inward = bench.send(ask, "from_network")
    inner = world.frame("outside", ports=(50000, 8080))
    assert inward.frame.hex() == bytes(inner.but(**TO_OTHER)).hex()
    outward = bench.send(back(inner, flags=SYN | ACK), by="other")
    assert (outward.verdict, outward.points) == (REDIRECT, ["TO_NETWORK"])
    assert outward.frame.hex() == bytes(ask.answer(flags=SYN | ACK, ttl=63, **FROM_OTHER)).hex()


def test_node_port_to_another_node(bench: Bench, world: World) -> None:
    """A backend elsewhere is sent what looks like the node's own, as the world's."""
    backend = abi.BackendValue(addr(world.remote), 8080, TCP, 0)
    bench.write({"backends": {abi.BackendKey(110 if world is V6 else 100): backend}})
    seen = bench.send(world.frame("outside", "node", ports=(50000, 30080)), "from_network")
    assert (seen.verdict, seen.points) == (REDIRECT, ["TO_OVERLAY"])
    row = bench.datapath.maps["nat"].get(key_of(world.outside, world.remote, (50000, 8080), TCP))
    expected = bytes(world.frame("node", "remote", ports=(row.rewritten.source_port, 8080)))
    assert seen.frame[14 if world is V6 else 64 :].hex() == expected[14:].hex()  # IPv4 is wrapped already
    assert seen.events[0].source_identity == abi.ReservedIdentity.WORLD


def test_node_port_of_the_nodes_own(bench: Bench, world: World) -> None:
    """A backend that is the node itself: to the stack, and its answer gets the port that was dialled."""
    backend = abi.BackendValue(addr(world.node), 8080, TCP, 0)
    bench.write({"backends": {abi.BackendKey(110 if world is V6 else 100): backend}})
    ask = world.frame("outside", "node", ports=(50000, 30080))
    inward = bench.send(ask, "from_network")
    assert (inward.verdict, inward.points) == (PASS, ["TO_STACK"])
    assert inward.frame.hex() == bytes(ask.but(ports=(50000, 8080))).hex()
    outward = bench.send(ask.but(ports=(50000, 8080)).answer(flags=SYN | ACK), "to_network")
    assert outward.frame.hex() == bytes(ask.answer(flags=SYN | ACK)).hex()


def two_backends(bench: Bench, world: World, **changes: int) -> None:
    """Give the service a second backend, on another node."""
    service_id = 110 if world is V6 else 100
    row = abi.ServiceValue(service_id, 2, ServiceFlags.CLUSTER_IP, 0, 1, 0, 0)._replace(**changes)
    bench.write({
        "backends": {abi.BackendKey(555): abi.BackendValue(addr(world.remote), 8080, TCP, 0)},
        "service_slots": {abi.SlotKey(service_id, 2): abi.SlotValue(555)},
        "services": {
            abi.ServiceKey(addr(world.service), 80, TCP): row,
            abi.ServiceKey(addr(world.unspecified), 30080, TCP): row._replace(
                flags=row.flags | ServiceFlags.NODE_PORT
            ),
        },
    })  # fmt: skip


def chosen(bench: Bench, world: World, ports: range) -> set[str]:
    """Which backends connections from these ports got."""
    points = {"TO_ENDPOINT": "here", "TO_OVERLAY": "there"}
    asks = (world.frame(destination="service", ports=(port, 80)) for port in ports)
    return {points[bench.send(ask).points[0]] for ask in asks}


def test_connections_spread(bench: Bench, world: World) -> None:
    """Of 40 connections some go to either backend (chance that they do not: 2 in 10^12)."""
    two_backends(bench, world)
    assert chosen(bench, world, range(41000, 41040)) == {"here", "there"}


def test_affinity_keeps_a_client(bench: Bench, world: World) -> None:
    """With ClientIP affinity they all go to one, until that one serves no more."""
    two_backends(bench, world, flags=ServiceFlags.CLUSTER_IP | ServiceFlags.AFFINITY, affinity_s=60)
    (first,) = chosen(bench, world, range(41000, 41020))
    service_id = 110 if world is V6 else 100
    slot = abi.SlotKey(service_id, 1 if first == "here" else 2)
    other = bench.datapath.maps["service_slots"].get(abi.SlotKey(service_id, 2 if first == "here" else 1))
    bench.write({"service_slots": {slot: other}})
    assert chosen(bench, world, range(42000, 42020)) == {"there" if first == "here" else "here"}


def test_traffic_policies(bench: Bench, world: World) -> None:
    """Local: only this node's backends, for those from inside or from outside; and none is none."""
    two_backends(bench, world, flags=ServiceFlags.CLUSTER_IP | ServiceFlags.LOCAL_INTERNAL)
    assert chosen(bench, world, range(41000, 41020)) == {"here"}
    two_backends(bench, world, flags=ServiceFlags.CLUSTER_IP | ServiceFlags.LOCAL_EXTERNAL, local_count=0)
    outside = world.frame("outside", "node", ports=(50000, 30080))
    assert bench.send(outside, "from_network").reason == "SERVICE_BACKEND_NOT_FOUND"
    assert chosen(bench, world, range(42000, 42040)) == {"here", "there"}


def test_a_connection_outlives_its_slot_not_its_backend(bench: Bench, world: World) -> None:
    """A backend that left the slots keeps its connections; one that is gone loses them to another."""
    ask = world.frame(destination="service", ports=(40000, 80))
    bench.send(ask)
    two_backends(bench, world)
    service_id = 110 if world is V6 else 100
    bench.write({"service_slots": {abi.SlotKey(service_id, 1): abi.SlotValue(555)}})
    assert bench.send(ask.but(flags=ACK)).points == ["TO_ENDPOINT"]
    bench.datapath.maps["backends"].remove([abi.BackendKey(service_id)])
    assert bench.send(ask.but(flags=ACK)).points == ["TO_OVERLAY"]


# -- fragments


def test_fragments_follow_the_first(bench: Bench, world: World) -> None:
    """Later fragments go where the first went, with its translation; others go nowhere."""
    head = world.frame(destination="service", ports=(40000, 80), protocol=UDP, payload=b"x" * 64, fragment=(0, True))
    tail = head.but(fragment=(24, False))
    assert bench.send(tail).reason == "FRAGMENT_NOT_FOUND"
    assert bench.send(head).verdict == REDIRECT
    seen = bench.send(tail)
    assert seen.verdict == REDIRECT
    at = 38 if world is V6 else 30
    size = 16 if world is V6 else 4
    assert seen.frame[at : at + size] == addr(world.other)[-size:]
    assert bench.send(tail.but(source=world.other, **FROM_OTHER), by="other").reason == "FRAGMENT_NOT_FOUND"
