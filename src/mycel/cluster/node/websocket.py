"""WebSocket framing for a server, without sockets (RFC 6455): bytes → messages → bytes."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_MAX_MESSAGE = 16 << 20


class ProtocolError(Exception):
    """The peer breaks RFC 6455."""


class Op(IntEnum):
    """Opcodes."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Message(NamedTuple):
    """One whole message or control frame."""

    op: Op
    data: bytes


def accept_key(key: str) -> str:
    """The Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()  # noqa: S324 (the RFC's choice)


def encode(op: Op, data: bytes, *, mask: bytes | None = None) -> bytes:
    """One frame; servers do not mask, clients (tests) do with four bytes."""
    head = bytes([0x80 | op])
    bit = 0x80 if mask else 0
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 1 << 16:
        head += bytes([bit | 126]) + struct.pack(">H", len(data))
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", len(data))
    return head + mask + unmask(data, mask) if mask else head + data


def close(code: int, reason: str = "") -> bytes:
    """A close frame."""
    return encode(Op.CLOSE, struct.pack(">H", code) + reason.encode()[:120])


def unmask(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask; big integers make it quick."""
    if not data:
        return b""
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(data), "big")


class Decoder:
    """`feed(data)` yields whole messages, fragments put together."""

    def __init__(self) -> None:
        self._inbox = bytearray()
        self._fragments = bytearray()
        self._op: Op | None = None

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes in. Raises ProtocolError."""
        self._inbox += data
        while (frame := self._frame()) is not None:
            fin, op, payload = frame
            if op >= Op.CLOSE:
                yield Message(op, payload)
                continue
            if op is not Op.CONTINUATION:
                self._op = op
            elif self._op is None:
                raise ProtocolError("a continuation without a beginning")
            self._fragments += payload
            if len(self._fragments) > _MAX_MESSAGE:
                raise ProtocolError("message too long")
            if fin:
                yield Message(self._op, bytes(self._fragments))
                self._fragments.clear()
                self._op = None

    def _frame(self) -> tuple[bool, Op, bytes] | None:
        box = self._inbox
        if len(box) < 2:
            return None
        length, at = box[1] & 0x7F, 2
        if length == 126:
            if len(box) < 4:
                return None
            (length,), at = struct.unpack_from(">H", box, 2), 4
        elif length == 127:
            if len(box) < 10:
                return None
            (length,), at = struct.unpack_from(">Q", box, 2), 10
        if length > _MAX_MESSAGE:
            raise ProtocolError("frame too long")
        masked = bool(box[1] & 0x80)
        end = at + (4 if masked else 0) + length
        if len(box) < end:
            return None
        try:
            op = Op(box[0] & 0x0F)
        except ValueError as exc:
            raise ProtocolError(f"opcode {box[0] & 0x0F}") from exc
        payload = unmask(bytes(box[at + 4 : end]), bytes(box[at : at + 4])) if masked else bytes(box[at:end])
        fin = bool(box[0] & 0x80)
        del box[:end]
        return fin, op, payload
