"""Verdicts do not outlive what they were about: policies, labels, pods whose addresses others get. Both families."""

from __future__ import annotations

from typing import Any

import pytest

from mycel import abi
from mycel.abi import EndpointFlags, ReservedIdentity
from tests.bpf.conftest import DROP, REDIRECT, Bench
from tests.bpf.frames import ACK, ICMP, ICMP6, SYN, UDP, Frame, wrapped
from tests.bpf.rows import addr
from tests.bpf.test_conversations import back, echo, rule
from tests.bpf.world import OTHER_ID, POD_ID, REMOTE_ID, REVISION, V4, V6, WORLDS, World, other_row, pod_row

pytestmark = [pytest.mark.root, pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)]

STRANGER_ID = 4711
SET = 7


def put(bench: Bench, row: abi.EndpointValue, *, interface: int, addresses: list[str]) -> None:
    """An endpoint's row, in both maps."""
    bench.write(
        {
            "interfaces": {abi.InterfaceKey(interface): row},
            "endpoints": {abi.EndpointKey(addr(each)): row for each in addresses},
        }
    )


def be_pod(bench: Bench, **changes: Any) -> None:
    """The pod, changed."""
    put(bench, pod_row(bench.pod)._replace(**changes), interface=bench.pod, addresses=[V4.pod, V6.pod])


def be_other(bench: Bench, rows: dict[Any, Any], **changes: Any) -> None:
    """The other pod enforces ingress with these rows."""
    bench.write({"policy": {SET: rows}})
    row = other_row(bench.other, flags=EndpointFlags.ENFORCE_INGRESS, ingress_set=SET)._replace(**changes)
    put(bench, row, interface=bench.other, addresses=[V4.other, V6.other])


def conversation(world: World, protocol: int) -> tuple[Frame, Frame]:
    """A packet of a connection under way, and an answer."""
    if protocol == ICMP:
        return echo(world), back(echo(world))
    ask = world.frame(protocol=protocol, flags=ACK)
    return ask, back(ask, flags=ACK)


@pytest.mark.parametrize("protocol", [6, UDP, ICMP])
def test_an_address_is_not_who_has_it(bench: Bench, world: World, protocol: int) -> None:
    """A pod that gets another's address goes on with none of its connections, in neither direction."""
    be_other(bench, dict([rule(POD_ID)]))
    ask, answer = conversation(world, protocol)
    assert bench.send(ask.but(flags=SYN)).verdict == REDIRECT
    assert bench.send(answer, by="other").verdict == REDIRECT
    be_pod(bench, identity=STRANGER_ID)  # with the very revision of the one before
    for _ in range(2):
        seen = bench.send(ask)
        assert seen.reason == "POLICY_DENIED"
        assert {each.source_identity for each in seen.events} == {STRANGER_ID}
        assert bench.send(answer, by="other").reason == "POLICY_DENIED"
    be_pod(bench)
    assert bench.send(ask).verdict == bench.send(answer, by="other").verdict == REDIRECT


def test_an_answers_address_is_not_who_has_it_either(bench: Bench, world: World) -> None:
    """Who gets a server's address is judged as himself when he goes on with its answers."""
    be_pod(bench, flags=EndpointFlags.READY | EndpointFlags.ENFORCE_EGRESS, egress_set=SET)
    bench.write({"policy": {SET: dict([rule(OTHER_ID)])}})
    ask, answer = conversation(world, UDP)
    assert bench.send(ask).verdict == bench.send(answer, by="other").verdict == REDIRECT
    row = other_row(bench.other)._replace(identity=STRANGER_ID)
    put(bench, row, interface=bench.other, addresses=[V4.other, V6.other])
    assert bench.send(answer, by="other").reason == "POLICY_DENIED"
    assert bench.send(ask).reason == "POLICY_DENIED"


def test_an_address_on_another_node(bench: Bench, world: World) -> None:
    """The overlay says who sends, and so do the addresses we know: a known connection is not the sender's word."""
    if world is V6:
        pytest.skip("an IPv6 packet of the overlay needs the VXLAN device")
    be_other(bench, dict([rule(REMOTE_ID)]))

    def come(flags: int, vni: int) -> str | None:
        frame = bytes(Frame(world.remote, world.other, ports=(40000, 8080), flags=flags))
        seen = bench.send(wrapped(frame, world.remote_node, world.node, vni), "from_network")
        assert (seen.verdict == DROP) == (seen.reason is not None)
        return seen.reason

    assert come(SYN, REMOTE_ID) is None
    assert come(ACK, REMOTE_ID) is None
    moved = abi.IpcacheValue(addr(V4.remote_node), STRANGER_ID, abi.IpcacheFlags.TUNNEL | abi.IpcacheFlags.CLUSTER)
    bench.write({"ipcache": {abi.IpcacheKey(addr(world.remote)): moved}})
    assert come(ACK, STRANGER_ID) == "POLICY_DENIED"


@pytest.mark.parametrize("protocol", [6, UDP, ICMP])
def test_answers_stop_with_their_connection(bench: Bench, world: World, protocol: int) -> None:
    """A server that speaks on without being asked again is stopped by the newer policy, too."""
    be_other(bench, dict([rule(POD_ID)]))
    ask, answer = conversation(world, protocol)
    assert bench.send(ask.but(flags=SYN)).verdict == bench.send(answer, by="other").verdict == REDIRECT
    be_other(bench, dict([rule(POD_ID, deny=1)]), policy_revision=REVISION + 1)
    for _ in range(2):
        seen = bench.send(answer, by="other")
        assert seen.reason == "POLICY_DENY"
        (told,) = (each for each in seen.events if each.kind == abi.EventKind.POLICY_VERDICT)
        assert (told.direction, told.endpoint_id) == (abi.Direction.INGRESS, 12)
        assert (told.source, told.source_identity) == (addr(world.pod), POD_ID)
    be_other(bench, dict([rule(POD_ID)]), policy_revision=REVISION + 2)
    assert bench.send(answer, by="other").verdict == REDIRECT


def test_one_icmp_types_verdict_is_not_anothers(bench: Bench, world: World) -> None:
    """Types without identifiers are connections of their own, and so is each direction."""
    allowed, others = (13, (15, 17, 13)) if world is V4 else (139, (140, 151, 139))
    protocol = ICMP if world is V4 else ICMP6
    be_other(bench, dict([rule(POD_ID, protocol, allowed)]))
    be_pod(bench, flags=EndpointFlags.READY | EndpointFlags.ENFORCE_INGRESS, ingress_set=9)
    bench.write({"policy": {9: {}}})
    assert bench.send(echo(world, icmp=(allowed, 0))).verdict == REDIRECT
    for kind in others[:2]:
        assert bench.send(echo(world, icmp=(kind, 0))).reason == "POLICY_DENIED"
    turned = back(echo(world), icmp=(others[2], 0))
    assert bench.send(turned, by="other").reason == "POLICY_DENIED"


def test_a_prefix_that_policy_begins_to_name(bench: Bench, world: World) -> None:
    """An outside address that gets an identity is judged anew under it."""
    bench.write({"policy": {SET: dict([rule(ReservedIdentity.WORLD)])}})
    be_other(bench, dict([rule(ReservedIdentity.WORLD)]))
    ask = world.frame("outside", protocol=UDP)
    assert bench.send(ask, "from_network").verdict == REDIRECT
    identity = 1 << 24 | 5
    bench.write({"ipcache": {abi.IpcacheKey(addr(world.outside)): abi.IpcacheValue(bytes(16), identity, 0)}})
    assert bench.send(ask, "from_network").reason == "POLICY_DENIED"


def test_policy_knows_an_address_by_its_alias(bench: Bench, world: World) -> None:
    """Events keep the identity that the address has for everybody else."""
    alias = 3 << 24 | 1
    be_other(bench, dict([rule(POD_ID, deny=1), rule(alias)]))
    ask = world.frame(protocol=UDP)
    assert bench.send(ask).reason == "POLICY_DENY"
    bench.write({"aliases": {abi.AliasKey(addr(world.pod)): abi.AliasValue(alias)}})
    seen = bench.send(ask)
    assert seen.verdict == REDIRECT
    assert {each.source_identity for each in seen.events} == {POD_ID}


def test_a_pod_may_always_meet_itself(bench: Bench, world: World) -> None:
    """Behind a service, and however closed it is: no policy is about a pod's talk with itself."""
    row = abi.BackendValue(addr(world.pod), 8080, 6, 0)
    bench.write({"backends": {abi.BackendKey(110 if world is V6 else 100): row}, "policy": {SET: {}}})
    closed = EndpointFlags.READY | EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS
    be_pod(bench, flags=closed, ingress_set=SET, egress_set=SET)
    assert bench.send(world.frame(destination="service", ports=(40000, 80))).verdict == REDIRECT
    assert bench.send(world.frame(destination="other")).reason == "POLICY_DENIED"
