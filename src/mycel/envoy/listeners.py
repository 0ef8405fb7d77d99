"""Listeners of policies: one per set of HTTP rules and direction, on the port that policy rows name. Pure.

Every listener hands on to whom the client dialled (`original-destination`), in the client's name; only what its rules
allow. docs/l7.md, "Configuration", has the reasons.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from mycel.abi import Direction, ProxyMark
from mycel.envoy.header_matches import changing, deciding, remembering, resource_name
from mycel.envoy.http_routes import allowing, routes
from mycel.envoy.http_rules import compiled, underscores
from mycel.envoy.logs import LOG_TUNNELS, Shown, access_logs
from mycel.envoy.looking import looking, tells_http
from mycel.envoy.matchers import Json, Unsupported
from mycel.envoy.messages import from_json, to_resource
from mycel.envoy.parts import UPSTREAM_KEEPALIVE, listener_fields, router, upstream_bind
from mycel.envoy.request_log import Decider
from mycel.envoy.resources import CLUSTER, LISTENER, SECRET, Resource, Snapshot
from mycel.envoy.server_names import by_server_name, names_by_rule, tells_tls
from mycel.model.proxy import upstream_mark
from mycel.policy.http import SecretRef, secrets_of
from mycel.policy.proxy_ports import HttpSections
from mycel.policy.visibility import LOOK

ORIGINAL_DESTINATION = "original-destination"
_TYPE = "type.googleapis.com/envoy.extensions."
_OPTIONS = f"{_TYPE}upstreams.http.v3.HttpProtocolOptions"
_BUFFER_BYTES = 32768
_RETRY = {"retry_on": "reset-before-request", "num_retries": 1}
_DENIED = "Access denied\r\n"
_LOOKS = (LOOK,)
_NONE: Mapping[SecretRef, Resource] = MappingProxyType({})


def listener_name(port: int, direction: Direction) -> str:
    """What a listener is called, also in its access log."""
    return f"policy/{direction.name.lower()}/{port}"


def snapshot(
    listeners: Mapping[int, HttpSections], secrets: Mapping[SecretRef, Resource] = _NONE, shown: Shown = ()
) -> Snapshot:
    """What Envoy holds for policies. Sets of rules that no listener can serve are left out: their ports stay closed.

    `secrets`: those that can be used. Rules that name others never match.
    """
    found: dict[str, Resource] = {}
    for port, http in listeners.items():
        if not unserved(http):
            there = frozenset(secrets_of(http.sections) & secrets.keys())
            found[listener_name(port, http.direction)] = _made(port, http, there, shown)
    return {
        SECRET: {resource_name(secret): each for secret, each in secrets.items()},
        CLUSTER: {ORIGINAL_DESTINATION: _made_cluster()},
        LISTENER: found,
    }


@functools.lru_cache(maxsize=8192)  # more than there are ports for them
def _made(port: int, http: HttpSections, there: frozenset[SecretRef], shown: Shown) -> Resource:
    """Remembered: a message takes milliseconds to make, and a change of one policy leaves the others' as they are."""
    return to_resource(from_json(LISTENER, listener(port, http, there, shown)))


@functools.cache
def _made_cluster() -> Resource:
    return to_resource(from_json(CLUSTER, cluster()))


@functools.lru_cache(maxsize=4096)
def unserved(http: HttpSections) -> str:
    """Why no listener can serve these sections; empty when one can."""
    if http.sections == _LOOKS:
        return ""
    try:
        compiled(http.sections)
        names_by_rule(http.sections)
    except Unsupported as exc:
        return f"{exc} is not supported yet: the ports of these rules stay closed"
    return ""


def listener(port: int, http: HttpSections, there: Collection[SecretRef], shown: Shown = ()) -> Json:
    """The listener in JSON form; `there`: the Secrets it may use. Raises Unsupported."""
    egress = http.direction == Direction.EGRESS
    mark = upstream_mark(ProxyMark.UPSTREAM_EGRESS if egress else ProxyMark.UPSTREAM_INGRESS, port)
    name = listener_name(port, http.direction)
    fields: Json = {
        "name": name,
        "traffic_direction": "OUTBOUND" if egress else "INBOUND",
        **listener_fields(port, mark),
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
    }
    if http.sections == _LOOKS:
        filters = [*fields["listener_filters"], tells_http()]
        chains = looking(name, ORIGINAL_DESTINATION, access_logs(shown, Decider.ROUTES))
        return {**fields, **chains, "listener_filters": filters}
    manager = {"name": "http", "typed_config": connection_manager(http, there, shown)}
    if not (names := names_by_rule(http.sections)):
        return {**fields, "filter_chains": [{"name": name, "filters": [manager]}]}
    plain = manager if any(each is not None and each.parser == "http" for each in http.sections) else None
    chains = by_server_name(name, ORIGINAL_DESTINATION, names, plain, everything=None in http.sections, shown=shown)
    return {**fields, **chains, "listener_filters": [*fields["listener_filters"], tells_tls()]}


def connection_manager(http: HttpSections, there: Collection[SecretRef], shown: Shown = ()) -> Json:
    """What happens on a connection, whatever brought it here. Raises Unsupported."""
    rules = compiled(http.sections, there)
    names = underscores(http.sections)
    route = {"cluster": ORIGINAL_DESTINATION, "timeout": "0s"}
    if rules.are_plain:
        decider, filters, found = Decider.ROUTES, [], routes(rules, route)
    else:
        filters = [
            *remembering(rules.secrets),
            *deciding(rules.changes),
            allowing(rules),
            *changing(rules.changes),
        ]
        decider, found = Decider.FILTER, [{"match": {"prefix": "/"}, "route": route}]
    return {
        "@type": f"{_TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "policy",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "skip_xff_append": True,
        "server_header_transformation": "APPEND_IF_ABSENT",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "stream_idle_timeout": "0s",  # long polls and streams may be silent as long as they like
        "common_http_protocol_options": {"idle_timeout": "60s", "headers_with_underscores_action": names},
        "http_protocol_options": {"accept_http_10": True},
        "upgrade_configs": [{"upgrade_type": "websocket"}],  # Envoy holds back what follows until a server accepts
        "local_reply_config": {"mappers": [_denied()]},
        "access_log": access_logs(shown, decider),
        "access_log_options": LOG_TUNNELS,
        "http_filters": [*filters, router()],
        "route_config": {
            "name": "all",
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": found, "retry_policy": _RETRY}],
        },
    }


def _denied() -> Json:
    """Envoy's own 403 says what clients of this kind of policy know; a server's passes as it is."""
    code: Any = {"comparison": {"op": "EQ", "value": {"default_value": 403, "runtime_key": "none"}}}
    return {"filter": {"status_code_filter": code}, "body": {"inline_string": _DENIED}}


def cluster() -> Json:
    """To whom the client dialled, by the protocol the client speaks."""
    options = {"@type": _OPTIONS, "use_downstream_protocol_config": {"http2_protocol_options": {}}}
    return {
        "name": ORIGINAL_DESTINATION,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "upstream_connection_options": {"tcp_keepalive": UPSTREAM_KEEPALIVE},
        "upstream_bind_config": upstream_bind(),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }
