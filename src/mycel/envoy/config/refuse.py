"""What users' Envoy resources may not say, as tables.

Nothing in them reaches files, the node, other objects' resources, or what tells the kernel whose connection it is
(marks, source addresses, ports), and nothing dials without a client. Everything typed is on an allow list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from google.protobuf.message import Message

from mycel.policy.errors import PolicyInvalid
from mycel.policy.expressions import expression_problem

_EXTENSIONS = "envoy.extensions."
_TLS = _EXTENSIONS + "transport_sockets.tls.v3."
_MANAGER = _EXTENSIONS + "filters.network.http_connection_manager.v3."

ALLOWED = frozenset(
    {
        _MANAGER + "HttpConnectionManager",
        _EXTENSIONS + "filters.network.tcp_proxy.v3.TcpProxy",
        _EXTENSIONS + "filters.network.rbac.v3.RBAC",
        _EXTENSIONS + "filters.http.router.v3.Router",
        _EXTENSIONS + "filters.http.rbac.v3.RBAC",
        _EXTENSIONS + "filters.http.rbac.v3.RBACPerRoute",
        _EXTENSIONS + "filters.http.cors.v3.Cors",
        _EXTENSIONS + "filters.http.cors.v3.CorsPolicy",
        _EXTENSIONS + "filters.http.fault.v3.HTTPFault",
        _EXTENSIONS + "filters.http.grpc_stats.v3.FilterConfig",
        _EXTENSIONS + "filters.http.grpc_web.v3.GrpcWeb",
        _EXTENSIONS + "filters.http.header_mutation.v3.HeaderMutation",
        _EXTENSIONS + "filters.http.header_mutation.v3.HeaderMutationPerRoute",
        _EXTENSIONS + "filters.http.local_ratelimit.v3.LocalRateLimit",
        _EXTENSIONS + "filters.listener.original_dst.v3.OriginalDst",
        _EXTENSIONS + "filters.listener.original_src.v3.OriginalSrc",
        _EXTENSIONS + "filters.listener.tls_inspector.v3.TlsInspector",
        _EXTENSIONS + "load_balancing_policies.least_request.v3.LeastRequest",
        _EXTENSIONS + "load_balancing_policies.maglev.v3.Maglev",
        _EXTENSIONS + "load_balancing_policies.random.v3.Random",
        _EXTENSIONS + "load_balancing_policies.ring_hash.v3.RingHash",
        _EXTENSIONS + "load_balancing_policies.round_robin.v3.RoundRobin",
        _EXTENSIONS + "retry.host.previous_hosts.v3.PreviousHostsPredicate",
        _EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions",
        _TLS + "UpstreamTlsContext",
        _TLS + "DownstreamTlsContext",
    }
)
"""Messages that may be packed as `typed_config` and the like."""

_OURS = "is set by the mesh, so that connections keep their client and are judged: leave it out"
_FILES = "would read a file of the node: put the content inline, or name a Secret"
_DISCOVERY = "would ask another server for configuration: everything is in the object"
_ELSEWHERE = "would choose a cluster that is not of this object: name it"

# Whole messages.
_MESSAGES: Mapping[str, str] = {
    "envoy.config.core.v3.Pipe": "is a socket of the node",
    "envoy.config.core.v3.EnvoyInternalAddress": "is a listener inside of Envoy, past the kernel",
    "envoy.config.core.v3.SocketOption": _OURS,
    "envoy.config.core.v3.BindConfig": _OURS,
    "envoy.config.core.v3.WatchedDirectory": _FILES,
    "envoy.config.core.v3.PathConfigSource": _FILES,
    "envoy.config.core.v3.ApiConfigSource": _DISCOVERY,
    "envoy.config.core.v3.ExtensionConfigSource": _DISCOVERY,
    "envoy.config.core.v3.GrpcService": "would send data to a server past the kernel",
    # A shadow has no client: Envoy would dial with the node's address, and the client's policy not be asked.
    "envoy.config.route.v3.RouteAction.RequestMirrorPolicy": "would dial as the node, past the client's policy",
    "envoy.config.core.v3.HttpUri": "would send data to a server past the kernel",
    "envoy.config.accesslog.v3.AccessLog": "is set by the mesh: requests are flows (mycel hubble observe)",
    _TLS + "PrivateKeyProvider": "is not allowed: put the key into a Secret",
    _TLS + "CertificateProviderPluginInstance": "is not allowed: name a Secret",
    _TLS + "TlsKeyLog": "would write keys to a file of the node",
}

# Fields of messages that may not be set.
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "envoy.config.core.v3.DataSource": {"filename": _FILES, "environment_variable": _FILES},
    "envoy.config.core.v3.ConfigSource": {"path": _FILES},
    "envoy.config.listener.v3.FilterChain": {"use_proxy_proto": "would take the client's address from the client"},
    "envoy.config.route.v3.RouteConfiguration": {"vhds": _DISCOVERY, "cluster_specifier_plugins": _ELSEWHERE},
    "envoy.config.route.v3.RouteAction": {
        "cluster_header": _ELSEWHERE,
        "cluster_specifier_plugin": _ELSEWHERE,
        "inline_cluster_specifier_plugin": _ELSEWHERE,
    },
    "envoy.config.route.v3.WeightedCluster.ClusterWeight": {"cluster_header": _ELSEWHERE},
    _EXTENSIONS + "filters.network.tcp_proxy.v3.TcpProxy": {"on_demand": _DISCOVERY},
    _MANAGER + "HttpConnectionManager": {"scoped_routes": "is not served: use rds or route_config"},
    _TLS + "DownstreamTlsContext": {
        "session_ticket_keys_sds_secret_config": "is not served: Envoy makes its own ticket keys"
    },
}

# Messages whose fields are on an allow list: what is not here is not for users.
_ONLY: Mapping[str, frozenset[str]] = {
    "envoy.config.listener.v3.Listener": frozenset(
        {
            "continue_on_listener_filters_timeout",
            "default_filter_chain",
            "filter_chains",
            "listener_filters",
            "listener_filters_timeout",
            "metadata",
            "name",
            "per_connection_buffer_limit_bytes",
            "stat_prefix",
            "traffic_direction",
            "transparent",
        }
    ),
    "envoy.config.cluster.v3.Cluster": frozenset(
        {
            "alt_stat_name",
            "circuit_breakers",
            "cleanup_interval",
            "close_connections_on_host_health_failure",
            "common_http_protocol_options",
            "common_lb_config",
            "connect_timeout",
            "connection_pool_per_downstream_connection",
            "dns_lookup_family",
            "eds_cluster_config",
            "http2_protocol_options",
            "http_protocol_options",
            "ignore_health_on_host_removal",
            "lb_policy",
            "lb_subset_config",
            "least_request_lb_config",
            "load_balancing_policy",
            "maglev_lb_config",
            "max_requests_per_connection",
            "metadata",
            "name",
            "outlier_detection",
            "per_connection_buffer_limit_bytes",
            "protocol_selection",
            "ring_hash_lb_config",
            "round_robin_lb_config",
            "track_cluster_stats",
            "track_timeout_budgets",
            "transport_socket",
            "transport_socket_matches",
            "type",
            "typed_extension_protocol_options",
            "upstream_connection_options",
            "upstream_http_protocol_options",
            "wait_for_warm_on_init",
        }
    ),
}
_HINTS: Mapping[str, str] = {
    "address": "a listener gets its address from the mesh, and nobody can dial it: leave it out",
    "load_assignment": "endpoints come from Services: name the cluster namespace/service, with type EDS",
    "health_checks": "the node would dial as itself: use outlier_detection, and readiness probes of the pods",
    "preconnect_policy": "the node would dial as itself",
    "upstream_bind_config": _OURS,
    "socket_options": _OURS,
}

_READS = re.compile(r"%(?:FILE_CONTENT|ENVIRONMENT)\b")


def refuse(message: Message, path: str) -> None:
    """Refuse what a message may not be or say. Its parts are asked for themselves. Raises PolicyInvalid."""
    name = message.DESCRIPTOR.full_name
    if why := _MESSAGES.get(name):
        raise PolicyInvalid(path, why)
    only, never = _ONLY.get(name), _FIELDS.get(name, {})
    for field, value in message.ListFields():
        where = f"{path}.{field.name}"
        if only is not None and field.name not in only:
            hint = _HINTS.get(field.name, "is not for users to set")
            raise PolicyInvalid(where, hint)
        if why := never.get(field.name):
            raise PolicyInvalid(where, why)
        for text in _texts(value):
            if found := _READS.search(text):
                raise PolicyInvalid(where, f"{found[0]} would read what is the node's")
    if name == "envoy.type.matcher.v3.RegexMatcher" and (problem := expression_problem(cast("Any", message).regex)):
        raise PolicyInvalid(f"{path}.regex", problem)


def _texts(value: Any) -> Iterator[str]:
    """The texts of a field: its own, of a list, of a mapping."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, Mapping):
        for key, each in cast("Mapping[Any, Any]", value).items():
            yield from (*_texts(key), *_texts(each))
    elif hasattr(value, "__iter__") and not isinstance(value, Message):
        for each in value:
            yield from _texts(each)
