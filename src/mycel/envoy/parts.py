"""What every listener and cluster of the node's Envoy has, whoever asked for it (docs/l7.md), in JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mycel.abi import ProxyMark
from mycel.model.proxy import LISTEN_IPV4, UPSTREAM_PORTS

Json = Mapping[str, Any]

_TYPE = "type.googleapis.com/envoy.extensions."
_SOL_SOCKET, _SO_KEEPALIVE, _SO_MARK = 1, 9, 36
_SOL_IP, _IP_LOCAL_PORT_RANGE = 0, 51
_SOL_TCP, _TCP_KEEPIDLE, _TCP_KEEPINTVL, _TCP_KEEPCNT = 6, 4, 5, 6
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_PROBES = 60, 10, 3
UPSTREAM_KEEPALIVE: Json = {
    "keepalive_time": _KEEPALIVE_IDLE_S,
    "keepalive_interval": _KEEPALIVE_INTERVAL_S,
    "keepalive_probes": _KEEPALIVE_PROBES,
}
"""No timer of HTTP ends a connection that has a request: ends that have gone without a word are found by this."""
ADS: Json = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
CERTIFICATE_ADS: Json = ADS | {"initial_fetch_timeout": "1s"}
"""What waits for a certificate does so no longer: without it the connections it is for are closed, others are not."""


SERVERS_MAY_BEGIN: Json = {"listener_filters_timeout": "1s", "continue_on_listener_filters_timeout": True}
"""A listener that tells what is spoken by its first bytes lets go on who has said nothing by then."""


def tcp_proxy(cluster: str, *, stat_prefix: str, **fields: Any) -> dict[str, Any]:
    """The filter that passes bytes on, as long as both ends like."""
    kind = f"{_TYPE}filters.network.tcp_proxy.v3.TcpProxy"
    config = {"@type": kind, "stat_prefix": stat_prefix, "cluster": cluster, "idle_timeout": "0s", **fields}
    return {"name": "tcp", "typed_config": config}


def listener_fields(port: int, mark: int | None) -> Json:
    """Where a listener is, and the two filters that keep the client's address on both of its sides.

    `mark` of what leaves in the client's name; None: what leaves has the address its cluster says.
    """
    client: list[Json] = [] if mark is None else [_client_filter(mark)]
    return {
        "address": {"socket_address": {"address": LISTEN_IPV4, "port_value": port}},
        "transparent": True,
        "socket_options": [_option(_SOL_SOCKET, _SO_MARK, ProxyMark.DOWNSTREAM, "SO_MARK 0xa00"), *_keepalive()],
        "listener_filters": [
            {"name": "original_dst", "typed_config": {"@type": f"{_TYPE}filters.listener.original_dst.v3.OriginalDst"}},
            *client,
        ],
    }


def _keepalive() -> list[Json]:
    """See UPSTREAM_KEEPALIVE; what a listener accepts has it from there."""
    return [
        _option(_SOL_SOCKET, _SO_KEEPALIVE, 1, "SO_KEEPALIVE"),
        _option(_SOL_TCP, _TCP_KEEPIDLE, _KEEPALIVE_IDLE_S, "TCP_KEEPIDLE"),
        _option(_SOL_TCP, _TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S, "TCP_KEEPINTVL"),
        _option(_SOL_TCP, _TCP_KEEPCNT, _KEEPALIVE_PROBES, "TCP_KEEPCNT"),
    ]


def _client_filter(mark: int) -> Json:
    source = f"{_TYPE}filters.listener.original_src.v3.OriginalSrc"
    return {"name": "original_src", "typed_config": {"@type": source, "mark": mark}}


def upstream_bind(source: str = "") -> Json:
    """A cluster's `upstream_bind_config`: its sockets' own ports stay away from pods' and NodePorts.

    `source`: the address to dial from, as what nobody has judged yet; empty: the client's, with its listener's mark.
    """
    first, last = UPSTREAM_PORTS
    text = f"IP_LOCAL_PORT_RANGE {first}-{last}"
    ports = _option(_SOL_IP, _IP_LOCAL_PORT_RANGE, last << 16 | first, text)
    if not source:
        return {"socket_options": [ports]}
    mark = _option(_SOL_SOCKET, _SO_MARK, ProxyMark.UPSTREAM_SERVICE, "SO_MARK 0xb00")
    return {"source_address": {"address": source, "port_value": 0}, "socket_options": [ports, mark]}


def router() -> Json:
    """The filter at the end of a connection manager's.

    It keeps no statistics by response code: Envoy would look their names up for every request, to find that the
    bootstrap's `stats_config` has none of them.
    """
    fields = {"@type": f"{_TYPE}filters.http.router.v3.Router", "suppress_envoy_headers": True, "dynamic_stats": False}
    return {"name": "router", "typed_config": fields}


def _option(level: int, name: int, value: int, description: str) -> Json:
    return {
        "level": level,
        "name": name,
        "int_value": value,
        "state": "STATE_PREBIND",
        "description": description,
    }
