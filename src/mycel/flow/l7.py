"""What a proxy saw: one HTTP or DNS message. Proxies send these as JSON datagrams; they become flows here.

Fields a message does not have are empty. Names end in a dot; latencies are nanoseconds.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class Half(Enum):
    """Which half of an exchange."""

    REQUEST = "request"
    RESPONSE = "response"


class L7Verdict(Enum):
    """What the proxy did with it."""

    FORWARDED = "forwarded"
    DROPPED = "dropped"
    ERROR = "error"


class End(msgspec.Struct, frozen=True):
    """One end of the leg the message came by."""

    address: str
    port: int


class Http(msgspec.Struct, frozen=True, omit_defaults=True):
    """`code` 0: a request. `headers` are those that may be shown, as (name, value)."""

    method: str = ""
    url: str = ""
    protocol: str = ""  # HTTP/1.1
    code: int = 0
    headers: tuple[tuple[str, str], ...] = ()


class Dns(msgspec.Struct, frozen=True, omit_defaults=True):
    """A question and, in a response, what was answered."""

    query: str  # with a final dot
    qtypes: tuple[str, ...] = ()  # A, AAAA, TYPE65
    rcode: int = 0
    ips: tuple[str, ...] = ()
    ttl: int = 0  # the shortest of the answer, seconds
    cnames: tuple[str, ...] = ()
    rrtypes: tuple[str, ...] = ()  # of the answer's records


class L7Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message. `source` is who sent the request, in both halves; the flow of a response is turned around."""

    time_ns: int  # since 1970
    half: Half
    verdict: L7Verdict
    source: End
    destination: End
    protocol: str  # TCP or UDP
    listener: int  # the proxy's port
    latency_ns: int = 0  # of a response
    trace_id: str = ""
    ingress: bool = False  # the server's rules were asked, not the client's
    http: Http | None = None
    dns: Dns | None = None


_DECODER = msgspec.json.Decoder(L7Record)
_ENCODER = msgspec.json.Encoder()
RECORD_LIMIT = 65_536
"""Bytes of one datagram; what is longer was not made by a proxy of ours."""


def encode(record: L7Record) -> bytes:
    """As a datagram."""
    return _ENCODER.encode(record)


def decode(datagram: bytes) -> L7Record:
    """Raises ValueError for bytes that are no record."""
    if len(datagram) > RECORD_LIMIT:
        raise ValueError(f"{len(datagram)} bytes are more than a record has ({RECORD_LIMIT})")
    record = _DECODER.decode(datagram)
    if (record.http is None) == (record.dns is None):
        raise ValueError("a record is of HTTP or of DNS")
    return record
