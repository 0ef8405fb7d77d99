"""Maps, rings and refusals against the running kernel."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mycel import abi
from mycel.datapath import objects, syscall
from mycel.datapath.errors import DatapathError, MapIncompatible, RingBusy, VerifierRejected
from mycel.datapath.events import EventReader, open_reader
from mycel.datapath.maps import CounterMap, KernelMap
from mycel.datapath.policy_map import PolicyMap
from mycel.datapath.rings import ensure_rings
from mycel.datapath.syscall import MapType
from mycel.datapath.testrun import SkbContext, run_skb
from mycel.kit.reconcile import Diff, TargetError, diff
from tests.bpf.kernel import ROOT, compiled
from tests.bpf.rows import addr, prefix

pytestmark = pytest.mark.root
FRAME = bytes(12) + b"\x08\x00" + bytes(46)


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Descriptors to close at the end."""
    held: list[int] = []
    yield held
    for fd in held:
        os.close(fd)


def new_map(fds: list[int], kind: MapType, key: int, value: int, entries: int, flags: int = 0) -> int:
    fd = syscall.map_create(kind, key_size=key, value_size=value, max_entries=entries, flags=flags, name="test")
    fds.append(fd)
    return fd


def services(fd: int) -> KernelMap[abi.ServiceKey, abi.ServiceValue]:
    return KernelMap("mycel_services", fd, key=abi.ServiceKey, value=abi.ServiceValue)


def rows(count: int) -> dict[abi.ServiceKey, abi.ServiceValue]:
    return {
        abi.ServiceKey(addr("10.96.0.1"), n % 65536, n // 65536): abi.ServiceValue(n, 1, 1, 0, 1, 0, 0)
        for n in range(count)
    }


async def test_a_hash_map_is_written_and_read_by_difference(fds: list[int]) -> None:
    """10,000 rows go in, come back equal, and one changed row is one upsert."""
    fd = new_map(fds, MapType.HASH, 24, 20, 20000, flags=1)
    target, want = services(fd), rows(10_000)
    await target.apply(diff(want, await target.read(fresh=True)))
    assert services(fd).dump() == want
    first = next(iter(want))
    want[first] = want[first]._replace(flags=3)
    change = diff(want, await target.read(fresh=False))
    assert str(change) == "+1 -0"
    await target.apply(change)
    assert services(fd).get(first) == want[first]


async def test_deleting_what_is_gone_is_no_error(fds: list[int]) -> None:
    """Every other key is missing already; the rest still goes."""
    target, want = services(new_map(fds, MapType.HASH, 24, 20, 1000)), rows(600)
    target.write(want)
    keys = list(rows(1000))
    target.remove(keys[:600:2])
    await target.apply(Diff({}, keys))
    assert await target.read(fresh=True) == {}


async def test_a_full_map_says_so_and_is_read_anew(fds: list[int]) -> None:
    """What fitted stays, the error names map and size, and the next diff knows what is really there."""
    target = services(new_map(fds, MapType.HASH, 24, 20, 100))
    await target.read(fresh=True)
    with pytest.raises(TargetError, match=r"map mycel_services is full \(100 entries\)"):
        await target.apply(Diff(rows(200)))
    assert len(await target.read(fresh=False)) == 100


async def test_rows_written_from_elsewhere_are_in_the_mirror(fds: list[int]) -> None:
    """What CNI writes between two passes is seen by the next, and a mapping that was handed out never changes."""
    target, want = services(new_map(fds, MapType.HASH, 24, 20, 1000)), rows(100)
    before = await target.read(fresh=True)
    await asyncio.to_thread(target.write, want)
    assert before == {}
    assert await target.read(fresh=False) == want
    keys = list(want)
    await asyncio.gather(*(asyncio.to_thread(target.remove, [key]) for key in keys[:50]))
    assert await target.read(fresh=False) == {key: want[key] for key in keys[50:]} == await target.read(fresh=True)


async def test_prefixes_are_a_map_like_any_other(fds: list[int]) -> None:
    """LPM tries are dumped whole, and the longest prefix answers."""
    fd = new_map(fds, MapType.LPM_TRIE, 20, 24, 1000, flags=1)
    target = KernelMap("mycel_ipcache_lpm", fd, key=abi.IpcacheLpmKey, value=abi.IpcacheValue)
    want = {prefix(f"10.{n}.0.0/16"): abi.IpcacheValue(addr("172.18.0.3"), n, 1) for n in range(200)}
    want[prefix("10.0.0.0/8")] = abi.IpcacheValue(bytes(16), 999, 0)
    await target.apply(Diff(want))
    assert await target.read(fresh=True) == want
    assert target.get(prefix("10.7.1.2/32")) == want[prefix("10.7.0.0/16")]
    assert target.get(prefix("10.201.1.2/32")) == want[prefix("10.0.0.0/8")]
    await target.apply(Diff({}, list(want)))
    assert target.dump() == {}


async def test_policy_sets_are_swapped_whole(fds: list[int]) -> None:
    """Sets come, change and go; an empty set is there and holds nothing."""
    template = new_map(fds, MapType.LPM_TRIE, abi.PolicyKey.SIZE, abi.PolicyValue.SIZE, abi.LIMIT_POLICY_ROWS, 1)
    outer = syscall.map_create(
        MapType.HASH_OF_MAPS, key_size=4, value_size=4, max_entries=300, inner_fd=template, flags=1
    )
    fds.append(outer)
    target = PolicyMap("mycel_policy", outer)
    row = {abi.PolicyKey(64, 1000, 6, 80): abi.PolicyValue(0, 0, 0, 1, 2, 0)}
    await target.apply(Diff(dict.fromkeys(range(1, 251), row) | {300: {}}))
    assert await target.read(fresh=True) == {**dict.fromkeys(range(1, 251), row), 300: {}}
    changed = {abi.PolicyKey(64, 1001, 6, 80): abi.PolicyValue(0, 1, 0, 1, 2, 0)}
    await target.apply(Diff({7: changed}, list(range(8, 251))))
    await target.swept()
    assert target.dump() == {**dict.fromkeys(range(1, 7), row), 7: changed, 300: {}}
    assert target.dump() == await target.read(fresh=False)


async def test_sets_that_go_may_come_back(fds: list[int]) -> None:
    """Sets nobody names stay for a moment; one that is wanted again has its new rows, and stays when others go."""
    template = new_map(fds, MapType.LPM_TRIE, abi.PolicyKey.SIZE, abi.PolicyValue.SIZE, abi.LIMIT_POLICY_ROWS, 1)
    outer = syscall.map_create(
        MapType.HASH_OF_MAPS, key_size=4, value_size=4, max_entries=300, inner_fd=template, flags=1
    )
    fds.append(outer)
    target = PolicyMap("mycel_policy", outer)
    first, second = (
        {abi.PolicyKey(64, identity, 6, 80): abi.PolicyValue(0, 0, 0, 1, 2, 0)} for identity in (1000, 1001)
    )
    await target.read(fresh=False)
    await target.apply(Diff({1: first, 2: first}))
    assert target.dump() == {1: first, 2: first}
    await target.apply(Diff({3: second}, [1, 2]))
    assert target.dump() == {1: first, 2: first, 3: second}
    assert await target.read(fresh=False) == {3: second}
    await target.apply(Diff({1: second}))
    assert target.dump()[1] == second
    assert await target.read(fresh=True) == {1: second, 3: second} == target.dump()


async def test_a_full_map_of_sets_says_so(fds: list[int]) -> None:
    """What the kernel refuses while nobody waits for RCU is told, and the sets that are there are found again."""
    template = new_map(fds, MapType.LPM_TRIE, abi.PolicyKey.SIZE, abi.PolicyValue.SIZE, abi.LIMIT_POLICY_ROWS, 1)
    outer = syscall.map_create(
        MapType.HASH_OF_MAPS, key_size=4, value_size=4, max_entries=2, inner_fd=template, flags=1
    )
    fds.append(outer)
    target = PolicyMap("mycel_policy", outer)
    await target.read(fresh=False)
    with pytest.raises(TargetError):
        await target.apply(Diff({number: {} for number in range(1, 9)}))
    there = target.dump()
    assert 0 < len(there) < 8
    assert await target.read(fresh=False) == there


async def test_identities_come_and_go_in_the_map_in_use(fds: list[int]) -> None:
    """Whole identities are written in place; what changes for one that stays, or for everybody, is swapped."""
    template = new_map(fds, MapType.LPM_TRIE, abi.PolicyKey.SIZE, abi.PolicyValue.SIZE, abi.LIMIT_POLICY_ROWS, 1)
    outer = syscall.map_create(
        MapType.HASH_OF_MAPS, key_size=4, value_size=4, max_entries=300, inner_fd=template, flags=1
    )
    fds.append(outer)
    target = PolicyMap("mycel_policy", outer)

    async def bring(rows: dict[abi.PolicyKey, abi.PolicyValue]) -> bytes | None:
        await target.read(fresh=False)
        await target.apply(Diff({7: rows}))
        assert target.dump() == {7: rows}
        return target.raw.get(struct.pack("<I", 7))

    allow, deny = abi.PolicyValue(0, 0, 1, 1, 2, 0), abi.PolicyValue(0, 1, 255, 2, 2, 0)
    one = {abi.PolicyKey(32, 1000, 0, 0): allow}
    first = await bring(one)
    both = one | {abi.PolicyKey(32, 1001, 0, 0): deny, abi.PolicyKey(64, 1001, 6, 80): deny}
    assert await bring(both) == first
    assert await bring(one) == first
    narrower = one | {abi.PolicyKey(64, 1000, 6, 80): deny}
    swapped = await bring(narrower)
    assert swapped != first
    assert await bring(narrower | {abi.PolicyKey(32, 0, 0, 0): allow}) != swapped


def test_counters_of_all_cpus_are_added(fds: list[int]) -> None:
    """A per-CPU row holds a block per possible CPU; rows of zeros are left out."""
    fd = new_map(fds, MapType.PERCPU_ARRAY, 4, 16, 8)
    counters = CounterMap("mycel_metrics", fd, key=abi.MetricKey, value=abi.MetricValue)
    cpus = counters.raw.value_bytes // 16
    block = b"".join(struct.pack("<2Q", 1, 100 + cpu) for cpu in range(cpus))
    syscall.map_update(fd, abi.MetricKey(3, 0).pack(), block)
    assert counters.dump() == {abi.MetricKey(3, 0): abi.MetricValue(cpus, sum(100 + cpu for cpu in range(cpus)))}


def test_a_map_of_another_layout_is_refused(fds: list[int]) -> None:
    """Before anything is read or written."""
    with pytest.raises(MapIncompatible, match="keys of 24 and values of 16 bytes"):
        services(new_map(fds, MapType.HASH, 24, 16, 10))


# ---- objects


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A bpffs of the test's own."""
    folder = tmp_path / "bpf"
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def build(tmp_path: Path, source: str) -> Path:
    """Compile a few lines of C."""
    clang = next(each for each in ("clang-19", "clang") if shutil.which(each))
    text, target = tmp_path / "test.bpf.c", tmp_path / "test.bpf.o"
    text.write_text(f"#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n{source}\n{LICENCE}\n")
    include = ["-I", str(ROOT / "bpf" / "include"), "-idirafter", "/usr/include/x86_64-linux-gnu"]
    subprocess.run([clang, "-g", "-O2", "-target", "bpf", *include, "-c", str(text), "-o", str(target)], check=True)
    return target


LICENCE = 'char licence[] SEC("license") = "GPL";'
COUNTER = """
struct {{ __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, {entries});
          __type(key, __u32); __type(value, {value}); }} counters SEC(".maps");
const volatile __u32 step = 1;
SEC("tc") int count(struct __sk_buff *ctx)
{{
	__u32 key = ctx->mark;
	{value} one = step, *seen = bpf_map_lookup_elem(&counters, &key);
	if (seen) *seen += step; else bpf_map_update_elem(&counters, &key, &one, 0);
	return step;
}}
"""


def test_knobs_reach_the_program_and_maps_outlive_it(tmp_path: Path, bpffs: Path) -> None:
    """A second load with another knob goes on counting in the pinned map of the first."""
    path = build(tmp_path, COUNTER.format(entries=10, value="__u64"))
    for step, total in ((5, 5), (3, 8)):
        with objects.load_objects([path], knobs={"step": step}, pin_maps=bpffs / "maps") as loaded:
            assert loaded.maps["counters"].adopted is (step == 3)
            assert run_skb(loaded.programs["count"].fd, FRAME, context=SkbContext(mark=9)).verdict == step
            assert syscall.map_lookup(loaded.maps["counters"].fd, b"\x09\0\0\0", 8) == struct.pack("<Q", total)


def test_a_map_that_changed_its_size_keeps_its_rows(tmp_path: Path, bpffs: Path) -> None:
    """Raising a size in the settings is no reason to forget."""
    path = build(tmp_path, COUNTER.format(entries=10, value="__u64"))
    with objects.load_objects([path], pin_maps=bpffs / "maps") as first:
        for key in range(10):
            syscall.map_update(first.maps["counters"].fd, struct.pack("<I", key), struct.pack("<Q", key))
    with objects.load_objects([path], pin_maps=bpffs / "maps", sizes={"counters": 20}) as second:
        fd = second.maps["counters"].fd
        assert second.maps["counters"].info.max_entries == 20
        found = [syscall.map_lookup(fd, struct.pack("<I", key), 8) for key in range(10)]
        assert found == [struct.pack("<Q", key) for key in range(10)]
    pinned = syscall.get_pinned(bpffs / "maps" / "counters")
    assert pinned is not None
    assert syscall.map_info(pinned).max_entries == 20
    os.close(pinned)


def test_a_map_of_another_layout_is_rebuilt_only_on_request(tmp_path: Path, bpffs: Path) -> None:
    """Without leave the pin stays as it was; with it the map is made anew."""
    with objects.load_objects([build(tmp_path, COUNTER.format(entries=10, value="__u64"))], pin_maps=bpffs / "maps"):
        pass
    narrow = build(tmp_path, COUNTER.format(entries=10, value="__u32"))
    with pytest.raises(MapIncompatible, match="map counters in the kernel has hash, key 4 and value 8 bytes"):
        objects.load_objects([narrow], pin_maps=bpffs / "maps")
    with objects.load_objects([narrow], pin_maps=bpffs / "maps", rebuild=["counters"]) as loaded:
        assert loaded.maps["counters"].info.value_size == 4


def test_a_refused_program_says_why(tmp_path: Path) -> None:
    """The verifier's reason is in the message, its whole log in the error; nothing stays loaded."""
    unbounded = 'SEC("tc") int peek(struct __sk_buff *ctx) { char *at = (void *)(long)ctx->data; return at[100]; }'
    with pytest.raises(VerifierRejected, match="program peek was refused") as caught:
        objects.load_objects([build(tmp_path, unbounded)])
    assert "invalid access to packet" in str(caught.value)
    assert len(caught.value.log) > len(str(caught.value)) // 2


@pytest.mark.parametrize(("knobs", "sizes"), [({"stride": 1}, {}), ({}, {"meters": 1})])
def test_unknown_knobs_and_maps_are_named(tmp_path: Path, knobs: dict[str, int], sizes: dict[str, int]) -> None:
    """A setting that reaches nothing is an error."""
    path = build(tmp_path, COUNTER.format(entries=10, value="__u64"))
    with pytest.raises(DatapathError, match=r"stride|meters"):
        objects.load_objects([path], knobs=knobs, sizes=sizes)


# ---- events


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[objects.Collection]:
    """The real programs with small maps and rings of 511 records."""
    sizes = {f"mycel_{name}": 256 for name in ("service_slots", "backends", "ct", "nat", "ipcache", "services")}
    with objects.load_objects(compiled(), sizes=sizes) as collection:
        ensure_rings(collection.maps["mycel_events"].fd, 65536)
        yield collection


def reader(loaded: objects.Collection, tmp_path: Path) -> EventReader:
    events, lost = (loaded.maps[f"mycel_{name}"].fd for name in ("events", "lost"))
    return open_reader(events, lost_fd=lost, lock_path=tmp_path / "events.lock")


def test_lost_events_are_counted_exactly(loaded: objects.Collection, tmp_path: Path) -> None:
    """Of 2,000 drops, what was not read was counted; nothing is doubled over a hand-over."""
    program = loaded.programs["from_pod"].fd
    first = reader(loaded, tmp_path)
    with pytest.raises(RingBusy, match="another process reads this node's events"):
        reader(loaded, tmp_path)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one CPU, one ring: the numbers are known
    try:
        run_skb(program, FRAME, repeat=300)
        assert len(first.drain()) == 300
        run_skb(program, FRAME, repeat=200)
        first.close()
        second = reader(loaded, tmp_path)
        run_skb(program, FRAME, repeat=1500)
        found = second.drain()
        assert (len(found), second.lost()) == (511, 2000 - 300 - 511)
        assert set(found["kind"].tolist()) == {abi.EventKind.DROP}
        assert (found["time_ns"][1:] >= found["time_ns"][:-1]).all()
        assert len(second.drain()) == 0
        second.close()
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


async def test_batches_wake_up_and_gather(loaded: objects.Collection, tmp_path: Path) -> None:
    """Events that come while a batch is gathered are in it; an idle reader yields nothing."""
    events = reader(loaded, tmp_path)
    stream = events.batches(gather_s=0.02)
    run_skb(loaded.programs["from_pod"].fd, FRAME, repeat=10)
    total = 0
    async for batch in stream:
        total += len(batch)
        if total == 10:
            run_skb(loaded.programs["from_pod"].fd, FRAME, repeat=5)
        if total >= 15:
            break
    await stream.aclose()
    assert (total, events.statistics().events) == (15, 15)
    events.close()
