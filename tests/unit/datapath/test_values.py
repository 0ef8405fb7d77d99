"""The datapath room's rules that need no kernel."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import pytest

from mycel.abi import ServiceKey, ServiceValue
from mycel.datapath import netlink, rtnetlink
from mycel.datapath.errors import DatapathError, MapIncompatible, VerifierRejected, last_useful_lines
from mycel.datapath.maps import FakeMap, check_layout, sum_counters
from mycel.datapath.node import load_digest
from mycel.datapath.node_setup import apply_sysctls, node_sysctls, reserve_ports
from mycel.datapath.objects import knob_bytes
from mycel.datapath.pod_link import device_name, random_mac
from mycel.datapath.settings import mapped
from mycel.datapath.syscall import MapInfo
from mycel.datapath.testrun import SkbContext
from mycel.kit.reconcile import Diff, TargetError

KEY, VALUE = ServiceKey(bytes(16), 80, 6), ServiceValue(1, 1, 1, 0, 0, 0, 0)


async def test_fake_map_behaves_like_a_map() -> None:
    """Upserts before deletes, and a full one refuses with a sentence."""
    fake: FakeMap[ServiceKey, ServiceValue] = FakeMap("services", capacity=1)
    await fake.apply(Diff({KEY: VALUE}))
    assert {KEY: VALUE} == await fake.read(fresh=True) == fake.dump()
    other = KEY._replace(port=81)
    with pytest.raises(TargetError, match=r"map services is full \(1 entries\)"):
        await fake.apply(Diff({other: VALUE}, [KEY]))
    await fake.apply(Diff({}, [KEY, other]))
    assert fake.dump() == {}


def test_counters_are_added_over_cpus() -> None:
    """Two 64-bit counters on three CPUs, with a wrap."""
    block = struct.pack("<6Q", 1, 10, 2, 20, 2**64 - 1, 30)
    assert struct.pack("<2Q", 2, 60) == sum_counters(block, 16)


def test_layouts_are_compared_before_the_first_write() -> None:
    """A kernel map of another size is refused with both sizes."""
    info = MapInfo(1, 1, key_size=24, value_size=12, max_entries=1, flags=0, name="")
    with pytest.raises(MapIncompatible, match="map mycel_services in the kernel has keys of 24 and values of 12"):
        check_layout("mycel_services", info, key_size=24, value_size=16)


def test_verifier_log_is_cut_to_what_helps() -> None:
    """Statistics go, the reason stays, and the whole log is kept."""
    log = "\n".join([*(f"{n}: (bf) r1 = r2" for n in range(50)), "R1 invalid mem access", "processed 50 insns", ""])
    assert last_useful_lines(log)[-1] == "R1 invalid mem access"
    error = VerifierRejected("from_pod", 13, log)
    assert log == error.log
    assert str(error).startswith("program from_pod was refused (Permission denied):")
    assert len(str(error).splitlines()) < 14


@pytest.mark.parametrize(
    ("name", "value", "size", "expected"),
    [
        ("config_vxlan_ifindex", 7, 4, b"\7\0\0\0"),
        ("config_ipv6", True, 1, b"\1"),
        ("config_node_ipv4", b"x" * 16, 16, b"x" * 16),
    ],
)
def test_knobs_in_memory(name: str, value: int | bytes, size: int, expected: bytes) -> None:
    """Numbers in the machine's order, bytes as they are."""
    assert expected == knob_bytes(name, value, size)


def test_knobs_that_do_not_fit() -> None:
    """Neither numbers nor bytes are cut."""
    with pytest.raises(DatapathError, match="300 does not fit"):
        knob_bytes("config_ipv6", 300, 1)
    with pytest.raises(DatapathError, match="takes 16 bytes, not 4"):
        knob_bytes("config_node_ipv4", b"abcd", 16)


def test_digest_changes_with_programs_knobs_and_sizes(tmp_path: Path) -> None:
    """Equal only when everything is equal, whatever the order of knobs."""
    path = tmp_path / "packets.bpf.o"
    path.write_bytes(b"one")
    first = load_digest([path], {"a": 1, "b": 2}, {})
    assert first == load_digest([path], {"b": 2, "a": 1}, {})
    others = {load_digest([path], {"a": 1, "b": 3}, {}), load_digest([path], {"a": 1, "b": 2}, {"m": 1})}
    path.write_bytes(b"two")
    others.add(load_digest([path], {"a": 1, "b": 2}, {}))
    assert len(others) == 3 and first not in others


def test_context_has_the_kernels_layout() -> None:
    """struct __sk_buff: mark at 8, ifindex at 40, cb at 48, 192 bytes in all."""
    context = SkbContext(mark=1, priority=2, ingress_ifindex=3, ifindex=4, cb=(5, 6, 7, 8, 9), gso_size=10)
    raw = context.pack()
    assert len(raw) == 192
    assert tuple(struct.unpack_from("<I", raw, at)[0] for at in (8, 32, 36, 40)) == (1, 2, 3, 4)
    assert context == SkbContext.unpack(raw)


def test_addresses_are_mapped() -> None:
    """IPv4 as ::ffff:a.b.c.d, nothing as zero."""
    assert bytes(10) + b"\xff\xff\x0a\xf4\x00\x01" == mapped(ipaddress.ip_address("10.244.0.1"))
    assert ipaddress.ip_address("fd00::1").packed == mapped(ipaddress.ip_address("fd00::1"))
    assert bytes(16) == mapped(None)


def test_sysctls_are_written_only_when_they_differ(tmp_path: Path) -> None:
    """A missing IPv6 tree is a kernel without IPv6; a missing IPv4 one is a mistake."""
    for name, value in (("ipv4/ip_forward", "0"), ("ipv4/tcp_migrate_req", "0"), ("ipv4/conf/eth0/rp_filter", "0")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    before = (tmp_path / "ipv4/conf/eth0/rp_filter").stat().st_mtime_ns
    apply_sysctls(node_sysctls(False, devices=["eth0"]), root=tmp_path)
    assert (tmp_path / "ipv4/ip_forward").read_text() == "1"
    assert before == (tmp_path / "ipv4/conf/eth0/rp_filter").stat().st_mtime_ns
    with pytest.raises(DatapathError, match="ipv4/conf/eth1/rp_filter is missing"):
        apply_sysctls({"ipv4/conf/eth1/rp_filter": "0"}, root=tmp_path)


@pytest.mark.parametrize(("before", "after"), [("32768\t60999", "16384 60999"), ("1024 65000", "1024 60999")])
def test_ports_are_reserved(tmp_path: Path, before: str, after: str) -> None:
    """Sockets' own ports begin with the proxies' and end where masquerading begins; NodePorts are left out."""
    (tmp_path / "ip_local_port_range").write_text(before)
    (tmp_path / "ip_local_reserved_ports").write_text("8080")
    for _ in range(2):
        reserve_ports(61000, root=tmp_path)
    assert after == (tmp_path / "ip_local_port_range").read_text()
    assert (tmp_path / "ip_local_reserved_ports").read_text() == "8080,30000-32767"


def test_device_names_are_stable_and_fit() -> None:
    """The same attachment has the same name, within the kernel's 15 characters."""
    name = device_name("0123456789abcdef", "eth0")
    assert name == device_name("0123456789abcdef", "eth0") != device_name("0123456789abcdef", "eth1")
    assert len(name) == 15


def test_random_macs_are_local_and_unicast() -> None:
    """Bit 1 of the first byte set, bit 0 clear (IEEE 802)."""
    assert {2} == {random_mac()[0] & 3 for _ in range(64)}


def test_netlink_attributes_round_trip() -> None:
    """Lengths are padded to 4 and nesting survives."""
    inner = rtnetlink.attributes([(1, b"veth"), (2, b"x")])
    raw = rtnetlink.attributes([(3, rtnetlink.text("eth0")), (18, inner)])
    assert len(raw) % 4 == 0
    outer = dict(rtnetlink.parse(raw))
    assert outer[3] == b"eth0\0"
    assert dict(rtnetlink.parse(outer[18])) == {1: b"veth", 2: b"x"}
    assert list(rtnetlink.parse(b"\2\0\1\0")) == []  # a length below its own header ends it


def test_routes_compare_by_value() -> None:
    """A route read back equals the one that was asked for, so a diff is empty."""
    one = netlink.Route(ipaddress.ip_network("10.0.0.0/8"), 3, mtu=1450)
    assert one == netlink.Route(ipaddress.ip_network("10.0.0.0/8"), 3, mtu=1450)
