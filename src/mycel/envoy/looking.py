"""A listener that only looks: for connections of which an annotation wants to see the requests (docs/l7.md). Pure.

Nobody asked for rules here, so requests go on as they came, and what is no HTTP/1.1 or HTTP/2 goes on unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mycel.envoy.logs import LOG_TUNNELS
from mycel.envoy.parts import SERVERS_MAY_BEGIN, router, tcp_proxy

Json = dict[str, Any]

_TYPE = "type.googleapis.com/envoy.extensions."
_HEADERS_KB, _HEADERS = 8192, 65535


def looking(name: str, cluster: str, logs: Sequence[Any]) -> Json:
    """The fields of a listener beside its address: what it does with connections for `cluster`."""
    seen = {"application_protocols": ["http/1.1", "h2c"]}
    filters = [{"name": "http", "typed_config": _manager(cluster, logs)}]
    return {
        **SERVERS_MAY_BEGIN,
        "filter_chains": [{"name": name, "filter_chain_match": seen, "filters": filters}],
        "default_filter_chain": {"filters": [tcp_proxy(cluster, stat_prefix="look")]},
    }


def tells_http() -> Json:
    """The listener filter that knows HTTP by its first line."""
    kind = f"{_TYPE}filters.listener.http_inspector.v3.HttpInspector"
    return {"name": "http_inspector", "typed_config": {"@type": kind}}


def _manager(cluster: str, logs: Sequence[Any]) -> Json:
    route = {
        "cluster": cluster,
        "timeout": "0s",
        "retry_policy": {"retry_on": "reset-before-request", "num_retries": 1},
    }
    everything = {
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": ""}, "route": route}],
        "request_headers_to_remove": ["x-envoy-external-address"],  # Envoy's own word
    }
    return {
        "@type": f"{_TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "look",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "skip_xff_append": True,
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": False,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "stream_idle_timeout": "0s",
        "max_request_headers_kb": _HEADERS_KB,
        "common_http_protocol_options": {
            "idle_timeout": "0s",
            "max_headers_count": _HEADERS,
            "headers_with_underscores_action": "ALLOW",
        },
        "http_protocol_options": {"accept_http_10": True},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": list(logs),
        "access_log_options": LOG_TUNNELS,
        "http_filters": [router()],
        "route_config": {"name": "all", "virtual_hosts": [everything]},
    }
