"""The datapath of one node as the agent holds it: devices made, programs loaded, maps open, hooks attached.

`Datapath.open` adopts whatever an agent before left. Equal programs with equal knobs over the same maps
have an equal digest and are not even loaded again; others are loaded beside them and swapped in link by
link. Everything that matters is pinned or belongs to a device, so the end of this process changes nothing
for traffic.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mycel.abi import KNOBS, MetricKey, MetricValue
from mycel.datapath import features, syscall
from mycel.datapath import netlink as nl
from mycel.datapath.errors import DatapathError
from mycel.datapath.links import PROGRAM_HOOKS, AttachedLink, Hook, Links
from mycel.datapath.node_maps import KERNEL_OWNED, NodeMaps
from mycel.datapath.node_setup import (
    HOST_DEVICE,
    VXLAN_DEVICE,
    Devices,
    RouteTarget,
    cluster_routes,
    ensure_devices,
    ensure_proxy_routes,
    netns_cookie,
    remove_proxy_routes,
    reserve_ports,
)
from mycel.datapath.objects import Collection, KnobValue, LoadedProgram, load_objects
from mycel.datapath.rings import ensure_rings
from mycel.datapath.rtnetlink import Netlink, NetlinkRefused
from mycel.datapath.settings import DatapathSettings, built_objects, mapped
from mycel.kit.reconcile import OrderedTargets, diff

if TYPE_CHECKING:
    from mycel.datapath.events import EventReader

POD_PROGRAMS: Final = ("from_pod", "to_pod")
NETWORK_PROGRAMS: Final = ("from_network", "to_network")
NAT_PORT_FIRST: Final = 61000


@dataclass(frozen=True, slots=True)
class Opened:
    """What opening did, for the log."""

    adopted_programs: bool
    adopted_maps: int
    swapped_links: int
    digest: str


class Datapath:
    """See the module. Made by `open`; methods block briefly unless they say otherwise."""

    def __init__(
        self,
        settings: DatapathSettings,
        *,
        netlink: Netlink,
        devices: Devices,
        maps: NodeMaps,
        links: Links,
        opened: Opened,
        fds: Sequence[int],
        collection: Collection | None,
    ) -> None:
        self.settings = settings
        self.netlink = netlink
        self.devices = devices
        self.maps = maps
        self.links = links
        self.opened = opened
        self.routes = RouteTarget(netlink)
        self._fds = list(fds)
        self._collection = collection

    @classmethod
    def open(cls, settings: DatapathSettings) -> Datapath:
        """Bring the node to where it forwards, or adopt it there. Blocks up to seconds. Raises
        DatapathError.
        """
        features.require()
        _check_bpffs(settings.pins)
        with contextlib.ExitStack() as undo:
            netlink = undo.enter_context(Netlink())
            devices = ensure_devices(netlink, settings)
            reserve_ports(NAT_PORT_FIRST)
            ensure_proxy_routes(netlink, devices, ipv6=settings.ipv6)
            paths = settings.objects or built_objects()
            knobs = node_knobs(settings, devices)
            programs, maps, fds, collection, digest = _load_or_adopt(settings, paths, knobs)
            if collection is not None:
                undo.callback(collection.close)
            for fd in fds:
                undo.callback(os.close, fd)
            node_maps = NodeMaps.open(maps)
            ensure_rings(node_maps.fd("events"), settings.ring_bytes)
            links = Links(settings.pins / "links", programs, netlink=netlink, tcx=features.has_tcx())
            swapped = links.refresh()
            opened = Opened(
                adopted_programs=collection is None,
                adopted_maps=len(maps) if collection is None else sum(m.adopted for m in collection.maps.values()),
                swapped_links=swapped,
                digest=digest,
            )
            self = cls(
                settings,
                netlink=netlink,
                devices=devices,
                maps=node_maps,
                links=links,
                opened=opened,
                fds=fds,
                collection=collection,
            )
            self._attach_node()
            self.routes.apply_now(
                diff(cluster_routes(settings.pod_networks, settings=settings, devices=devices), self.routes.dump())
            )
            _forget_other_programs(settings.pins / "programs", digest)
            undo.pop_all()
            return self

    def _attach_node(self) -> None:
        self.links.attach_device("from_host", self.devices.net)
        self.links.attach_device("from_overlay", self.devices.vxlan)
        underlays = [each.ifindex for each in self.devices.underlays]
        for program in NETWORK_PROGRAMS:
            for ifindex in underlays:
                self.links.attach_device(program, ifindex)
            self.links.keep_only(program, underlays)
        self._attach_cgroup()

    def _attach_cgroup(self) -> None:
        try:
            cgroup_fd = os.open(self.settings.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as problem:
            raise DatapathError(
                f"the node's v2 cgroup {self.settings.cgroup}: {problem.strerror}; mount cgroup2 there"
            ) from problem
        try:
            for program, hook in PROGRAM_HOOKS.items():
                if hook not in (Hook.TCX_INGRESS, Hook.TCX_EGRESS):
                    self.links.attach_cgroup(program, cgroup_fd)
        finally:
            os.close(cgroup_fd)

    # -- pods

    def attach_pod(self, ifindex: int) -> bool:
        """Run the pod programs on the node's side of a pair. True when anything had to change."""
        changed = [self.links.attach_device(program, ifindex) for program in POD_PROGRAMS]
        return any(changed)

    def detach_pod(self, ifindex: int) -> None:
        """Forget a pair that is going, or has gone. What is still there is set down first: no program, no traffic."""
        try:
            nl.set_link(self.netlink, ifindex, up=False)
        except NetlinkRefused as refused:
            if refused.errno != errno.ENODEV:
                raise
        for program in POD_PROGRAMS:
            self.links.detach_device(program, ifindex)

    def forget_pod(self, ifindex: int) -> None:
        """Drop the pins of a pair that is deleted: the kernel detached its programs together with the device."""
        for program in POD_PROGRAMS:
            self.links.forget_device(program, ifindex)

    def attached(self) -> list[AttachedLink]:
        """Every pinned link."""
        return self.links.attached()

    # -- rows, events, counters

    def targets(self, order: Iterable[str]) -> OrderedTargets:
        """The plan's maps as one reconcile target, in the order upserts must come (`plan.APPLY_ORDER`)."""
        return OrderedTargets("datapath", [self.maps.target(name) for name in order])

    def events(self, *, wait_s: float = 5.0) -> EventReader:
        """The node's one event reader; waits for the agent before us to leave. Raises RingBusy."""
        from mycel.datapath.events import open_reader

        lock_path = self.settings.run_dir / "events.lock"
        return open_reader(self.maps.fd("events"), lost_fd=self.maps.fd("lost"), lock_path=lock_path, wait_s=wait_s)

    def metrics(self) -> dict[MetricKey, MetricValue]:
        """Packets and bytes by reason and direction, over all CPUs."""
        return self.maps.metrics.dump()

    def dump(self, name: str) -> Mapping[Any, Any]:
        """Rows of one map as the kernel has them, typed; `name` is without the `mycel_`. Blocks."""
        return self.maps.dump(name)

    def close(self) -> None:
        """Give descriptors back. Traffic goes on as it is."""
        if self._collection is not None:
            self._collection.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self.netlink.close()


def remove(pins: Path, *, netlink: Netlink | None = None) -> None:
    """Take the datapath off this node for good: links, programs and maps, then its devices if `netlink` is
    given.
    """
    for name in ("links", "programs", "maps"):
        shutil.rmtree(pins / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        pins.rmdir()
    if netlink is not None:
        remove_proxy_routes(netlink)
        for device in (HOST_DEVICE, VXLAN_DEVICE):
            nl.delete_link(netlink, device)


def node_knobs(settings: DatapathSettings, devices: Devices) -> dict[str, KnobValue]:
    """What the programs are told of this node."""
    knobs: dict[str, KnobValue] = {
        "config_overlay_mtu": devices.pod_mtu,
        "config_vxlan_ifindex": devices.vxlan,
        "config_vxlan_port": settings.vxlan_port,
        "config_node_ipv4": mapped(settings.node_ipv4),
        "config_node_ipv6": mapped(settings.node_ipv6),
        "config_ipv6": settings.ipv6,
        "config_host_enters": settings.host_enters,
        "config_masquerade": settings.masquerade,
        "config_nat_port_min": NAT_PORT_FIRST,
        "config_host_netns_cookie": netns_cookie(),
        **settings.knobs,
    }
    unknown = knobs.keys() - KNOBS.keys()
    if unknown:
        raise DatapathError(f"no such knob: {', '.join(sorted(unknown))}")
    return knobs


def load_digest(paths: Iterable[Path], knobs: Mapping[str, KnobValue], sizes: Mapping[str, int]) -> str:
    """Equal for equal programs with equal knobs and sizes."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for name in sorted(knobs):
        digest.update(f"{name}={knobs[name]!r}\n".encode())
    for name in sorted(sizes):
        digest.update(f"{name}:{sizes[name]}\n".encode())
    return digest.hexdigest()[:24]


_Loaded = tuple[dict[str, LoadedProgram], dict[str, int], list[int], Collection | None, str]


def _load_or_adopt(settings: DatapathSettings, paths: Sequence[Path], knobs: Mapping[str, KnobValue]) -> _Loaded:
    map_folder, program_folder = settings.pins / "maps", settings.pins / "programs"
    digest = load_digest(paths, knobs, settings.sizes)
    adopted = _adopt(map_folder, program_folder / digest)
    if adopted is not None:
        programs, maps, fds = adopted
        return programs, maps, fds, None, digest
    collection = load_objects(paths, knobs=knobs, sizes=settings.sizes, pin_maps=map_folder, rebuild=KERNEL_OWNED)
    try:
        _pin_programs(collection, program_folder / digest)
    except BaseException:
        collection.close()
        raise
    maps = {name: each.fd for name, each in collection.maps.items()}
    return collection.programs, maps, [], collection, digest


def _adopt(map_folder: Path, folder: Path) -> tuple[dict[str, LoadedProgram], dict[str, int], list[int]] | None:
    """Programs and maps of an equal load, or None when any is missing."""
    if not (folder / "complete").is_dir():
        return None
    fds: list[int] = []
    maps: dict[str, int] = {}
    programs: dict[str, LoadedProgram] = {}
    try:
        for path in map_folder.iterdir():
            maps[path.name] = _open_pin(path, fds)
        if not (folder / "complete" / _identity(maps)).is_dir():
            raise DatapathError("the maps are others than the programs were loaded with")
        for name, hook in PROGRAM_HOOKS.items():
            info = syscall.program_info(fd := _open_pin(folder / name, fds))
            programs[name] = LoadedProgram(name, fd, info.id, info.tag, hook)
    except (DatapathError, FileNotFoundError):
        for fd in fds:
            os.close(fd)
        return None
    return programs, maps, fds


def _open_pin(path: Path, fds: list[int]) -> int:
    fd = syscall.get_pinned(path)
    if fd is None:
        raise DatapathError(f"pin {path} is missing")
    fds.append(fd)
    return fd


def _pin_programs(collection: Collection, folder: Path) -> None:
    """Pin every program, then say so: a folder that says `complete` can be adopted, with the maps it names."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, program in collection.programs.items():
        syscall.pin(program.fd, folder / name)
    (folder / "complete" / _identity({name: each.fd for name, each in collection.maps.items()})).mkdir(parents=True)


def _identity(maps: Mapping[str, int]) -> str:
    """Equal for the very same maps."""
    ids = sorted((name, syscall.map_info(fd).id) for name, fd in maps.items())
    return hashlib.sha256(repr(ids).encode()).hexdigest()[:24]


def _forget_other_programs(folder: Path, digest: str) -> None:
    """Programs of earlier loads: no link uses them any more."""
    for path in folder.iterdir():
        if path.name != digest:
            shutil.rmtree(path, ignore_errors=True)


def _check_bpffs(pins: Path) -> None:
    mount = pins.parent
    if not features.is_bpffs(mount):
        raise DatapathError(f"{mount} is no bpffs: mount -t bpf bpf {mount}, and give it to the agent's container")
    pins.mkdir(mode=0o700, exist_ok=True)
