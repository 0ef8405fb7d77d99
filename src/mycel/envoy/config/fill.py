"""What users leave out is filled in, what they call things by their own names gets those of all objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from google.protobuf.message import Message

from mycel.abi import ProxyMark
from mycel.envoy import parts
from mycel.envoy.config.names import Names
from mycel.envoy.logs import Shown, access_logs
from mycel.envoy.messages import from_json, message_class
from mycel.envoy.request_log import Decider
from mycel.envoy.resources import CLUSTER, LISTENER, ROUTES, TypeUrl
from mycel.model.proxy import upstream_mark
from mycel.policy.errors import PolicyInvalid

_TYPE = "type.googleapis.com/"
_EXTENSIONS = "envoy.extensions."
_TLS = _EXTENSIONS + "transport_sockets.tls.v3."
_MANAGER = _EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager"
_OPTIONS = _EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions"
_ACCESS_LOG = TypeUrl("envoy.config.accesslog.v3.AccessLog")
_SOURCE = TypeUrl("envoy.config.core.v3.ConfigSource")
_EDS = 3  # envoy.config.cluster.v3.Cluster.DiscoveryType
_BUFFER = 32768
# Filters that people name without a configuration, as Envoy took them until 2021.
_BARE = {
    "envoy.filters.http.router": _EXTENSIONS + "filters.http.router.v3.Router",
    "envoy.router": _EXTENSIONS + "filters.http.router.v3.Router",
    "envoy.filters.listener.tls_inspector": _EXTENSIONS + "filters.listener.tls_inspector.v3.TlsInspector",
}
# Of a user's listener; the mesh has its own.
_TRANSPARENCY = {
    "envoy.filters.listener.original_dst": ".original_dst.v3.OriginalDst",
    "envoy.filters.listener.original_src": ".original_src.v3.OriginalSrc",
}


class Filler:
    """The steps after a message's parts are done; `name` is what its statistics are called.

    `source`: the address what leaves is dialled from; empty: the client's.
    """

    def __init__(self, names: Names, *, name: str = "", port: int = 0, source: str = "", shown: Shown = ()) -> None:
        self._names = names
        self._name = name
        self._port = port
        self._source = source
        self._shown = shown
        self._steps: Mapping[str, Callable[[Any, str], None]] = {
            "envoy.config.listener.v3.Listener": self._listener,
            "envoy.config.cluster.v3.Cluster": self._cluster,
            "envoy.config.core.v3.ConfigSource": _config_source,
            "envoy.type.matcher.v3.RegexMatcher": lambda message, _path: message.ClearField("google_re2"),
            "envoy.config.route.v3.RouteAction": self._names_cluster("cluster"),
            "envoy.config.route.v3.WeightedCluster.ClusterWeight": self._names_cluster("name"),
            _EXTENSIONS + "filters.network.tcp_proxy.v3.TcpProxy": self._tcp_proxy,
            _EXTENSIONS + "filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight": (
                self._names_cluster("name")
            ),
            _MANAGER: self._manager,
            _TLS + "CommonTlsContext": self._tls,
            _TLS + "CommonTlsContext.CombinedCertificateValidationContext": self._combined,
        }

    def __call__(self, message: Message, path: str) -> None:
        """One message whose parts are done. Raises PolicyInvalid."""
        step = self._steps.get(message.DESCRIPTOR.full_name)
        if step is not None:
            step(message, path)

    def _listener(self, listener: Any, path: str) -> None:
        del path
        listener.name = self._names.ref.qualify(listener.name)
        mine = [each for each in listener.listener_filters if not _is_transparency(each)]
        for each in mine:
            _configure(each)
        mark = None if self._source else upstream_mark(ProxyMark.UPSTREAM_SERVICE, self._port)
        fields = parts.listener_fields(self._port, mark)
        ours: Any = from_json(LISTENER, {**fields, "traffic_direction": "OUTBOUND"})
        ours.listener_filters.extend(mine)
        listener.ClearField("listener_filters")
        listener.ClearField("transparent")
        listener.MergeFrom(ours)
        if not listener.HasField("per_connection_buffer_limit_bytes"):
            listener.per_connection_buffer_limit_bytes.value = _BUFFER

    def _manager(self, manager: Any, path: str) -> None:
        if manager.HasField("rds"):
            rds = manager.rds
            rds.route_config_name = self._names.refer(ROUTES, rds.route_config_name, f"{path}.rds.route_config_name")
            _set_ads(rds.config_source)
        for each in manager.http_filters:
            _configure(each)
        if not manager.stat_prefix:
            manager.stat_prefix = self._name
        if not manager.HasField("normalize_path"):  # silent about paths: what was judged is what is sent
            manager.normalize_path.value = True
            manager.merge_slashes = True
        if not manager.HasField("use_remote_address"):
            manager.use_remote_address.value = True
        logs = (from_json(_ACCESS_LOG, each) for each in access_logs(self._shown, Decider.USER))
        manager.access_log.extend(logs)
        manager.access_log_options.flush_log_on_tunnel_successfully_established = True  # logs.LOG_TUNNELS

    def _tcp_proxy(self, proxy: Any, path: str) -> None:
        self._names_cluster("cluster")(proxy, path)
        if not proxy.stat_prefix:
            proxy.stat_prefix = self._name

    def _cluster(self, cluster: Any, path: str) -> None:
        if cluster.HasField("type") and cluster.type != _EDS:
            raise PolicyInvalid(f"{path}.type", "must be EDS: endpoints come from Services")
        own = cluster.name
        said = cluster.eds_cluster_config.service_name
        where = f"{path}.eds_cluster_config.service_name" if said else f"{path}.name"
        self._names.backends(own, said or own, where)
        cluster.name = cluster.eds_cluster_config.service_name = self._names.ref.qualify(own)
        _set_ads(cluster.eds_cluster_config.eds_config)
        cluster.MergeFrom(
            from_json(CLUSTER, {"type": "EDS", "upstream_bind_config": parts.upstream_bind(self._source)})
        )
        _speak_as_the_client(cluster)

    def _tls(self, context: Any, path: str) -> None:
        for index, each in enumerate(context.tls_certificate_sds_secret_configs):
            self._secret(each, f"{path}.tls_certificate_sds_secret_configs[{index}]", authority=False)
        if context.HasField("validation_context_sds_secret_config"):
            where = f"{path}.validation_context_sds_secret_config"
            self._secret(context.validation_context_sds_secret_config, where, authority=True)

    def _combined(self, context: Any, path: str) -> None:
        where = f"{path}.validation_context_sds_secret_config"
        self._secret(context.validation_context_sds_secret_config, where, authority=True)

    def _secret(self, config: Any, path: str, *, authority: bool) -> None:
        config.name = self._names.secret(config.name, f"{path}.name", authority=authority)
        _set_ads(config.sds_config, parts.CERTIFICATE_ADS)

    def _names_cluster(self, field: str) -> Callable[[Any, str], None]:
        def step(message: Any, path: str) -> None:
            name = getattr(message, field)
            if name:
                setattr(message, field, self._names.refer(CLUSTER, name, f"{path}.{field}"))

        return step


def _configure(extension: Any) -> None:
    """Give a filter that is only named its configuration."""
    name = _BARE.get(extension.name)
    if name and not extension.HasField("typed_config"):
        extension.typed_config.type_url = _TYPE + name


def _is_transparency(extension: Any) -> bool:
    if extension.HasField("typed_config"):
        return str(extension.typed_config.type_url).endswith(tuple(_TRANSPARENCY.values()))
    return extension.name in _TRANSPARENCY


def _config_source(source: Any, _path: str) -> None:
    _set_ads(source)


def _set_ads(source: Any, fields: parts.Json = parts.ADS) -> None:
    source.Clear()
    source.MergeFrom(from_json(_SOURCE, fields))


def _speak_as_the_client(cluster: Any) -> None:
    """A cluster that says no protocol speaks the one its client speaks, so that gRPC needs no word of it."""
    said = ("http2_protocol_options", "http_protocol_options", "common_http_protocol_options")
    old = any(cluster.HasField(each) for each in (*said, "upstream_http_protocol_options"))
    if _OPTIONS in cluster.typed_extension_protocol_options or old:
        return
    options = cast("Any", message_class(_OPTIONS))()
    options.use_downstream_protocol_config.http2_protocol_options.SetInParent()
    packed = cluster.typed_extension_protocol_options[_OPTIONS]
    packed.type_url = _TYPE + _OPTIONS
    packed.value = options.SerializeToString(deterministic=True)
