"""Attachment where the kernel has no tcx (before 6.6): a clsact queueing discipline with one bpf filter per
side.

The filter is replaced in place, by its handle, so a packet meets the old program or the new one. It belongs
to the device and needs no pin.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

from mycel.datapath.rtnetlink import CREATE, EXCLUSIVE, REPLACE, Message, Netlink, NetlinkRefused, attributes, text, u32

_TC: Final = struct.Struct("=BxHiIII")
_CLSACT: Final = 0xFFFFFFF1
_HANDLE: Final = 0xFFFF0000
_ETH_P_ALL_WIRE: Final = 0x0300
_PRIORITY: Final = 1
INGRESS: Final = 0xFFFFFFF2
EGRESS: Final = 0xFFFFFFF3


def attach(netlink: Netlink, ifindex: int, side: int, *, program_fd: int, name: str) -> None:
    """Run a program on one side of a device, in place of the one that is there. Raises NetlinkRefused."""
    try:
        body = _TC.pack(0, 0, ifindex, _HANDLE, _CLSACT, 0) + attributes([(1, text("clsact"))])
        netlink.change(Message.NEWQDISC, body, f"clsact on device {ifindex}", flags=CREATE | EXCLUSIVE)
    except NetlinkRefused as refused:
        if refused.errno != errno.EEXIST:
            raise
    options = attributes([(6, u32(program_fd)), (7, text(name)), (8, u32(1))])  # fd, name, direct action
    info = _PRIORITY << 16 | _ETH_P_ALL_WIRE
    body = _TC.pack(0, 0, ifindex, 1, side, info) + attributes([(1, text("bpf")), (2, options)])
    netlink.change(Message.NEWTFILTER, body, f"filter {name} on device {ifindex}", flags=CREATE | REPLACE)


def detach(netlink: Netlink, ifindex: int, side: int) -> bool:
    """Take our filter off; False when there was none."""
    body = _TC.pack(0, 0, ifindex, 1, side, _PRIORITY << 16 | _ETH_P_ALL_WIRE) + attributes([(1, text("bpf"))])
    try:
        netlink.change(Message.DELTFILTER, body, f"remove filter of device {ifindex}")
    except NetlinkRefused as refused:
        if refused.errno in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
            return False
        raise
    return True
