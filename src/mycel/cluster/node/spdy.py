"""SPDY/3.1 framing without sockets: bytes → frames → bytes (draft-mbelshe-httpbis-spdy-00, session windows of 3.1).

kubectl and client-go carry exec and port-forward over it. One zlib stream per direction compresses all header
blocks, so a `Decoder` and an `Encoder` belong to one connection. Send windows are not waited for: the clients'
library never opens them, TCP is what holds a sender back; we do send updates for what we read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location "
    "content-md5 content-range content-type date etag expect expires from host if-match if-modified-since "
    "if-none-match "
    "if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate "
    "proxy-authorization range "
    "referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning "
    "www-authenticate method get "
    "status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(
        struct.pack(">I", len(word)) + word.encode() for word in (item.replace("_", " ") for item in _WORDS.split())
    )
    + _TAIL.encode()
)

_VERSION = 3
_MAX_FRAME = 1 << 24
_MAX_HEADERS = 64 << 10
FLAG_FIN = 1
DATA_CHUNK = 32 << 10


class ProtocolError(Exception):
    """The peer does not speak SPDY/3.1."""


class Kind(IntEnum):
    """Control frame types."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class SynStream(NamedTuple):
    """The peer opens a stream."""

    stream: int
    headers: dict[str, str]
    fin: bool


class Data(NamedTuple):
    """Bytes of a stream."""

    stream: int
    data: bytes
    fin: bool


class Reset(NamedTuple):
    """The peer gave a stream up."""

    stream: int
    status: int


class Ping(NamedTuple):
    """To be answered with the same id, unless it answers ours."""

    id: int


class Goaway(NamedTuple):
    """The peer opens no further streams."""

    last_stream: int


class SynReply(NamedTuple):
    """The peer accepts a stream of ours."""

    stream: int
    headers: dict[str, str]


Frame = SynStream | Data | Reset | Ping | Goaway | SynReply


class Decoder:
    """`feed(data)` yields whole frames; what is of no interest here (SETTINGS, WINDOW_UPDATE) is swallowed."""

    def __init__(self) -> None:
        self._inbox = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes in. Raises ProtocolError."""
        self._inbox += data
        while len(self._inbox) >= 8:
            head, tail = struct.unpack_from(">II", self._inbox)
            flags, length = tail >> 24, tail & 0xFFFFFF
            if length > _MAX_FRAME:
                raise ProtocolError("frame too long")
            if len(self._inbox) < 8 + length:
                return
            body = bytes(self._inbox[8 : 8 + length])
            del self._inbox[: 8 + length]
            if head >> 31:
                if head >> 16 & 0x7FFF != _VERSION:
                    raise ProtocolError(f"SPDY version {head >> 16 & 0x7FFF}, want 3")
                frame = self._control(head & 0xFFFF, flags, body)
                if frame is not None:
                    yield frame
            else:
                yield Data(head & 0x7FFFFFFF, body, bool(flags & FLAG_FIN))

    def _control(self, kind: int, flags: int, body: bytes) -> Frame | None:
        try:
            match kind:
                case Kind.SYN_STREAM:
                    (stream,) = struct.unpack_from(">I", body)
                    return SynStream(stream & 0x7FFFFFFF, self._headers(body[10:]), bool(flags & FLAG_FIN))
                case Kind.SYN_REPLY:
                    (stream,) = struct.unpack_from(">I", body)
                    return SynReply(stream & 0x7FFFFFFF, self._headers(body[4:]))
                case Kind.HEADERS:
                    self._headers(body[4:])  # keeps the shared zlib state right
                    return None
                case Kind.RST_STREAM:
                    return Reset(*struct.unpack_from(">II", body))
                case Kind.PING:
                    return Ping(*struct.unpack_from(">I", body))
                case Kind.GOAWAY:
                    return Goaway(struct.unpack_from(">I", body)[0])
                case _:
                    return None
        except struct.error as exc:
            raise ProtocolError(f"frame of type {kind} is cut short") from exc

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            raw = self._inflate.decompress(block, _MAX_HEADERS)
        except zlib.error as exc:
            raise ProtocolError(f"headers cannot be unpacked: {exc}") from exc
        if self._inflate.unconsumed_tail:
            raise ProtocolError("headers are too long")
        if len(raw) < 4:
            return {}
        (count,), at, found = struct.unpack_from(">I", raw), 4, {}
        for _ in range(count):
            pair: list[str] = []
            for _part in range(2):
                if len(raw) < at + 4:
                    raise ProtocolError("headers are cut short")
                (length,) = struct.unpack_from(">I", raw, at)
                pair.append(raw[at + 4 : at + 4 + length].decode("latin-1"))
                at += 4 + length
            found[pair[0].lower()] = pair[1]
        return found


class Encoder:
    """Makes frames of one connection's sending direction."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def syn_stream(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """Open a stream (tests and clients)."""
        body = struct.pack(">IIH", stream, 0, 0) + self._block(headers)
        return _control(Kind.SYN_STREAM, FLAG_FIN if fin else 0, body)

    def syn_reply(self, stream: int, headers: Mapping[str, str] | None = None) -> bytes:
        """Accept a stream."""
        return _control(Kind.SYN_REPLY, 0, struct.pack(">I", stream) + self._block(headers or {}))

    @staticmethod
    def data(stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Bytes of a stream."""
        return struct.pack(">II", stream, (FLAG_FIN if fin else 0) << 24 | len(data)) + data

    @staticmethod
    def ping(number: int) -> bytes:
        """A ping, or the answer to one."""
        return _control(Kind.PING, 0, struct.pack(">I", number))

    @staticmethod
    def reset(stream: int, status: int = 5) -> bytes:
        """Give a stream up; 5 is CANCEL."""
        return _control(Kind.RST_STREAM, 0, struct.pack(">II", stream, status))

    @staticmethod
    def goaway(last_stream: int) -> bytes:
        """No further streams."""
        return _control(Kind.GOAWAY, 0, struct.pack(">II", last_stream, 0))

    @staticmethod
    def window_update(stream: int, size: int) -> bytes:
        """So many bytes were read; stream 0 is the session."""
        return _control(Kind.WINDOW_UPDATE, 0, struct.pack(">II", stream, size))

    def _block(self, headers: Mapping[str, str]) -> bytes:
        raw = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for part in (name.lower(), value):
                raw += struct.pack(">I", len(part.encode())) + part.encode()
        return self._deflate.compress(raw) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack(">HHI", 0x8000 | _VERSION, kind, flags << 24 | len(body)) + body
