"""What the running kernel has of what the datapath needs, found by asking it and not by its version where
we can.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import re
import struct
from pathlib import Path
from typing import Final, NamedTuple

from mycel.datapath import syscall
from mycel.datapath.errors import DatapathError, KernelRefused, NotSupported
from mycel.datapath.syscall import Command, MapType

OLDEST_KERNEL: Final = (6, 1)
_BPF_FS_MAGIC: Final = 0xCAFE4A11
_CGROUP2_MAGIC: Final = 0x63677270
_libc = ctypes.CDLL(None, use_errno=True)


class Feature(NamedTuple):
    """One thing the kernel has or has not. What is not `required` has a substitute."""

    name: str
    present: bool
    required: bool
    needs: str


def report() -> list[Feature]:
    """Everything the datapath looks for, for `mycel doctor` and the agent's log. Needs root for true
    answers.
    """
    return [
        Feature("kernel 6.1 or newer", kernel_version() >= OLDEST_KERNEL, True, "a newer kernel"),
        Feature("bpf(2)", _may_bpf(), True, "root with CAP_BPF and CAP_NET_ADMIN, CONFIG_BPF_SYSCALL"),
        Feature("BTF", Path("/sys/kernel/btf/vmlinux").exists(), True, "CONFIG_DEBUG_INFO_BTF"),
        Feature("BPF ring buffers", _has_map(MapType.RINGBUF, 0, 0, 4096), True, "kernel 5.8"),
        Feature("LPM tries", _has_map(MapType.LPM_TRIE, 8, 4, 1, flags=1), True, "CONFIG_BPF_SYSCALL"),
        Feature("hooks on cgroups", _has_cgroup_hooks(), True, "CONFIG_CGROUP_BPF"),
        Feature("tcx", has_tcx(), False, "kernel 6.6; older ones get clsact"),
        Feature("VXLAN", _has_module("vxlan"), True, "CONFIG_VXLAN"),
        Feature("veth", _has_module("veth"), True, "CONFIG_VETH"),
    ]


def require() -> None:
    """Refuse clearly on a kernel that cannot carry the datapath. Raises NotSupported."""
    if kernel_version() < OLDEST_KERNEL:
        raise NotSupported(f"datapath (it is {platform.release()})", needs="kernel 6.1 or newer")
    if platform.machine() != "x86_64":
        raise NotSupported(f"datapath on {platform.machine()}", needs="an x86-64 machine")


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


@functools.cache
def has_tcx() -> bool:
    """Whether programs can be linked to a device's ingress and egress (kernel 6.6): ask about the
    loopback's.
    """
    try:
        syscall.bpf(Command.PROG_QUERY, struct.pack("<IIII", 1, 46, 0, 0), "ask for tcx programs")
    except KernelRefused as refused:
        return refused.errno not in (errno.EINVAL, errno.EPERM)
    return True


def is_bpffs(path: Path) -> bool:
    """Whether `path` lies on a BPF filesystem."""
    return filesystem_magic(path) == _BPF_FS_MAGIC


def filesystem_magic(path: Path) -> int:
    """The kind of filesystem at `path` (statfs(2)). Raises DatapathError when there is no such path."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer):
        raise DatapathError(f"{path}: {os.strerror(ctypes.get_errno())}")
    (magic,) = struct.unpack_from("=q", buffer)
    return int(magic) & 0xFFFFFFFF


def _may_bpf() -> bool:
    return _has_map(MapType.HASH, 4, 4, 1)


def _has_map(kind: MapType, key_size: int, value_size: int, entries: int, *, flags: int = 0) -> bool:
    try:
        fd = syscall.map_create(
            kind, key_size=key_size, value_size=value_size, max_entries=entries, flags=flags, name="probe"
        )
    except KernelRefused:
        return False
    os.close(fd)
    return True


def _has_cgroup_hooks() -> bool:
    """Asking an unusable descriptor for its connect4 programs: EBADF says the hook exists, EINVAL that it
    does not.
    """
    try:
        syscall.bpf(Command.PROG_QUERY, struct.pack("<IIII", 1 << 20, 10, 0, 0), "ask for cgroup programs")
    except KernelRefused as refused:
        return refused.errno == errno.EBADF
    return True


def _has_module(name: str) -> bool:
    if Path(f"/sys/module/{name}").exists():
        return True
    folder = Path("/lib/modules") / platform.release()
    listing = folder / "modules.builtin"
    if listing.exists() and f"/{name}.ko" in listing.read_text():
        return True
    if any(folder.rglob(f"{name}.ko*")):
        return True
    return _kernel_config().get(f"CONFIG_{name.upper()}") in ("y", "m")


@functools.cache
def _kernel_config() -> dict[str, str]:
    import gzip

    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{platform.release()}")):
        if path.exists():
            text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
            pairs = (line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_"))
            return dict(pairs)
    return {}
