"""libbpf.so.1 for what it does best: reading ELF objects, relocating them, and loading their programs.

Everything after loading goes through bpf(2) itself (`syscall`). Functions return numbers and raise
KernelRefused; `open_object` hands out an Object, which owns the descriptors of its maps and programs until
it is closed.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from mycel.datapath.errors import DatapathError, KernelRefused, NotSupported, VerifierRejected

_LINE_SIZE: Final = 1 << 20
_BTF_KIND_DATASEC: Final = 15
_Pointer = ctypes.c_void_p
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_REFUSED: Final = re.compile(r"prog '([^']+)': BPF program load failed")
_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "bpf_object__open_file": (_Pointer, [ctypes.c_char_p, _Pointer]),
    "bpf_object__load": (ctypes.c_int, [_Pointer]),
    "bpf_object__close": (None, [_Pointer]),
    "bpf_object__btf": (_Pointer, [_Pointer]),
    "bpf_object__next_map": (_Pointer, [_Pointer, _Pointer]),
    "bpf_object__next_program": (_Pointer, [_Pointer, _Pointer]),
    "bpf_map__name": (ctypes.c_char_p, [_Pointer]),
    "bpf_map__fd": (ctypes.c_int, [_Pointer]),
    "bpf_map__type": (ctypes.c_int, [_Pointer]),
    "bpf_map__key_size": (ctypes.c_uint32, [_Pointer]),
    "bpf_map__value_size": (ctypes.c_uint32, [_Pointer]),
    "bpf_map__max_entries": (ctypes.c_uint32, [_Pointer]),
    "bpf_map__map_flags": (ctypes.c_uint32, [_Pointer]),
    "bpf_map__inner_map": (_Pointer, [_Pointer]),
    "bpf_map__is_internal": (ctypes.c_bool, [_Pointer]),
    "bpf_map__initial_value": (_Pointer, [_Pointer, ctypes.POINTER(ctypes.c_size_t)]),
    "bpf_map__set_max_entries": (ctypes.c_int, [_Pointer, ctypes.c_uint32]),
    "bpf_map__set_pin_path": (ctypes.c_int, [_Pointer, ctypes.c_char_p]),
    "bpf_map__reuse_fd": (ctypes.c_int, [_Pointer, ctypes.c_int]),
    "bpf_program__name": (ctypes.c_char_p, [_Pointer]),
    "bpf_program__section_name": (ctypes.c_char_p, [_Pointer]),
    "bpf_program__fd": (ctypes.c_int, [_Pointer]),
    "bpf_program__type": (ctypes.c_int, [_Pointer]),
    "bpf_program__expected_attach_type": (ctypes.c_int, [_Pointer]),
    "bpf_program__set_autoload": (ctypes.c_int, [_Pointer, ctypes.c_bool]),
    "btf__find_by_name_kind": (ctypes.c_int32, [_Pointer, ctypes.c_char_p, ctypes.c_uint32]),
    "btf__type_by_id": (_Pointer, [_Pointer, ctypes.c_uint32]),
    "btf__name_by_offset": (ctypes.c_char_p, [_Pointer, ctypes.c_uint32]),
    "libbpf_set_print": (_Pointer, [_PRINT]),
    "libbpf_num_possible_cpus": (ctypes.c_int, []),
}


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf.so.1 with its signatures. Raises NotSupported when it is not installed."""
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as problem:
        raise NotSupported("libbpf.so.1", needs="the Debian package libbpf1") from problem
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.libbpf_set_print(_remember)  # errors come back as exceptions, nothing goes to stderr
    return lib


_said: list[str] = []  # what libbpf complained of during the call under way


@_PRINT
def _remember(level: int, template: bytes, arguments: int) -> int:
    """libbpf's messages are the only way it tells a verifier's log; keep warnings until the call is over."""
    if level == 0:
        line = ctypes.create_string_buffer(_LINE_SIZE)
        _libc.vsnprintf(line, _LINE_SIZE, template, ctypes.c_void_p(arguments))
        _said.append(line.value.decode(errors="replace"))
    return 0


_libc = ctypes.CDLL(None)


@functools.cache
def possible_cpus() -> int:
    """How many blocks a per-CPU value has."""
    return int(library().libbpf_num_possible_cpus())


class Variable(NamedTuple):
    """Where a global variable lies in its section."""

    offset: int
    size: int


class MapSpec(NamedTuple):
    """A map as the object declares it."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    inner: MapSpec | None


class ObjectMap:
    """One map of an open object."""

    def __init__(self, handle: int) -> None:
        lib = library()
        self._handle = handle
        self.internal = bool(lib.bpf_map__is_internal(handle))
        self.spec = _spec(handle)

    @property
    def name(self) -> str:
        """Its name in the object."""
        return self.spec.name

    @property
    def fd(self) -> int:
        """Its descriptor, once the object is loaded; the object owns it."""
        return int(library().bpf_map__fd(self._handle))

    def set_max_entries(self, entries: int) -> None:
        """Choose the size before loading."""
        _check(library().bpf_map__set_max_entries(self._handle, entries), f"size map {self.name}")
        self.spec = self.spec._replace(max_entries=entries)

    def reuse(self, fd: int) -> None:
        """Use an existing map instead of creating one; the descriptor is duplicated."""
        _check(library().bpf_map__reuse_fd(self._handle, fd), f"reuse map {self.name}")

    def forget_pin(self) -> None:
        """Pinning is ours, whatever the object declares."""
        _check(library().bpf_map__set_pin_path(self._handle, None), f"unpin map {self.name}")

    def write_initial(self, offset: int, data: bytes) -> None:
        """Write into the initial image of a section (.rodata and the like) before loading."""
        size = ctypes.c_size_t()
        image = library().bpf_map__initial_value(self._handle, ctypes.byref(size))
        if not image or offset + len(data) > size.value:
            raise DatapathError(f"section {self.name} has no {len(data)} bytes at {offset}")
        ctypes.memmove(image + offset, data, len(data))


class ObjectProgram:
    """One program of an open object."""

    def __init__(self, handle: int) -> None:
        lib = library()
        self._handle = handle
        self.name: str = lib.bpf_program__name(handle).decode()
        self.section: str = lib.bpf_program__section_name(handle).decode()

    @property
    def fd(self) -> int:
        """Its descriptor, once the object is loaded; the object owns it."""
        return int(library().bpf_program__fd(self._handle))

    @property
    def attach_type(self) -> int:
        """enum bpf_attach_type it expects, from its section name."""
        return int(library().bpf_program__expected_attach_type(self._handle))

    def skip(self) -> None:
        """Leave it out of loading."""
        _check(library().bpf_program__set_autoload(self._handle, False), f"skip program {self.name}")


class Object:
    """An open ELF object. Closing it closes its descriptors; what is pinned or attached stays."""

    def __init__(self, path: str, handle: int) -> None:
        self.path = path
        self._handle = handle
        self.maps = {each.name: each for each in (ObjectMap(h) for h in self._walk("bpf_object__next_map"))}
        self.programs = {each.name: each for each in (ObjectProgram(h) for h in self._walk("bpf_object__next_program"))}

    def _walk(self, function: str) -> Iterator[int]:
        step = getattr(library(), function)
        current = step(self._handle, None)
        while current:
            yield current
            current = step(self._handle, current)

    def variables(self, section: str) -> dict[str, Variable]:
        """Global variables of a section, from the object's BTF (kinds DATASEC and VAR)."""
        lib = library()
        btf = lib.bpf_object__btf(self._handle)
        number = lib.btf__find_by_name_kind(btf, section.encode(), _BTF_KIND_DATASEC) if btf else -1
        if number < 0:
            return {}
        entry = lib.btf__type_by_id(btf, number)
        _, info, _ = struct.unpack("<III", ctypes.string_at(entry, 12))
        found: dict[str, Variable] = {}
        raw = ctypes.string_at(entry + 12, 12 * (info & 0xFFFF))
        for variable, offset, size in struct.iter_unpack("<III", raw):
            (name_offset,) = struct.unpack("<I", ctypes.string_at(lib.btf__type_by_id(btf, variable), 4))
            found[lib.btf__name_by_offset(btf, name_offset).decode()] = Variable(offset, size)
        return found

    def load(self) -> None:
        """Create what maps are missing and load every program.

        Raises VerifierRejected with the log of the program that was refused, KernelRefused for anything
        else.
        """
        _said.clear()
        result = library().bpf_object__load(self._handle)
        log = "".join(_said)
        _said.clear()
        if result < 0:
            refused = _REFUSED.search(log)
            if refused is not None:
                raise VerifierRejected(refused[1], -result, log)
            raise KernelRefused(f"load {Path(self.path).name}{_reason(log)}", -result)

    def close(self) -> None:
        """Give everything back; safe to call twice."""
        if self._handle:
            library().bpf_object__close(self._handle)
            self._handle = 0


def open_object(path: str) -> Object:
    """Open an ELF object file. Raises KernelRefused when it is missing or not an object."""
    lib = library()
    _said.clear()
    ctypes.set_errno(0)
    handle = lib.bpf_object__open_file(os.fsencode(path), None)
    if not handle:
        raise KernelRefused(f"open {path}{_reason()}", ctypes.get_errno())
    return Object(path, handle)


def _reason(log: str | None = None) -> str:
    """libbpf's last words, in brackets."""
    lines = ("".join(_said) if log is None else log).splitlines()[-3:]
    return f" ({'; '.join(line.removeprefix('libbpf: ') for line in lines)})" if lines else ""


def _spec(handle: int) -> MapSpec:
    lib = library()
    inner = lib.bpf_map__inner_map(handle)
    return MapSpec(
        name=lib.bpf_map__name(handle).decode(),
        type=int(lib.bpf_map__type(handle)),
        key_size=int(lib.bpf_map__key_size(handle)),
        value_size=int(lib.bpf_map__value_size(handle)),
        max_entries=int(lib.bpf_map__max_entries(handle)),
        flags=int(lib.bpf_map__map_flags(handle)),
        inner=_spec(inner) if inner else None,
    )


def _check(result: int, what: str) -> None:
    if result < 0:
        raise KernelRefused(what, -result)
