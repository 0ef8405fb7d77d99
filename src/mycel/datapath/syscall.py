"""bpf(2) itself: one function per command we use, numbers and buffers in, numbers and bytes out.

Attributes are packed as <linux/bpf.h> of 6.1 lays them out and handed to the kernel by address. ctypes lets
go of the interpreter lock during the call, so a thread may wait here while the event loop runs. Failures
raise KernelRefused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from enum import IntEnum
from typing import Final, NamedTuple

from mycel.datapath.errors import KernelRefused

_BPF: Final = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_ATTR_SIZE: Final = 144
_libc = ctypes.CDLL(None, use_errno=True)


class Command(IntEnum):
    """enum bpf_cmd, those in use."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_ATTACH = 8
    PROG_DETACH = 9
    PROG_TEST_RUN = 10
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


class MapType(IntEnum):
    """enum bpf_map_type, those in use."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    RINGBUF = 27

    @property
    def per_cpu(self) -> bool:
        """Whether a value is one block per possible CPU."""
        return self in (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH)


class MapInfo(NamedTuple):
    """struct bpf_map_info, its first fields."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


class ProgInfo(NamedTuple):
    """struct bpf_prog_info, its first fields."""

    type: int
    id: int
    tag: str


class LinkInfo(NamedTuple):
    """struct bpf_link_info, its first fields and what tcx and cgroup links add."""

    type: int
    id: int
    program_id: int
    target: int  # ifindex of a tcx link, low half of the cgroup id of a cgroup link
    attach_type: int


def address_of(buffer: ctypes.Array[ctypes.c_char]) -> int:
    """Address of a buffer; the caller keeps the buffer alive across the call."""
    return ctypes.addressof(buffer)


def bpf(command: Command, attributes: bytes, what: str) -> int:
    """Call bpf(2) and return what it returned. Raises KernelRefused with `what` in its message."""
    result, _ = _bpf_inout(command, attributes, what)
    return result


def _bpf_inout(command: Command, attributes: bytes, what: str) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
    while True:
        result = _libc.syscall(_BPF, int(command), ctypes.byref(buffer), _ATTR_SIZE)
        if result >= 0:
            return result, buffer.raw
        number = ctypes.get_errno()
        if number == errno.EINTR or (number == errno.EAGAIN and command is Command.PROG_TEST_RUN):
            continue
        raise KernelRefused(what, number)


def _c_string(text: str | bytes | os.PathLike[str]) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(os.fsencode(text))


# ---- maps


def map_create(
    kind: MapType,
    *,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    inner_fd: int = 0,
    name: str = "",
) -> int:
    """Create a map without BTF; returns its file descriptor."""
    attributes = struct.pack(
        "<IIIIIII15s1x", kind, key_size, value_size, max_entries, flags, inner_fd, 0, name.encode()[:15]
    )
    return bpf(Command.MAP_CREATE, attributes, f"create map {name or kind.name.lower()}")


def map_lookup(fd: int, key: bytes, value_size: int, flags: int = 0) -> bytes | None:
    """The value of `key`, or None. `value_size` is what the kernel writes (all CPUs' blocks)."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_size)
    attributes = struct.pack("<I4xQQQ", fd, address_of(key_buffer), address_of(value), flags)
    try:
        bpf(Command.MAP_LOOKUP_ELEM, attributes, "look a map row up")
    except KernelRefused as refused:
        if refused.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def map_update(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Write one row. flags: 0 any, 1 only a new one, 2 only an existing one."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    bpf(
        Command.MAP_UPDATE_ELEM,
        struct.pack("<I4xQQQ", fd, address_of(key_buffer), address_of(value_buffer), flags),
        "write a map row",
    )


def map_delete(fd: int, key: bytes) -> bool:
    """Delete one row; False when there was none."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    try:
        bpf(Command.MAP_DELETE_ELEM, struct.pack("<I4xQ", fd, address_of(key_buffer)), "delete a map row")
    except KernelRefused as refused:
        if refused.errno == errno.ENOENT:
            return False
        raise
    return True


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """The key after `key` (None: the first), or None at the end."""
    current = ctypes.create_string_buffer(key, key_size) if key is not None else None
    following = ctypes.create_string_buffer(key_size)
    attributes = struct.pack("<I4xQQ", fd, address_of(current) if current else 0, address_of(following))
    try:
        bpf(Command.MAP_GET_NEXT_KEY, attributes, "walk a map")
    except KernelRefused as refused:
        if refused.errno == errno.ENOENT:
            return None
        raise
    return following.raw


class Batch(NamedTuple):
    """One chunk of a map: `rows` keys and values side by side; `cursor` is None at the end."""

    keys: bytes
    values: bytes
    rows: int
    cursor: bytes | None


def map_lookup_batch(fd: int, cursor: bytes | None, *, count: int, key_size: int, value_size: int) -> Batch:
    """Read up to `count` rows from `cursor` on (None: from the start)."""
    position = ctypes.create_string_buffer(cursor, max(len(cursor), 8)) if cursor is not None else None
    following = ctypes.create_string_buffer(max(key_size, 8))
    keys = ctypes.create_string_buffer(count * key_size)
    values = ctypes.create_string_buffer(count * value_size)
    attributes = struct.pack(
        "<QQQQIIQQ",
        address_of(position) if position is not None else 0,
        address_of(following),
        address_of(keys),
        address_of(values),
        count,
        fd,
        0,
        0,
    )
    buffer = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
    ended = False
    if _libc.syscall(_BPF, int(Command.MAP_LOOKUP_BATCH), ctypes.byref(buffer), _ATTR_SIZE) < 0:
        number = ctypes.get_errno()
        if number != errno.ENOENT:
            raise KernelRefused("read a map in batches", number)
        ended = True  # ENOENT: this was the last chunk, and its rows count
    (found,) = struct.unpack_from("<I", buffer.raw, 32)
    return Batch(
        keys.raw[: found * key_size],
        values.raw[: found * value_size],
        found,
        None if ended else following.raw,
    )


def map_update_batch(fd: int, keys: bytes, values: bytes, count: int) -> int:
    """Write rows that lie side by side; returns how many were written. Raises with the first that failed."""
    return _write_batch(Command.MAP_UPDATE_BATCH, fd, keys, values, count)


def map_delete_batch(fd: int, keys: bytes, count: int) -> int:
    """Delete rows whose keys lie side by side; returns how many were there before one was missing."""
    return _write_batch(Command.MAP_DELETE_BATCH, fd, keys, None, count)


def _write_batch(command: Command, fd: int, keys: bytes, values: bytes | None, count: int) -> int:
    key_buffer = ctypes.create_string_buffer(keys, len(keys))
    value_buffer = ctypes.create_string_buffer(values, len(values)) if values is not None else None
    attributes = struct.pack(
        "<QQQQIIQQ",
        0,
        0,
        address_of(key_buffer),
        address_of(value_buffer) if value_buffer is not None else 0,
        count,
        fd,
        0,
        0,
    )
    buffer = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
    if _libc.syscall(_BPF, int(command), ctypes.byref(buffer), _ATTR_SIZE) < 0:
        number = ctypes.get_errno()
        (done,) = struct.unpack_from("<I", buffer.raw, 32)
        if command is Command.MAP_DELETE_BATCH and number == errno.ENOENT:
            return done
        raise KernelRefused(f"{command.name.lower().replace('_', ' ')} after {done} of {count} rows", number)
    return count


# ---- objects


def pin(fd: int, path: str | os.PathLike[str]) -> None:
    """Give a map, program or link a name on a bpffs."""
    text = _c_string(path)
    bpf(Command.OBJ_PIN, struct.pack("<QII", address_of(text), fd, 0), f"pin {os.fspath(path)}")


def get_pinned(path: str | os.PathLike[str]) -> int | None:
    """Descriptor of what is pinned at `path`, or None when nothing is."""
    text = _c_string(path)
    try:
        return bpf(Command.OBJ_GET, struct.pack("<QII", address_of(text), 0, 0), f"open pin {os.fspath(path)}")
    except KernelRefused as refused:
        if refused.errno == errno.ENOENT:
            return None
        raise


def map_by_id(map_id: int) -> int:
    """Descriptor of the map with this id (CAP_SYS_ADMIN)."""
    return bpf(Command.MAP_GET_FD_BY_ID, struct.pack("<III", map_id, 0, 0), f"open map {map_id}")


def _info(fd: int, size: int, what: str) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, size, address_of(buffer)), what)
    return buffer.raw


def map_info(fd: int) -> MapInfo:
    """What the kernel says of a map."""
    raw = _info(fd, 88, "ask for a map's layout")
    kind, number, key_size, value_size, max_entries, flags, name = struct.unpack_from("<IIIIII16s", raw)
    return MapInfo(kind, number, key_size, value_size, max_entries, flags, name.split(b"\0")[0].decode())


def program_info(fd: int) -> ProgInfo:
    """What the kernel says of a program; the tag is a digest of its instructions."""
    kind, number, tag = struct.unpack_from("<II8s", _info(fd, 232, "ask for a program's tag"))
    return ProgInfo(kind, number, tag.hex())


def link_info(fd: int) -> LinkInfo:
    """What the kernel says of a link. Target and attach type mean something for tcx and cgroup links only."""
    raw = _info(fd, 64, "ask for a link's target")
    kind, number, program = struct.unpack_from("<III", raw)
    if kind == LINK_TYPE_CGROUP:
        target, attach_type = struct.unpack_from("<QI", raw, 16)
        return LinkInfo(kind, number, program, target, attach_type)
    target, attach_type = struct.unpack_from("<II", raw, 16)
    return LinkInfo(kind, number, program, target, attach_type)


LINK_TYPE_CGROUP: Final = 3
LINK_TYPE_TCX: Final = 11


# ---- links


def link_create(program_fd: int, target: int, attach_type: int, what: str) -> int:
    """Attach by link to an ifindex (tcx) or a cgroup descriptor; returns the link's descriptor."""
    return bpf(Command.LINK_CREATE, struct.pack("<IIII", program_fd, target, attach_type, 0), what)


def link_update(link_fd: int, program_fd: int, what: str) -> None:
    """Swap the program of a link: a packet meets the old one or the new one, never none."""
    bpf(Command.LINK_UPDATE, struct.pack("<III", link_fd, program_fd, 0), what)


def link_detach(link_fd: int, what: str) -> None:
    """Detach a link from its target at once, pinned or not."""
    bpf(Command.LINK_DETACH, struct.pack("<I", link_fd), what)


# ---- test runs


class TestRun(NamedTuple):
    """What BPF_PROG_TEST_RUN gave back."""

    verdict: int
    packet: bytes
    context: bytes
    duration_ns: int


def program_test_run(program_fd: int, data: bytes, *, context: bytes, repeat: int, room: int) -> TestRun:
    """Run a program on a made packet; `room` bytes are held ready for the packet that comes out."""
    data_in = ctypes.create_string_buffer(data, len(data))
    data_out = ctypes.create_string_buffer(room)
    context_in = ctypes.create_string_buffer(context, len(context)) if context else None
    context_out = ctypes.create_string_buffer(len(context)) if context else None
    attributes = struct.pack(
        "<IIIIQQIIIIQQIII",
        program_fd,
        0,
        len(data),
        room,
        address_of(data_in),
        address_of(data_out),
        repeat,
        0,
        len(context),
        len(context),
        address_of(context_in) if context_in is not None else 0,
        address_of(context_out) if context_out is not None else 0,
        0,
        0,
        0,
    )
    _, raw = _bpf_inout(Command.PROG_TEST_RUN, attributes, "test-run a program")
    verdict, _size_in, size_out = struct.unpack_from("<III", raw, 4)
    (duration_ns,) = struct.unpack_from("<I", raw, 36)
    return TestRun(verdict, data_out.raw[:size_out], context_out.raw if context_out is not None else b"", duration_ns)
