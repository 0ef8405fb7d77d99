"""Open the compiled objects, give them their knobs and maps, and load them once per node.

Maps are shared by name between objects and with the agent before us: what is pinned and laid out alike is
used again, the rest is created and pinned. Sizes, knobs and layouts come in as values; nothing is attached
here (`links`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mycel.abi import KNOBS
from mycel.datapath import libbpf, syscall
from mycel.datapath.errors import DatapathError, MapIncompatible
from mycel.datapath.libbpf import MapSpec, Object
from mycel.datapath.maps import copy_rows
from mycel.datapath.syscall import MapInfo, MapType

KnobValue = int | bool | bytes


class LoadedMap(NamedTuple):
    """A map in the kernel. The collection owns the descriptor."""

    name: str
    fd: int
    info: MapInfo
    adopted: bool


class LoadedProgram(NamedTuple):
    """A program in the kernel. The collection owns the descriptor. `tag` is the kernel's digest of it."""

    name: str
    fd: int
    id: int
    tag: str
    attach_type: int


@dataclass
class Collection:
    """All maps and programs of one load. A context manager: closing gives descriptors back, pins stay."""

    maps: dict[str, LoadedMap] = field(default_factory=dict[str, LoadedMap])
    programs: dict[str, LoadedProgram] = field(default_factory=dict[str, LoadedProgram])
    _objects: list[Object] = field(default_factory=list[Object])
    _fds: list[int] = field(default_factory=list[int])

    def close(self) -> None:
        """Close every descriptor; safe to call twice."""
        for obj in self._objects:
            obj.close()
        for fd in self._fds:
            os.close(fd)
        self._objects.clear()
        self._fds.clear()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- what load_objects does with it

    def _adopt(self, name: str, fd: int) -> None:
        self._fds.append(fd)
        self.maps[name] = LoadedMap(name, fd, syscall.map_info(fd), adopted=True)

    def _take(self, obj: Object) -> None:
        self._objects.append(obj)
        for name, each in obj.maps.items():
            if not each.internal and name not in self.maps:
                self.maps[name] = LoadedMap(name, each.fd, syscall.map_info(each.fd), adopted=False)
        for name, program in obj.programs.items():
            info = syscall.program_info(program.fd)
            self.programs[name] = LoadedProgram(name, program.fd, info.id, info.tag, program.attach_type)


def load_objects(
    paths: Iterable[str | os.PathLike[str]],
    *,
    knobs: Mapping[str, KnobValue] | None = None,
    sizes: Mapping[str, int] | None = None,
    pin_maps: str | os.PathLike[str] | None = None,
    rebuild: Iterable[str] = (),
) -> Collection:
    """Load every program of the objects at `paths`, which share maps of equal names.

    `knobs` sets `const volatile` variables by name; `sizes` sets max_entries of maps by name. `pin_maps` is
    a folder on a bpffs: maps pinned there are used again and new ones are pinned there; without it nothing
    is pinned. `rebuild` names maps that may be thrown away when their layout changed (caches: what they
    hold is found anew); for any other map that raises MapIncompatible, before anything was changed. A map
    that only changed its size is made anew and its rows are copied.
    """
    folder = Path(pin_maps) if pin_maps is not None else None
    collection = Collection()
    opened: list[Object] = []
    try:
        opened = [libbpf.open_object(os.fspath(path)) for path in paths]
        set_knobs(opened, knobs or {})
        specs = _declared_maps(opened, sizes or {})
        if folder is not None:
            _adopt_pinned(collection, folder, specs, frozenset(rebuild))
        while opened:
            obj = opened[0]
            for name, each in obj.maps.items():
                if each.internal:
                    continue
                each.forget_pin()
                if name in collection.maps:
                    each.reuse(collection.maps[name].fd)
            obj.load()
            collection._take(opened.pop(0))  # pyright: ignore[reportPrivateUsage]
        if folder is not None:
            _pin_new(collection, folder)
    except BaseException:
        for obj in opened:
            obj.close()
        collection.close()
        raise
    return collection


def set_knobs(objects: Iterable[Object], knobs: Mapping[str, KnobValue]) -> None:
    """Write knobs into each object that has them; one that nobody knows is an error, not silence."""
    known: set[str] = set(KNOBS)
    for obj in objects:
        variables = obj.variables(".rodata")
        known |= variables.keys()
        section = next((each for each in obj.maps.values() if each.internal and ".rodata" in each.name), None)
        for name, value in knobs.items():
            place = variables.get(name)
            if place is not None and section is not None:
                section.write_initial(place.offset, knob_bytes(name, value, place.size))
    unknown = knobs.keys() - known
    if unknown:
        raise DatapathError(f"no program has a knob {', '.join(sorted(unknown))}: known are {', '.join(sorted(known))}")


def knob_bytes(name: str, value: KnobValue, size: int) -> bytes:
    """A knob's value as it lies in memory: wire order where config.h says so."""
    if isinstance(value, bytes):
        if len(value) != size:
            raise DatapathError(f"knob {name} takes {size} bytes, not {len(value)}")
        return value
    knob = KNOBS.get(name)
    order = "big" if knob is not None and knob.wire_order else "little"
    try:
        return int(value).to_bytes(size, order)
    except OverflowError as problem:
        raise DatapathError(f"knob {name} has {size} bytes: {value} does not fit") from problem


def _declared_maps(objects: list[Object], sizes: Mapping[str, int]) -> dict[str, MapSpec]:
    specs: dict[str, MapSpec] = {}
    for obj in objects:
        for name, each in obj.maps.items():
            if each.internal:
                continue
            if name in sizes:
                each.set_max_entries(sizes[name])
            elif each.spec.type == MapType.ARRAY_OF_MAPS and each.spec.max_entries <= 1:
                each.set_max_entries(libbpf.possible_cpus())
            other = specs.setdefault(name, each.spec)
            if _shape(other) != _shape(each.spec):
                raise MapIncompatible(name, kernel=describe(other) + " (another object)", layout=describe(each.spec))
    unknown = sizes.keys() - specs.keys()
    if unknown:
        raise DatapathError(f"no object declares a map {', '.join(sorted(unknown))}")
    return specs


def _adopt_pinned(collection: Collection, folder: Path, specs: Mapping[str, MapSpec], rebuild: frozenset[str]) -> None:
    """Use pinned maps of the right shape; those of another stay pinned until their successor is ready."""
    for name, spec in specs.items():
        fd = syscall.get_pinned(folder / name)
        if fd is None:
            continue
        info = syscall.map_info(fd)
        if compatible(info, spec):
            collection._adopt(name, fd)  # pyright: ignore[reportPrivateUsage]
            continue
        os.close(fd)
        if name not in rebuild and not only_resized(info, spec):
            raise MapIncompatible(name, kernel=describe(info), layout=describe(spec))


def _pin_new(collection: Collection, folder: Path) -> None:
    """Pin what was created; rows of a map that only changed its size move over first."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in collection.maps.values():
        if each.adopted:
            continue
        path = folder / each.name
        old_fd = syscall.get_pinned(path)
        if old_fd is not None:
            try:
                old = syscall.map_info(old_fd)
                if old.type == each.info.type and _layout(old) == _layout(each.info):
                    copy_rows(old_fd, each.fd)
            finally:
                os.close(old_fd)
        fresh = folder / f"{each.name}_new"
        fresh.unlink(missing_ok=True)
        syscall.pin(each.fd, fresh)
        fresh.rename(path)  # at every moment one of the two is pinned under its name
    for path in folder.iterdir():
        if path.name not in collection.maps:  # of another version, or of a start that was cut off
            path.unlink()


def only_resized(info: MapInfo, spec: MapSpec) -> bool:
    """Whether a kernel map differs from the declared one in how many rows it holds, and nothing else."""
    return info.type == spec.type and _layout(info) == (spec.key_size, spec.value_size, spec.flags)


def _layout(info: MapInfo) -> tuple[int, int, int]:
    return info.key_size, info.value_size, info.flags


def compatible(info: MapInfo, spec: MapSpec) -> bool:
    """Whether a kernel map can stand for a declared one (inner layouts are checked on insertion)."""
    return (info.type, info.key_size, info.value_size, info.max_entries, info.flags) == _shape(spec)


def _shape(spec: MapSpec) -> tuple[int, int, int, int, int]:
    return spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags


def describe(shape: MapInfo | MapSpec) -> str:
    """A map's layout in words, for errors."""
    try:
        kind = MapType(shape.type).name.lower()
    except ValueError:
        kind = f"type {shape.type}"
    return f"{kind}, key {shape.key_size} and value {shape.value_size} bytes, {shape.max_entries} entries"
