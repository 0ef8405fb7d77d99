"""The access logs that become flows, in JSON form: what is logged, when, and to whom. `request_log` has the lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mycel.envoy.request_log import TLS, Decider, log_format, tls_log_format

Json = Mapping[str, Any]
Shown = tuple[str, ...] | None
"""Headers whose values flows show, beside the usual ones; None: there are no flows."""

AGENT_CLUSTER = "agent"  # static in the bootstrap
_LOGGED_BYTES = 262_144  # of lines in one message: what a message costs the agent is shared by that many
_TYPE = "type.googleapis.com/envoy.extensions."

LOG_TUNNELS: Json = {"flush_log_on_tunnel_successfully_established": True}
"""A connection manager's `access_log_options`: a WebSocket is logged when a server accepts it, not when it ends."""
_SWITCHED = 101


def _code_filter(op: str) -> Json:
    value = {"default_value": _SWITCHED, "runtime_key": "none"}
    return {"status_code_filter": {"comparison": {"op": op, "value": value}}}


def _tunnel_filter(*, exclude: bool) -> Json:
    return {"log_type_filter": {"types": ["DownstreamTunnelSuccessfullyEstablished"], "exclude": exclude}}


def _all_filter(*filters: Json) -> Json:
    return {"and_filter": {"filters": filters}}


_WHEN_ANSWERED = _all_filter(_code_filter("NE"), _tunnel_filter(exclude=True))
_WHEN_ACCEPTED = _all_filter(_code_filter("EQ"), _tunnel_filter(exclude=False))
_ONCE: Json = {"or_filter": {"filters": [_WHEN_ANSWERED, _WHEN_ACCEPTED]}}


def access_logs(shown: Shown, decider: Decider) -> list[Json]:
    """The access log that becomes flows: one line per request, to the agent; none where nobody keeps flows.

    It is the same for all listeners that decide alike, whose names are in the lines (a policy's filter chains are
    called as it is): Envoy has one buffer and sends one message for all that have the same, and keeps them for good.
    """
    return [] if shown is None else [{**_access_log(log_format(shown, decider)), "filter": _ONCE}]


def tls_logs(shown: Shown, *, denied: bool, protocol: str = TLS) -> list[Json]:
    """The same for connections with TLS: one line when it is known where they go, or that they go nowhere."""
    if shown is None:
        return []
    when = {"types": ["TcpConnectionEnd" if denied else "TcpUpstreamConnected"]}
    return [{**_access_log(tls_log_format(denied=denied, protocol=protocol)), "filter": {"log_type_filter": when}}]


def _access_log(line: str) -> Json:
    return {
        "name": "agent",
        "typed_config": {
            "@type": f"{_TYPE}access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
            "common_config": {
                "log_name": "requests",
                "transport_api_version": "V3",
                "buffer_flush_interval": "0.2s",
                "buffer_size_bytes": _LOGGED_BYTES,
                "grpc_service": {"envoy_grpc": {"cluster_name": AGENT_CLUSTER}},
            },
            "disable_builtin_labels": True,
            "body": {"string_value": line},
        },
    }
