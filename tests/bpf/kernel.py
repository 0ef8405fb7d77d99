"""The programs loaded for a test: typed maps, and what they count and tell.

Nothing is pinned and no map is large, so a load takes a tenth of a second and leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mycel import abi
from mycel.datapath import objects, syscall
from mycel.datapath.events import EventReader
from mycel.datapath.maps import CounterMap, KernelMap
from mycel.datapath.policy_map import PolicyMap
from mycel.datapath.ring import EVENT_DTYPE
from mycel.datapath.rings import ensure_rings

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import build_bpf  # noqa: E402  (tools/ is not a package)

LAYOUTS: dict[str, tuple[Any, Any]] = {
    "interfaces": (abi.InterfaceKey, abi.EndpointValue),
    "endpoints": (abi.EndpointKey, abi.EndpointValue),
    "ipcache": (abi.IpcacheKey, abi.IpcacheValue),
    "ipcache_lpm": (abi.IpcacheLpmKey, abi.IpcacheValue),
    "nodes": (abi.NodeKey, abi.NodeValue),
    "aliases": (abi.AliasKey, abi.AliasValue),
    "proxies": (abi.ProxyKey, abi.ProxyValue),
    "names": (abi.NameKey, abi.IpcacheValue),
    "announced": (abi.AnnouncedKey, abi.AnnouncedValue),
    "services": (abi.ServiceKey, abi.ServiceValue),
    "service_slots": (abi.SlotKey, abi.SlotValue),
    "backends": (abi.BackendKey, abi.BackendValue),
    "ct": (abi.Tuple, abi.CtValue),
    "nat": (abi.Tuple, abi.NatValue),
    "affinity": (abi.AffinityKey, abi.AffinityValue),
    "fragments": (abi.FragmentKey, abi.FragmentValue),
    "socket_nat": (abi.SocketNatKey, abi.SocketNatValue),
}


class Counted(NamedTuple):
    """One row of mycel_metrics."""

    reason: int
    direction: int


class Datapath:
    """Both objects loaded once with `knobs`; maps by name as attributes of `maps`."""

    def __init__(
        self, knobs: Mapping[str, objects.KnobValue], *, lock: Path, more: Sequence[Path] = (), rows: int = 1024
    ) -> None:
        sizes = {f"mycel_{name}": rows for name in LAYOUTS}
        self.collection = objects.load_objects([*compiled(), *more], knobs=knobs, sizes=sizes)
        fds = {name: loaded.fd for name, loaded in self.collection.maps.items()}
        self.fds = fds
        self.maps: dict[str, KernelMap[Any, Any]] = {
            name: KernelMap(name, fds[f"mycel_{name}"], key=key, value=value) for name, (key, value) in LAYOUTS.items()
        }
        self.policy = PolicyMap("policy", fds["mycel_policy"])
        self._metrics = CounterMap("metrics", fds["mycel_metrics"], key=abi.MetricKey, value=abi.MetricValue)
        ensure_rings(fds["mycel_events"], 65536)
        self._reader = EventReader(fds["mycel_events"], lost_fd=fds["mycel_lost"], lock_path=lock)

    def program(self, name: str) -> int:
        """Descriptor of a program."""
        return self.collection.programs[name].fd

    def events(self) -> list[abi.FlowEvent]:
        """What happened since the last call."""
        return abi.FlowEvent.unpack_many(self._reader.drain().astype(EVENT_DTYPE).tobytes())

    def lost(self) -> int:
        """Events that found no room."""
        return self._reader.lost()

    def counters(self) -> dict[Counted, int]:
        """Packets by (reason, direction), zeros left out."""
        rows = self._metrics.dump()
        return {Counted(key.reason, key.direction): value.packets for key, value in rows.items() if value.packets}

    def write(self, rows: Mapping[str, Mapping[Any, Any]]) -> None:
        """Write rows by map."""
        for name, each in rows.items():
            if name == "policy":
                self.policy.write(each)
            else:
                self.maps[name].write(each)

    def forget(self) -> None:
        """Empty every map and drop pending events, so that the next case starts as the first did."""
        for each in self.maps.values():
            each.remove(list(each.dump()))
        self.policy.remove(list(self.policy.dump()))
        cpus = len(syscall.map_lookup(self.fds["mycel_metrics"], struct.pack("<I", 0), 16 * _possible()) or b"")
        for index in range(abi.LIMIT_METRICS):
            syscall.map_update(self.fds["mycel_metrics"], struct.pack("<I", index), bytes(cpus))
        self._reader.drain()

    def close(self) -> None:
        """Give everything back."""
        self._reader.close()
        self.collection.close()


def _possible() -> int:
    from mycel.datapath import libbpf

    return libbpf.possible_cpus()


def compiled_for_tests(name: str, folder: Path) -> Path:
    """An object of bpf/tests, compiled into `folder`."""
    return build_bpf.compile_one(ROOT / "bpf" / "tests" / f"{name}.bpf.c", folder, clang=build_bpf.find_clang())


def compiled() -> list[Path]:
    """The objects, compiled now if a source is newer; one test process at a time."""
    folder = ROOT / "build" / "bpf"
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build_bpf.build(folder)
    finally:
        os.close(lock)
