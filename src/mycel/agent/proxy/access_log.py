"""Envoy's log of requests → records of layer 7: a request, and its answer unless a rule denied it.

A message is counted when it comes and read when somebody wants its flows.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import msgspec
from google.protobuf.empty_pb2 import Empty
from grpclib.const import Cardinality, Handler

from mycel.agent.proxy import otlp
from mycel.agent.proxy.records import Records
from mycel.envoy.request_log import NO_TLS, TLS, Line, Outcome, head_of, is_line, read_line, read_outcome
from mycel.flow.l7 import End, Half, Http, L7Record, L7Verdict, Tls
from mycel.flow.redact import USUAL, Redaction

_INGRESS = b"policy/ingress/"
_TLS, _NO_TLS = TLS.encode(), NO_TLS.encode()


class AccessLogs:
    """The service Envoy's listeners write to."""

    def __init__(self, records: Records, redaction: Redaction) -> None:
        self._records = records
        self._redaction = redaction

    def __mapping__(self) -> dict[str, Handler]:
        """What grpclib serves."""
        return {otlp.EXPORT: Handler(self._serve, Cardinality.UNARY_UNARY, AsItIs, Empty)}

    async def _serve(self, stream: Any) -> None:
        data = await stream.recv_message()
        await stream.send_message(Empty())
        try:
            self._records.add_sheet(LogSheet(data, self._redaction, self._records.refuse))
        except ValueError as exc:
            self._records.refuse(str(exc))


class AsItIs:
    """A message for grpclib that stays bytes."""

    FromString = bytes


class LogSheet:
    """One message of Envoy's log (`flow.l7.Sheet`). Raises ValueError for bytes that are none.

    `refuse` is told of each line that is no record, why.
    """

    __slots__ = ("_data", "_redaction", "_refuse", "dropped", "forwarded")

    def __init__(self, data: bytes, redaction: Redaction, refuse: Callable[[str], None]) -> None:
        self._data = data
        self._redaction = redaction
        self._refuse = refuse
        self.forwarded = self.dropped = 0
        heads = Counter([head_of(record.body.string_value) for record in otlp.records(data)])
        for head, count in heads.items():
            if not is_line(head):
                for _ in range(count):
                    refuse(f"Envoy logs a line of another form: {head!r}")
            elif (outcome := read_outcome(head)) is Outcome.DENIED:
                self.dropped += count
            else:
                self.forwarded += count if outcome is Outcome.UNANSWERED else 2 * count

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._data)

    def records(self) -> list[L7Record]:
        """Read the lines."""
        found: list[L7Record] = []
        for record in otlp.records(self._data):
            if is_line(body := record.body.string_value):
                try:
                    found += records_of(read_line(body), record.time_unix_nano, redaction=self._redaction)
                except ValueError as exc:
                    self._refuse(str(exc))
        return found


def records_of(line: Line, time_ns: int, *, redaction: Redaction) -> list[L7Record]:
    """The records of one request, in the order of time. Raises ValueError for values that are none of a request."""
    latency_ns = int(line.duration_ns or b"0")
    tls = Tls(_text(line.authority), plain=line.protocol == _NO_TLS) if line.protocol in (_TLS, _NO_TLS) else None
    http = (
        None
        if tls is not None
        else Http(
            method=_text(line.method),
            url=redaction.url(_text(line.scheme) or "http", _text(line.authority), _text(line.path)),
            protocol=_text(line.protocol),
            headers=redaction.headers(_request_headers(line, redaction.allow)),
        )
    )
    asked = L7Record(
        time_ns=time_ns,
        half=Half.REQUEST,
        verdict=L7Verdict.DROPPED if line.outcome is Outcome.DENIED else L7Verdict.FORWARDED,
        source=_end(line.client),
        destination=_end(line.server),
        protocol="TCP",
        listener=_port_of(line.listener.partition(b" ")[0]),
        trace_id=trace_id(_text(line.traceparent)),
        ingress=line.listener.startswith(_INGRESS),
        rule=_text(line.rule),
        http=http,
        tls=tls,
    )
    if line.outcome is not Outcome.ANSWERED or http is None:
        return [asked]
    headers = {name: _text(value) for name, value in line.response_headers.items() if name in redaction.allow}
    answered = msgspec.structs.replace(
        asked,
        time_ns=time_ns + latency_ns,
        half=Half.RESPONSE,
        latency_ns=latency_ns,
        http=msgspec.structs.replace(http, code=int(line.code), headers=redaction.headers(headers)),
    )
    return [asked, answered]


def _request_headers(line: Line, allowed: Collection[str]) -> dict[str, str]:
    usual = zip(USUAL, (line.user_agent, line.request_id), strict=True)
    asked = ((name, value) for name, value in line.request_headers.items() if name in allowed)
    return {name: _text(value) for name, value in (*usual, *asked) if value}


def trace_id(traceparent: str) -> str:
    """The trace's id of a `traceparent` header (W3C Trace Context 3.2), empty when it is none."""
    parts = traceparent.strip().split("-")
    if len(parts) < 4 or len(parts[1]) != 32 or not all(each in "0123456789abcdef" for each in parts[1]):
        return ""
    return parts[1] if parts[1].strip("0") else ""


@functools.lru_cache(maxsize=8192)  # many requests of a few connections
def _end(text: bytes) -> End:
    """Of `10.0.0.1:80` or `[fd00::1]:80`. Raises ValueError."""
    address, _, port = text.decode().rpartition(":")
    return End(address.strip("[]"), int(port))


@functools.lru_cache(maxsize=1024)
def _port_of(listener: bytes) -> int:
    return int(listener.rpartition(b"/")[2] or 0)


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
