"""Envoy's log of requests → records of layer 7: a request, and its answer unless a rule denied it.

A message is counted when it comes and read when somebody wants its flows.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import msgspec
from google.protobuf.message import DecodeError, Message
from grpclib.const import Cardinality, Handler

from mycel.agent.proxy.records import Records
from mycel.envoy.messages import message_class, narrowed
from mycel.flow.l7 import End, Half, Http, L7Record, L7Verdict
from mycel.flow.redact import USUAL, Redaction

_METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
_MESSAGE = "envoy.service.accesslog.v3.StreamAccessLogsMessage"
_RESPONSE = "envoy.service.accesslog.v3.StreamAccessLogsResponse"
_PROTOCOLS = {1: "HTTP/1.0", 2: "HTTP/1.1", 3: "HTTP/2", 4: "HTTP/3"}
_DENIED = "rbac_access_denied"
_INGRESS = "policy/ingress/"
_RBAC, _EFFECTIVE = "envoy.filters.http.rbac", "enforced_effective_policy_id"


class AccessLogs:
    """The service Envoy's listeners write to."""

    def __init__(self, records: Records, redaction: Redaction) -> None:
        self._records = records
        self._redaction = redaction

    def __mapping__(self) -> dict[str, Handler]:
        """What grpclib serves."""
        response = message_class(_RESPONSE)
        return {_METHOD: Handler(self._serve, Cardinality.STREAM_UNARY, _AsItIs, response)}

    async def _serve(self, stream: Any) -> None:
        name = ""
        while (data := await stream.recv_message()) is not None:
            try:
                counts = _counts_of(data)
            except ValueError as exc:
                self._records.refuse(str(exc))
                continue
            name = counts.log_name or name  # only a stream's first message says it
            self._records.add_sheet(LogSheet(data, counts, log_name=name, redaction=self._redaction))


class _AsItIs:
    """A message for grpclib that stays bytes."""

    FromString = bytes


class _Counts(NamedTuple):
    """What is looked at when a message comes."""

    log_name: str
    forwarded: int
    dropped: int


def _counts_of(data: bytes) -> _Counts:
    """Raises ValueError for bytes that are no message of the log."""
    try:
        message: Any = _glance().FromString(data)
    except DecodeError as exc:
        raise ValueError(f"{len(data)} bytes are no message of Envoy's log: {exc}") from exc
    forwarded = dropped = 0
    for entry in message.http_logs.log_entry:
        response = entry.response
        if response.response_code_details.startswith(_DENIED):
            dropped += 1
        else:
            forwarded += 2 if response.response_code.value else 1
    return _Counts(message.identifier.log_name, forwarded, dropped)


@functools.cache
def _glance() -> type[Message]:
    """StreamAccessLogsMessage with nothing in it but what `_counts_of` looks at: 20 times as fast to read."""
    return narrowed(
        _MESSAGE,
        "identifier.log_name",
        "http_logs.log_entry.response.response_code.value",
        "http_logs.log_entry.response.response_code_details",
    )


class LogSheet:
    """One message of Envoy's log (`flow.l7.Sheet`)."""

    __slots__ = ("_counts", "_data", "_log_name", "_redaction")

    def __init__(self, data: bytes, counts: _Counts, *, log_name: str, redaction: Redaction) -> None:
        self._data = data
        self._counts = counts
        self._log_name = log_name
        self._redaction = redaction

    @property
    def forwarded(self) -> int:
        """Records of requests that were let through, and of their answers."""
        return self._counts.forwarded

    @property
    def dropped(self) -> int:
        """Records of requests that were denied."""
        return self._counts.dropped

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._data)

    def records(self) -> list[L7Record]:
        """Read the message. Raises ValueError."""
        message: Any = message_class(_MESSAGE).FromString(self._data)
        return [
            record
            for entry in message.http_logs.log_entry
            for record in records_of(entry, log_name=self._log_name, redaction=self._redaction)
        ]


def records_of(entry: Any, *, log_name: str, redaction: Redaction) -> list[L7Record]:
    """The records of one HTTPAccessLogEntry, in the order of time."""
    common, request, response = entry.common_properties, entry.request, entry.response
    client, server = _end(common.downstream_remote_address), _end(common.downstream_local_address)
    if client is None or server is None:
        return []
    denied = response.response_code_details.startswith(_DENIED)
    began_ns = common.start_time.ToNanoseconds()
    latency_ns = max(0, common.time_to_last_downstream_tx_byte.ToNanoseconds())
    http = Http(
        method=_methods()[request.request_method],
        url=redaction.url(request.scheme or "http", request.authority, request.original_path or request.path),
        protocol=_PROTOCOLS.get(entry.protocol_version, "HTTP/1.1"),
        headers=redaction.headers(_request_headers(request, redaction.asked)),
    )
    asked = L7Record(
        time_ns=began_ns,
        half=Half.REQUEST,
        verdict=L7Verdict.DROPPED if denied else L7Verdict.FORWARDED,
        source=client,
        destination=server,
        protocol="TCP",
        listener=_port_of(log_name),
        trace_id=trace_id(request.request_headers.get("traceparent", "")),
        ingress=log_name.startswith(_INGRESS),
        rule=_rule(common.metadata),
        http=http,
    )
    if denied:
        return [asked]
    code = response.response_code.value
    headers = redaction.headers({name: response.response_headers[name] for name in response.response_headers})
    answered = msgspec.structs.replace(
        asked,
        time_ns=began_ns + latency_ns,
        half=Half.RESPONSE,
        latency_ns=latency_ns,
        http=msgspec.structs.replace(http, code=code, headers=headers),
    )
    return [asked, answered] if code else [asked]


@functools.cache
def _methods() -> dict[int, str]:
    """Envoy's numbers of methods: `GET`."""
    request = message_class("envoy.data.accesslog.v3.HTTPRequestProperties")
    kind: Any = request.DESCRIPTOR.fields_by_name["request_method"].enum_type
    return {number: each.name for number, each in kind.values_by_number.items()}


def _request_headers(request: Any, asked: tuple[str, ...]) -> dict[str, str]:
    usual = zip(USUAL, (request.user_agent, request.request_id), strict=True)
    logged = request.request_headers
    return {name: value for name, value in usual if value} | {name: logged[name] for name in asked if name in logged}


def trace_id(traceparent: str) -> str:
    """The trace's id of a `traceparent` header (W3C Trace Context 3.2), empty when it is none."""
    parts = traceparent.strip().split("-")
    if len(parts) < 4 or len(parts[1]) != 32 or not all(each in "0123456789abcdef" for each in parts[1]):
        return ""
    return parts[1] if parts[1].strip("0") else ""


def _rule(metadata: Any) -> str:
    """What the listener's rules call the one that let the request through: `section/rule`."""
    return metadata.filter_metadata[_RBAC].fields[_EFFECTIVE].string_value


def _end(address: Any) -> End | None:
    found = address.socket_address
    return End(found.address, found.port_value) if found.address else None


def _port_of(log_name: str) -> int:
    last = log_name.rpartition("/")[2]
    return int(last) if log_name.startswith("policy/") and last.isdecimal() else 0
