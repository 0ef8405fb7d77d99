"""rtnetlink (RFC 3549, rtnetlink(7)): messages and attributes in and out of one socket.

A socket belongs to the network namespace it was opened in, for good: `open_in` opens one in another
namespace. Calls block for microseconds to milliseconds; the agent makes them from a thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from mycel.datapath.errors import DatapathError

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_SOL_NETLINK: Final = 270
_CAP_ACK, _EXT_ACK, _STRICT_CHECK = 10, 11, 12
_ERROR, _DONE = 2, 3
_TYPE_MASK: Final = 0x3FFF
_CLONE_NEWNET: Final = 0x40000000

Attribute = tuple[int, bytes]
T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


class Message(IntEnum):
    """Message types in use."""

    NEWLINK = 16
    DELLINK = 17
    GETLINK = 18
    NEWADDR = 20
    DELADDR = 21
    GETADDR = 22
    NEWROUTE = 24
    DELROUTE = 25
    GETROUTE = 26
    NEWNEIGH = 28
    DELNEIGH = 29
    GETNEIGH = 30
    NEWRULE = 32
    DELRULE = 33
    GETRULE = 34
    NEWQDISC = 36
    DELQDISC = 37
    NEWTFILTER = 44
    DELTFILTER = 45
    GETTFILTER = 46


REQUEST: Final = 0x001
ACK: Final = 0x004
DUMP: Final = 0x300
REPLACE: Final = 0x100
EXCLUSIVE: Final = 0x200
CREATE: Final = 0x400
LINK_GROUP: Final = 1  # RTMGRP_LINK


class NetlinkRefused(DatapathError):
    """The kernel refused a change of the network; `errno` tells which way."""

    def __init__(self, what: str, number: int, hint: str = "") -> None:
        name = errno.errorcode.get(number, str(number))
        super().__init__(f"{what}: {os.strerror(number)} ({name}{': ' + hint if hint else ''})")
        self.errno = number


class Reply(NamedTuple):
    """One message from the kernel: its type and what follows the header."""

    type: int
    body: bytes

    def attributes(self, header_size: int) -> dict[int, bytes]:
        """Attributes after the fixed header; of an attribute that comes twice the last counts."""
        return dict(parse(self.body, header_size))


def attribute(number: int, value: bytes) -> bytes:
    """One attribute, padded."""
    size = 4 + len(value)
    return _ATTRIBUTE.pack(size, number) + value + b"\0" * (-size % 4)


def attributes(items: Sequence[Attribute]) -> bytes:
    """Several attributes."""
    return b"".join(attribute(number, value) for number, value in items)


def u32(value: int) -> bytes:
    """A host-order 32-bit attribute value."""
    return struct.pack("=I", value)


def text(value: str) -> bytes:
    """A NUL-terminated attribute value."""
    return value.encode() + b"\0"


def parse(data: bytes, offset: int = 0) -> Iterator[Attribute]:
    """Attributes in `data` from `offset` on."""
    while offset + 4 <= len(data):
        size, number = _ATTRIBUTE.unpack_from(data, offset)
        if size < 4:
            return
        yield number & _TYPE_MASK, data[offset + 4 : offset + size]
        offset += size + (-size % 4)


class Netlink:
    """A socket for requests. Usable from one thread at a time: calls hold a lock."""

    def __init__(self, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._sequence = 0
        self._lock = threading.Lock()
        try:
            for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._socket.bind((0, groups))
        except BaseException:
            self._socket.close()
            raise

    def change(self, message: Message, body: bytes, what: str, *, flags: int = 0) -> None:
        """Ask for a change and wait until it is made. Raises NetlinkRefused."""
        with self._lock:
            self._send(message, REQUEST | ACK | flags, body)
            for _ in self._replies(what):
                pass

    def get(self, message: Message, body: bytes, what: str) -> list[Reply]:
        """Ask for one object. Raises NetlinkRefused when it is not there."""
        with self._lock:
            self._send(message, REQUEST | ACK, body)
            return list(self._replies(what))

    def dump(self, message: Message, body: bytes, what: str) -> list[Reply]:
        """All objects of a kind. A dump that was disturbed by a change is taken again."""
        for _ in range(8):
            with self._lock:
                self._send(message, REQUEST | DUMP, body)
                try:
                    return list(self._replies(what))
                except NetlinkRefused as refused:
                    if refused.errno != errno.EINTR:
                        raise
        raise NetlinkRefused(what, errno.EINTR)

    def fileno(self) -> int:
        """For pollers, when the socket joined a group."""
        return self._socket.fileno()

    def read_group(self) -> bool:
        """Take what the groups said off the socket; False when something was missed and all must be read
        anew.
        """
        try:
            while True:
                self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError as problem:
            if problem.errno == errno.ENOBUFS:
                return False
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _send(self, message: Message, flags: int, body: bytes) -> None:
        self._sequence += 1
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, message, flags, self._sequence, 0) + body)

    def _replies(self, what: str) -> Iterator[Reply]:
        interrupted = False
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset + _HEADER.size <= len(data):
                size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
                body = data[offset + _HEADER.size : offset + size]
                offset += size + (-size % 4)
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(flags & 0x10)
                if kind in (_ERROR, _DONE):
                    (number,) = struct.unpack_from("=i", body) if len(body) >= 4 else (0,)
                    if number:
                        raise NetlinkRefused(what, -number, _hint(body, flags))
                    if interrupted:
                        raise NetlinkRefused(what, errno.EINTR)
                    return
                yield Reply(kind, body)


def _hint(body: bytes, flags: int) -> str:
    """The kernel's own words on an error, where it has some (extended acknowledgement)."""
    if not flags & 0x200:
        return ""
    start = 20 if len(body) >= 20 else 4  # error number, then the header of our request
    return dict(parse(body, start)).get(1, b"").rstrip(b"\0").decode(errors="replace")


def open_in(namespace: str | os.PathLike[str]) -> Netlink:
    """A socket in the network namespace that `namespace` (a file) stands for.

    A thread of its own enters that namespace and ends, so no thread of the process ever changes its place.
    """
    with open(Path(namespace), "rb") as file:
        return call_in(file.fileno(), Netlink)


def call_in(namespace_fd: int, function: Callable[[], T]) -> T:
    """Run `function` in a network namespace, in a thread that ends afterwards. Raises what it raises."""
    results: list[T] = []
    problems: list[BaseException] = []

    def enter() -> None:
        try:
            if _libc.setns(namespace_fd, _CLONE_NEWNET):
                raise NetlinkRefused("enter a network namespace", ctypes.get_errno())
            results.append(function())
        except BaseException as problem:  # handed to the caller's thread as it is
            problems.append(problem)

    thread = threading.Thread(target=enter, name="netns")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return results[0]
