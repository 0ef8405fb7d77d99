"""Where programs run: tcx links on devices, links on the node's cgroup, all pinned by name.

A pin is `<program>@<target>`; the target is an interface index, or `cgroup`. Start-up finds the pins of the
agent before it and swaps their program (BPF_LINK_UPDATE), and only when it differs: nothing is ever
detached to be attached again. A kernel without tcx gets clsact filters, which the device itself keeps.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from mycel.datapath import clsact, syscall
from mycel.datapath.errors import DatapathError, KernelRefused
from mycel.datapath.objects import LoadedProgram
from mycel.datapath.rtnetlink import Netlink
from mycel.datapath.syscall import LINK_TYPE_CGROUP, LINK_TYPE_TCX


class Hook(IntEnum):
    """enum bpf_attach_type, those in use."""

    CGROUP_CONNECT4 = 10
    CGROUP_CONNECT6 = 11
    CGROUP_SENDMSG4 = 14
    CGROUP_SENDMSG6 = 15
    CGROUP_RECVMSG4 = 19
    CGROUP_RECVMSG6 = 20
    CGROUP_GETPEERNAME4 = 29
    CGROUP_GETPEERNAME6 = 30
    TCX_INGRESS = 46
    TCX_EGRESS = 47


PROGRAM_HOOKS: Final[Mapping[str, Hook]] = {
    "from_pod": Hook.TCX_INGRESS,
    "to_pod": Hook.TCX_EGRESS,
    "from_overlay": Hook.TCX_INGRESS,
    "from_host": Hook.TCX_INGRESS,
    "from_network": Hook.TCX_INGRESS,
    "to_network": Hook.TCX_EGRESS,
    "connect4": Hook.CGROUP_CONNECT4,
    "connect6": Hook.CGROUP_CONNECT6,
    "sendmsg4": Hook.CGROUP_SENDMSG4,
    "sendmsg6": Hook.CGROUP_SENDMSG6,
    "recvmsg4": Hook.CGROUP_RECVMSG4,
    "recvmsg6": Hook.CGROUP_RECVMSG6,
    "getpeername4": Hook.CGROUP_GETPEERNAME4,
    "getpeername6": Hook.CGROUP_GETPEERNAME6,
}


class AttachedLink(NamedTuple):
    """One pinned link. `alive` is False when its device or cgroup has gone."""

    program: str
    target: str
    link_id: int
    program_id: int
    alive: bool


class Links:
    """The links of one node, under one folder of its bpffs."""

    def __init__(
        self, folder: Path, programs: Mapping[str, LoadedProgram], *, netlink: Netlink, tcx: bool = True
    ) -> None:
        self._folder = folder
        self._programs = programs
        self._netlink = netlink
        self._tcx = tcx
        folder.mkdir(parents=True, exist_ok=True)

    def attach_device(self, program: str, ifindex: int) -> bool:
        """Run `program` on its side of a device. True when anything had to change. Raises DatapathError."""
        hook = PROGRAM_HOOKS[program]
        loaded = self._loaded(program)
        if not self._tcx:
            side = clsact.INGRESS if hook is Hook.TCX_INGRESS else clsact.EGRESS
            clsact.attach(self._netlink, ifindex, side, program_fd=loaded.fd, name=program)
            return True
        return self._ensure(loaded, str(ifindex), target=ifindex, hook=hook, kind=LINK_TYPE_TCX)

    def detach_device(self, program: str, ifindex: int) -> bool:
        """Stop `program` on a device; False when it did not run there."""
        if not self._tcx:
            hook = PROGRAM_HOOKS[program]
            side = clsact.INGRESS if hook is Hook.TCX_INGRESS else clsact.EGRESS
            return clsact.detach(self._netlink, ifindex, side)
        return _unpin(self._folder / f"{program}@{ifindex}")

    def forget_device(self, program: str, ifindex: int) -> None:
        """Drop the pin of a device that is gone. Costs no wait for the kernel, as detaching a living one does."""
        (self._folder / f"{program}@{ifindex}").unlink(missing_ok=True)

    def attach_cgroup(self, program: str, cgroup_fd: int) -> bool:
        """Run `program` for the sockets of a cgroup. True when anything had to change. Raises
        DatapathError.
        """
        hook = PROGRAM_HOOKS[program]
        loaded = self._loaded(program)
        return self._ensure(loaded, "cgroup", target=cgroup_fd, hook=hook, kind=LINK_TYPE_CGROUP)

    def attached(self) -> list[AttachedLink]:
        """Every pinned link, from the kernel."""
        found: list[AttachedLink] = []
        for path in sorted(self._folder.iterdir()):
            program, _, target = path.name.partition("@")
            fd = syscall.get_pinned(path)
            if fd is None:
                continue
            try:
                info = syscall.link_info(fd)
            finally:
                os.close(fd)
            alive = info.target != 0
            found.append(AttachedLink(program, target, info.id, info.program_id, alive))
        return found

    def refresh(self) -> int:
        """Give every pinned link the program loaded now; links of devices that are gone are dropped.

        Returns how many programs were swapped. Links whose program no longer exists are dropped last.
        """
        swapped = 0
        orphans: list[Path] = []
        for each in self.attached():
            path = self._folder / f"{each.program}@{each.target}"
            loaded = self._programs.get(each.program)
            if not each.alive:
                _unpin(path)
            elif loaded is None:
                orphans.append(path)
            elif each.program_id != loaded.id:
                fd = syscall.get_pinned(path)
                if fd is not None:
                    try:
                        syscall.link_update(fd, loaded.fd, f"swap {path.name}")
                    finally:
                        os.close(fd)
                    swapped += 1
        for path in orphans:
            _unpin(path)
        return swapped

    def keep_only(self, program: str, ifindexes: Iterable[int]) -> None:
        """Detach `program` from every other device."""
        wanted = {str(each) for each in ifindexes}
        for each in self.attached():
            if each.program == program and each.target not in wanted:
                _unpin(self._folder / f"{each.program}@{each.target}")

    def _loaded(self, program: str) -> LoadedProgram:
        try:
            return self._programs[program]
        except KeyError:
            raise DatapathError(f"program {program} is not loaded: build the objects anew") from None

    def _ensure(self, loaded: LoadedProgram, label: str, *, target: int, hook: Hook, kind: int) -> bool:
        path = self._folder / f"{loaded.name}@{label}"
        fd = syscall.get_pinned(path)
        if fd is not None:
            try:
                info = syscall.link_info(fd)
                wanted = os.fstat(target).st_ino if kind == LINK_TYPE_CGROUP else target
                if info.type == kind and info.target == wanted and info.attach_type == hook:
                    if info.program_id == loaded.id:
                        return False
                    syscall.link_update(fd, loaded.fd, f"swap {path.name}")
                    return True
            finally:
                os.close(fd)
            path.unlink()
        fd = syscall.link_create(loaded.fd, target, hook, f"attach {path.name}")
        try:
            syscall.pin(fd, path)
        finally:
            os.close(fd)
        return True


def _unpin(path: Path) -> bool:
    """Remove a pin and end its attachment now, rather than when the kernel gets to it."""
    fd = syscall.get_pinned(path)
    if fd is None:
        return False
    try:
        path.unlink(missing_ok=True)
        syscall.link_detach(fd, f"detach {path.name}")
    except KernelRefused as refused:
        if refused.errno not in (errno.ENOLINK, errno.EOPNOTSUPP, errno.ENODEV):
            raise
    finally:
        os.close(fd)
    return True
