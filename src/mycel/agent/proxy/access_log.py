"""Envoy's log of requests → records of layer 7: a request, and its answer unless a rule denied it."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from grpclib.const import Cardinality, Handler

from mycel.agent.proxy.records import Records
from mycel.envoy.messages import message_class
from mycel.flow.l7 import End, Half, Http, L7Record, L7Verdict
from mycel.flow.redact import USUAL, Redaction

_METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
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
        request = message_class("envoy.service.accesslog.v3.StreamAccessLogsMessage")
        response = message_class("envoy.service.accesslog.v3.StreamAccessLogsResponse")
        return {_METHOD: Handler(self._serve, Cardinality.STREAM_UNARY, request, response)}

    async def _serve(self, stream: Any) -> None:
        name = ""
        while (message := await stream.recv_message()) is not None:
            name = message.identifier.log_name or name  # only a stream's first message says it
            for entry in message.http_logs.log_entry:
                self._records.add(*records_of(entry, log_name=name, redaction=self._redaction))


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
