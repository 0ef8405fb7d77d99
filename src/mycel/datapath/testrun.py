"""Run a tc program on a packet of our own making (BPF_PROG_TEST_RUN), as tests and benchmarks do.

The packet is a whole Ethernet frame. The kernel takes only some fields of struct __sk_buff as input (mark,
priority, ingress_ifindex, ifindex, cb, tstamp, wire_len, gso_segs, gso_size) and gives all of them back; an
interface index must exist in the caller's network namespace, and 0 stands for the loopback device.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mycel.datapath import syscall

_ROOM = 65536


class SkbContext(NamedTuple):
    """The fields of struct __sk_buff that go in and come out of a test run."""

    mark: int = 0
    priority: int = 0
    ingress_ifindex: int = 0
    ifindex: int = 0
    cb: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    wire_len: int = 0
    gso_segs: int = 0
    gso_size: int = 0

    def pack(self) -> bytes:
        """As struct __sk_buff, 192 bytes."""
        raw = bytearray(192)
        struct.pack_into("<I", raw, 8, self.mark)
        struct.pack_into("<III", raw, 32, self.priority, self.ingress_ifindex, self.ifindex)
        struct.pack_into("<5I", raw, 48, *self.cb)
        struct.pack_into("<II", raw, 160, self.wire_len, self.gso_segs)
        struct.pack_into("<I", raw, 176, self.gso_size)
        return bytes(raw)

    @classmethod
    def unpack(cls, raw: bytes) -> SkbContext:
        """From struct __sk_buff."""
        (mark,) = struct.unpack_from("<I", raw, 8)
        priority, ingress_ifindex, ifindex = struct.unpack_from("<III", raw, 32)
        wire_len, gso_segs = struct.unpack_from("<II", raw, 160)
        (gso_size,) = struct.unpack_from("<I", raw, 176)
        first, second, third, fourth, fifth = struct.unpack_from("<5I", raw, 48)
        cb = (first, second, third, fourth, fifth)
        return cls(mark, priority, ingress_ifindex, ifindex, cb, wire_len, gso_segs, gso_size)


class SkbRun(NamedTuple):
    """The verdict (TC_ACT_*), the frame as the program left it, the context and the time of one round."""

    verdict: int
    packet: bytes
    context: SkbContext
    duration_ns: int


def run_skb(program_fd: int, packet: bytes, *, context: SkbContext | None = None, repeat: int = 1) -> SkbRun:
    """Run a tc program `repeat` times on one frame; from the second time on it meets its own output."""
    run = syscall.program_test_run(
        program_fd, packet, context=(context or SkbContext()).pack(), repeat=repeat, room=_ROOM
    )
    return SkbRun(run.verdict, run.packet, SkbContext.unpack(run.context), run.duration_ns)
