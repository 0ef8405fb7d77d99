"""DNS messages without sockets (RFC 1035, 2782, 3596, 6891): bytes to values and back.

Names are text with a final dot; bytes that text cannot show are escaped as in zone files (`\\.`, `\\032`). Record data
stays bytes in uncompressed form, with helpers for the types we make or look into. Whatever a peer sends, `parse`
either returns a message or raises `DnsFormatError`: compression loops and lies about lengths included.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from dataclasses import dataclass, replace
from typing import NamedTuple

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

UDP_PLAIN_SIZE = 512  # RFC 1035, 4.2.1: without EDNS a UDP answer has no more
UDP_EDNS_SIZE = 1232  # what fits every path without fragments (DNS flag day 2020)
MAX_SIZE = 65535
_MAX_NAME = 255
_MAX_LABEL = 63
_MAX_RECORDS = 4096
_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")


class Type(enum.IntEnum):
    """Record types that mean something to us; others are plain numbers."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    HINFO = 13
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    AXFR = 252
    ANY = 255


class Class(enum.IntEnum):
    """Record classes."""

    IN = 1
    CH = 3
    ANY = 255


class RCode(enum.IntEnum):
    """Response codes."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Flag(enum.IntFlag):
    """Header bits besides opcode and rcode."""

    QR = 0x8000
    AA = 0x0400
    TC = 0x0200
    RD = 0x0100
    RA = 0x0080
    AD = 0x0020
    CD = 0x0010


_NO_FLAGS = Flag(0)


class DnsFormatError(ValueError):
    """The bytes are no DNS message, or the name cannot be one."""


class Question(NamedTuple):
    """What is asked."""

    name: str
    type: int
    cls: int = Class.IN


class Record(NamedTuple):
    """One resource record; `data` is its wire form without compression."""

    name: str
    type: int
    ttl: int
    data: bytes
    cls: int = Class.IN

    def address(self) -> IPAddress | None:
        """The address of an A or AAAA record."""
        if self.type == Type.A and len(self.data) == 4:
            return ipaddress.IPv4Address(self.data)
        if self.type == Type.AAAA and len(self.data) == 16:
            return ipaddress.IPv6Address(self.data)
        return None

    def target(self) -> str | None:
        """The name a CNAME, NS, PTR, MX or SRV record points at."""
        start = _NAME_AT.get(self.type)
        if start is None or self.type == Type.SOA:
            return None
        return _read_name(self.data, start)[0]


class Edns(NamedTuple):
    """The OPT pseudo-record (RFC 6891)."""

    payload_size: int = UDP_EDNS_SIZE
    do: bool = False
    version: int = 0
    options: bytes = b""


@dataclass(frozen=True, slots=True)
class Message:
    """A query or a response."""

    id: int
    flags: Flag = _NO_FLAGS
    opcode: int = 0
    rcode: int = RCode.NOERROR
    questions: tuple[Question, ...] = ()
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    edns: Edns | None = None

    @property
    def is_response(self) -> bool:
        """The QR bit."""
        return bool(self.flags & Flag.QR)

    def reply(self, rcode: int = RCode.NOERROR, *, authoritative: bool = False) -> Message:
        """An empty response to this query."""
        flags = Flag.QR | (self.flags & (Flag.RD | Flag.CD)) | (Flag.AA if authoritative else _NO_FLAGS)
        edns = None if self.edns is None else Edns(UDP_EDNS_SIZE, self.edns.do)
        return Message(self.id, flags, self.opcode, rcode, self.questions, edns=edns)

    def udp_limit(self) -> int:
        """The biggest UDP answer the sender of this query takes."""
        if self.edns is None:
            return UDP_PLAIN_SIZE
        return max(UDP_PLAIN_SIZE, min(self.edns.payload_size, UDP_EDNS_SIZE))

    def smallest_ttl(self) -> int | None:
        """The shortest life of all records, in seconds."""
        return min((one.ttl for one in (*self.answers, *self.authority, *self.additional)), default=None)


# Where in the data of these types a name begins; SOA has two from there on.
_NAME_AT: dict[int, int] = {Type.CNAME: 0, Type.NS: 0, Type.PTR: 0, Type.MX: 2, Type.SRV: 6, Type.SOA: 0}


def parse(data: bytes | bytearray | memoryview) -> Message:
    """Read one message; bytes after it are ignored. Raises DnsFormatError."""
    wire = bytes(data)
    if len(wire) < _HEADER.size:
        raise DnsFormatError(f"{len(wire)} bytes are too short for a header")
    ident, bits, *counts = _HEADER.unpack_from(wire)
    if sum(counts) > _MAX_RECORDS:
        raise DnsFormatError(f"{sum(counts)} records are more than {_MAX_RECORDS}")
    at = _HEADER.size
    questions: list[Question] = []
    for _ in range(counts[0]):
        name, at = _read_name(wire, at)
        questions.append(Question(name, *_unpack(_QUESTION, wire, at)))
        at += _QUESTION.size
    sections: list[tuple[Record, ...]] = []
    edns: Edns | None = None
    rcode = bits & 0xF
    for count in counts[1:]:
        records: list[Record] = []
        for _ in range(count):
            record, at = _read_record(wire, at)
            if record.type != Type.OPT:
                records.append(record)
                continue
            if edns is not None or record.name != ".":
                raise DnsFormatError("more than one OPT record, or one with an owner name")
            edns = Edns(record.cls, bool(record.ttl & 0x8000), record.ttl >> 16 & 0xFF, record.data)
            rcode |= record.ttl >> 24 << 4
        sections.append(tuple(records))
    flags, opcode = Flag(bits & 0x87B0), bits >> 11 & 0xF
    return Message(ident, flags, opcode, rcode, tuple(questions), sections[0], sections[1], sections[2], edns)


def serialize(message: Message, limit: int = MAX_SIZE) -> bytes:
    """Write a message with compressed names.

    Beyond `limit` bytes the additional records go first; if that is not enough the TC bit is set (RFC 2181, 9) and the
    answer section stays empty, so that nobody caches a part of it.
    """
    wire = _write(message)
    if len(wire) <= limit:
        return wire
    wire = _write(replace(message, additional=()))
    if len(wire) <= limit:
        return wire
    short = replace(message, answers=(), authority=(), additional=(), flags=message.flags | Flag.TC)
    return _write(short)


def _write(message: Message) -> bytes:
    edns = message.edns
    bits = int(message.flags) | (message.opcode & 0xF) << 11 | message.rcode & 0xF
    out = bytearray(
        _HEADER.pack(
            message.id,
            bits,
            len(message.questions),
            len(message.answers),
            len(message.authority),
            len(message.additional) + (edns is not None),
        )
    )
    seen: dict[str, int] = {}
    for question in message.questions:
        _write_name(out, question.name, seen)
        out += _QUESTION.pack(question.type, question.cls)
    for section in (message.answers, message.authority, message.additional):
        for record in section:
            _write_name(out, record.name, seen)
            out += _RECORD.pack(record.type, record.cls, record.ttl, len(record.data))
            out += record.data
    if edns is not None:
        ttl = (message.rcode >> 4) << 24 | edns.version << 16 | (0x8000 if edns.do else 0)
        out += b"\0" + _RECORD.pack(Type.OPT, edns.payload_size, ttl, len(edns.options)) + edns.options
    return bytes(out)


def _unpack(layout: struct.Struct, wire: bytes, at: int) -> tuple[int, ...]:
    if at + layout.size > len(wire):
        raise DnsFormatError(f"the message ends at byte {len(wire)}, in the middle of a record")
    return layout.unpack_from(wire, at)


def _read_record(wire: bytes, at: int) -> tuple[Record, int]:
    name, at = _read_name(wire, at)
    kind, cls, ttl, length = _unpack(_RECORD, wire, at)
    at += _RECORD.size
    end = at + length
    if end > len(wire):
        raise DnsFormatError(f"record data of {length} bytes goes beyond the message")
    if kind != Type.OPT and ttl > 0x7FFFFFFF:
        ttl = 0  # RFC 2181, 8
    return Record(name, kind, ttl, _expand(wire, at, end, kind), cls), end


def _expand(wire: bytes, at: int, end: int, kind: int) -> bytes:
    """Record data with its names written out."""
    start = _NAME_AT.get(kind)
    if start is None:
        if (kind == Type.A and end - at != 4) or (kind == Type.AAAA and end - at != 16):
            raise DnsFormatError(f"address record with {end - at} bytes")
        return wire[at:end]
    out = bytearray(wire[at : at + start])
    here = at + start
    for _ in range(2 if kind == Type.SOA else 1):
        name, here = _read_name(wire, here, end)
        _write_name(out, name, None)
    tail = wire[here:end]
    if here > end or len(tail) != (20 if kind == Type.SOA else 0) or len(out) < start:
        raise DnsFormatError(f"record data of type {kind} has the wrong length")
    return bytes(out + tail)


def _read_name(wire: bytes, at: int, end: int | None = None) -> tuple[str, int]:
    """The name at `at` and where it ends. Pointers must lead backwards, so they cannot loop."""
    stop = len(wire) if end is None else end
    labels: list[str] = []
    size = 1
    after: int | None = None
    here, lowest = at, at
    while True:
        if here >= stop:
            raise DnsFormatError("a name goes beyond its message")
        length = wire[here]
        if length == 0:
            return ".".join([*labels, ""]) if labels else ".", here + 1 if after is None else after
        if length >= 0xC0:
            if here + 1 >= stop:
                raise DnsFormatError("a name ends in half a pointer")
            target = (length & 0x3F) << 8 | wire[here + 1]
            if after is None:
                after = here + 2
            if not _HEADER.size <= target < lowest:
                raise DnsFormatError("a compression pointer does not lead backwards to a name")
            here, lowest, stop = target, target, len(wire)
            continue
        if length > _MAX_LABEL:
            raise DnsFormatError(f"label type {length >> 6} is not known")
        size += length + 1
        if size > _MAX_NAME:
            raise DnsFormatError(f"a name is longer than {_MAX_NAME} bytes")
        label = wire[here + 1 : here + 1 + length]
        if here + 1 + length > stop:
            raise DnsFormatError("a label goes beyond its message")
        labels.append(_label_text(label))
        here += 1 + length


def _label_text(label: bytes) -> str:
    if label.isalnum():
        return label.decode("ascii")
    return "".join(
        f"\\{chr(byte)}" if byte in b".\\" else chr(byte) if 0x20 < byte < 0x7F else f"\\{byte:03d}" for byte in label
    )


def name_labels(name: str) -> tuple[bytes, ...]:
    """The labels of a name in text form, escapes undone. Raises DnsFormatError."""
    if name in (".", ""):
        return ()
    if "\\" not in name:
        try:
            found = tuple(name.rstrip(".").encode("ascii").split(b"."))
        except UnicodeEncodeError as exc:
            raise DnsFormatError(f"name {name!r} is not ASCII") from exc
    else:
        found = _unescape(name)
    if any(not 0 < len(label) <= _MAX_LABEL for label in found):
        raise DnsFormatError(f"name {name!r} has an empty label or one longer than {_MAX_LABEL} bytes")
    if sum(len(label) + 1 for label in found) + 1 > _MAX_NAME:
        raise DnsFormatError(f"name {name!r} is longer than {_MAX_NAME} bytes")
    return found


def _unescape(name: str) -> tuple[bytes, ...]:
    labels: list[bytearray] = [bytearray()]
    at = 0
    while at < len(name):
        char = name[at]
        at += 1
        if char == ".":
            labels.append(bytearray())
            continue
        if char == "\\":
            code = name[at : at + 3]
            if len(code) == 3 and code.isdecimal() and int(code) < 256:
                labels[-1].append(int(code))
                at += 3
                continue
            if at >= len(name):
                raise DnsFormatError(f"name {name!r} ends in an escape")
            char = name[at]
            at += 1
        if ord(char) > 0x7F:
            raise DnsFormatError(f"name {name!r} is not ASCII")
        labels[-1].append(ord(char))
    if not labels[-1]:
        labels.pop()
    return tuple(map(bytes, labels))


def _write_name(out: bytearray, name: str, seen: dict[str, int] | None) -> None:
    """Append a name; with `seen` its known endings become pointers (same letters only: 0x20 survives)."""
    labels = name_labels(name)
    rest = name if name.endswith(".") else name + "."
    plain = "\\" not in rest
    for label in labels:
        if seen is not None and plain:
            known = seen.get(rest)
            if known is not None:
                out += (0xC000 | known).to_bytes(2)
                return
            if len(out) < 0x4000:
                seen[rest] = len(out)
            rest = rest.partition(".")[2]
        out.append(len(label))
        out += label
    out.append(0)


def name_wire(name: str) -> bytes:
    """A name's uncompressed bytes. Raises DnsFormatError."""
    out = bytearray()
    _write_name(out, name, None)
    return bytes(out)
