"""What the knobs switch. Each case loads the programs anew, so every combination passes the verifier too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mycel import abi
from mycel.datapath.objects import KnobValue
from tests.bpf.conftest import DROP, KNOBS, PASS, REDIRECT, Bench
from tests.bpf.frames import ICMP, ICMP6, OTHER_MAC, TCP, UDP, Frame
from tests.bpf.kernel import Datapath
from tests.bpf.rows import key_of
from tests.bpf.world import OTHER_NODE_MAC, V4, V6, WORLDS, World, rows

pytestmark = pytest.mark.root

Load = Callable[..., Bench]


@pytest.fixture
def load(bench: Bench, tmp_path: Path, request: pytest.FixtureRequest) -> Load:
    """Load with other knobs than the rest of the tests have."""

    def loader(**knobs: KnobValue) -> Bench:
        datapath = Datapath(KNOBS | knobs, lock=tmp_path / "rings")
        request.addfinalizer(datapath.close)
        made = Bench(datapath, bench.pod, bench.other)
        made.write(rows(bench.pod, bench.other))
        return made

    return loader


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_a_family_that_is_off(load: Load, world: World) -> None:
    """It is dropped by name whatever the packet is; the other family passes."""
    bench = load(config_ipv4=world is V6, config_ipv6=world is not V6)
    ping = world.frame(protocol=ICMP6 if world is V6 else ICMP, ports=(7, 0))
    for frame, program in (
        (world.frame(), "from_pod"),
        (world.frame(protocol=UDP), "from_pod"),
        (ping, "from_pod"),
        (world.frame(destination="remote"), "from_pod"),
        (world.frame("node"), "from_host"),
        (world.frame("node", "pod"), "to_pod"),
        (world.frame("outside"), "from_network"),
    ):
        assert bench.send(frame, program).reason == "UNSUPPORTED_L3"
    other = V4 if world is V6 else V6
    assert bench.send(other.frame()).verdict == REDIRECT


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_without_masquerading(load: Load, world: World) -> None:
    """Pods' own addresses go to the node's stack, which routes them."""
    frame = world.frame(destination="outside")
    seen = load(config_masquerade=0).send(frame)
    assert (seen.verdict, seen.points, seen.frame) == (PASS, ["TO_STACK"], bytes(frame))


def test_overlay_by_the_device_alone(load: Load) -> None:
    """Nothing is wrapped or unwrapped here; the device does both."""
    bench = load(config_overlay_direct=0)
    frame = V4.frame(destination="remote")
    seen = bench.send(frame)
    assert (seen.verdict, seen.points, seen.frame) == (REDIRECT, ["TO_OVERLAY"], bytes(frame))


@pytest.mark.parametrize(
    "knobs", [{"config_vxlan_ifindex": 0}, {"config_overlay_direct": 0, "config_vxlan_ifindex": 0}]
)
def test_without_a_device(load: Load, knobs: dict[str, KnobValue]) -> None:
    """No device: closed, by name."""
    seen = load(**knobs).send(V6.frame(destination="remote"))
    assert (seen.verdict, seen.reason) == (DROP, "NO_TUNNEL_ENDPOINT")


def test_long_packets_take_the_device(load: Load) -> None:
    """What would not fit the underlay once wrapped is left to the device."""
    bench = load(config_overlay_mtu=100)
    for payload, wrapped in ((b"x" * 60, True), (b"x" * 61, False)):
        frame = V4.frame(destination="remote", payload=payload)
        assert (len(bench.send(frame).frame) == len(bytes(frame)) + 50) == wrapped


def test_no_free_port(load: Load) -> None:
    """A range that is used up refuses by name; another destination still has its own."""
    bench = load(config_nat_port_min=61000, config_nat_port_max=61000)
    ask = V4.frame(destination="outside")
    assert bench.send(ask).verdict == REDIRECT
    assert bench.send(ask.but(ports=(40001, 8080))).reason == "NAT_NO_MAPPING"
    assert bench.send(ask.but(ports=(40001, 8081))).verdict == REDIRECT


def test_no_address_to_masquerade_with(load: Load) -> None:
    """A node that was not told its address lets nothing out in the pod's name."""
    assert load(config_node_ipv4=bytes(16)).send(V4.frame(destination="outside")).reason == "NAT_NO_MAPPING"


def test_another_vxlan_port(load: Load) -> None:
    """The port is a knob on both ways."""
    bench = load(config_vxlan_port=4789)
    assert bench.send(V4.frame(destination="remote")).frame[36:38] == (4789).to_bytes(2, "big")
    outer = Frame(V4.remote_node, V4.other, UDP, (50000, 8472))
    assert bench.send(outer, "from_network").verdict == REDIRECT


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_a_port_is_taken_with_both_its_rows(load: Load, world: World) -> None:
    """The last free port goes from a connection that ended long ago to a new one; the old one keeps no row."""
    bench = load(config_nat_port_min=61000, config_nat_port_max=61000)
    nat = bench.datapath.maps["nat"]
    ask, other = (
        world.frame(destination="outside"),
        world.frame("other", "outside", source_mac=OTHER_MAC, destination_mac=OTHER_NODE_MAC),
    )
    bench.send(ask)
    assert bench.send(other, by="other").reason == "NAT_NO_MAPPING"
    bench.write(
        {
            "nat": {
                key: row._replace(last_seen_ns=1, flags=row.flags | abi.NatFlags.CLOSING)
                for key, row in nat.dump().items()
            }
        }
    )
    assert bench.send(other, by="other").verdict == REDIRECT
    assert key_of(world.pod, world.outside, ask.ports, TCP) not in nat.dump()
    assert len(nat.dump()) == 2
