"""What a proxy saw: one HTTP or DNS message, or the begin of a connection with TLS. They become flows here.

The DNS proxy sends them as JSON datagrams, a record a line.

Fields a message does not have are empty. Names end in a dot; latencies are nanoseconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Protocol

import msgspec

# What a flow has room for (api/flow.proto): a record beyond it is refused when it is read, not when it is shown.
Port = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Count = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Half(StrEnum):
    """Which half of an exchange."""

    REQUEST = "request"
    RESPONSE = "response"


class L7Verdict(StrEnum):
    """What the proxy did with it."""

    FORWARDED = "forwarded"
    DROPPED = "dropped"
    ERROR = "error"


class End(msgspec.Struct, frozen=True):
    """One end of the leg the message came by."""

    address: str
    port: Port


class Http(msgspec.Struct, frozen=True, omit_defaults=True):
    """`code` 0: a request. `headers` are those that may be shown, as (name, value)."""

    method: str = ""
    url: str = ""
    protocol: str = ""  # HTTP/1.1
    code: Count = 0
    headers: tuple[tuple[str, str], ...] = ()


class Dns(msgspec.Struct, frozen=True, omit_defaults=True):
    """A question and, in a response, what was answered."""

    query: str  # with a final dot
    qtypes: tuple[str, ...] = ()  # A, AAAA, TYPE65
    rcode: Count = 0
    ips: tuple[str, ...] = ()
    ttl: Count = 0  # the shortest of the answer, seconds
    cnames: tuple[str, ...] = ()
    rrtypes: tuple[str, ...] = ()  # of the answer's records


class Tls(msgspec.Struct, frozen=True, omit_defaults=True):
    """A connection that began with TLS, or (`plain`) was to and did not."""

    server_name: str = ""  # that its client asked for
    plain: bool = False


class L7Record(msgspec.Struct, frozen=True, omit_defaults=True, tag="message"):
    """One message. `source` is who sent the request, in both halves; the flow of a response is turned around."""

    time_ns: Nanoseconds  # since 1970
    half: Half
    verdict: L7Verdict
    source: End
    destination: End
    protocol: str  # TCP or UDP
    listener: Port  # the proxy's port
    latency_ns: Nanoseconds = 0  # of a response
    trace_id: str = ""
    ingress: bool = False  # the server's rules were asked, not the client's
    rule: str = ""  # which of the listener's rules let it through, as the proxy calls it
    http: Http | None = None
    dns: Dns | None = None
    tls: Tls | None = None
    asked: bool = False  # a response that stands for its request as well, which was forwarded `latency_ns` before


class Sheet(Protocol):
    """A piece of a proxy's log that is read when somebody looks at its flows. What it costs till then is counting."""

    @property
    def forwarded(self) -> int:
        """Records of requests that were let through, and of their answers."""
        ...

    @property
    def dropped(self) -> int:
        """Records of requests that were denied."""
        ...

    @property
    def size(self) -> int:
        """Bytes it takes."""
        ...

    def records(self) -> list[L7Record]:
        """Read it: as many records as were counted, or fewer when some are unusable."""
        ...


class Loss(msgspec.Struct, frozen=True, tag="loss"):
    """Records that their proxy could not send, since it last said so."""

    count: Count


_DECODER = msgspec.json.Decoder(L7Record | Loss)
_ENCODER = msgspec.json.Encoder()
RECORD_LIMIT = 32_768
"""Bytes of one record, and of a datagram of them, one a line; what is longer was not made by a proxy of ours."""
TEXT_LIMIT = 2_048
"""Letters of a URL or of a header's value; the rest is left out."""
CUT = "…"
_BESIDES = 400  # bytes of a record without its texts, roughly


def encode(record: L7Record | Loss) -> bytes:
    """As a line of a datagram, without its end."""
    return _ENCODER.encode(record)


def decode(line: bytes) -> L7Record | Loss:
    """Raises ValueError for bytes that are neither."""
    if len(line) > RECORD_LIMIT:
        raise ValueError(f"{len(line)} bytes are more than a record has ({RECORD_LIMIT})")
    record = _DECODER.decode(line)
    if isinstance(record, L7Record) and [record.http, record.dns, record.tls].count(None) != 2:
        raise ValueError("a record is of HTTP, of DNS or of TLS")
    return record


def halves(record: L7Record) -> tuple[L7Record, ...]:
    """The messages a record stands for, in the order of time."""
    if not record.asked or record.dns is None:
        return (record,)
    request = msgspec.structs.replace(
        record,
        time_ns=max(0, record.time_ns - record.latency_ns),
        half=Half.REQUEST,
        verdict=L7Verdict.FORWARDED,
        latency_ns=0,
        dns=Dns(record.dns.query, record.dns.qtypes),
        asked=False,
    )
    return request, msgspec.structs.replace(record, asked=False)


def shortened(text: str, limit: int = TEXT_LIMIT) -> str:
    """A text of at most `limit` letters; one that is cut ends in CUT."""
    return text if len(text) <= limit else text[: limit - len(CUT)] + CUT


def weight(record: L7Record) -> int:
    """About how many bytes a record takes."""
    if record.http is not None:
        return _BESIDES + len(record.http.url) + sum(len(name) + len(value) for name, value in record.http.headers)
    if record.dns is not None:
        dns = record.dns
        return _BESIDES + len(dns.query) + sum(map(len, (*dns.ips, *dns.cnames, *dns.rrtypes)))
    return _BESIDES
