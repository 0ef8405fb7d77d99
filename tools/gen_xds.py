"""Generate src/mycel/envoy/xds.binpb: the descriptors of every Envoy message we build or accept.

    uv pip install --target FOLDER --no-deps xds-protos==1.85.0
    PYTHONPATH=FOLDER python tools/gen_xds.py [--check]

writes, or fails when what is checked in is stale. xds-protos is never a dependency: it ships older copies of other
projects' modules (opentelemetry, google.api), a top-level `test`, and collides with the package of the Envoy binary.
The descriptors are loaded into a pool of their own (mycel.envoy.messages), where nothing can collide.
"""

import importlib
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

TARGET = Path(__file__).resolve().parent.parent / "src/mycel/envoy/xds.binpb"
EXTENSIONS = "envoy.extensions."
MODULES = (
    "envoy.config.bootstrap.v3.bootstrap",
    "envoy.config.cluster.v3.cluster",
    "envoy.config.endpoint.v3.endpoint",
    "envoy.config.listener.v3.listener",
    "envoy.config.route.v3.route",
    "envoy.service.discovery.v3.ads",
    "envoy.service.discovery.v3.discovery",
    EXTENSIONS + "access_loggers.file.v3.file",
    EXTENSIONS + "access_loggers.open_telemetry.v3.logs_service",
    EXTENSIONS + "common.matching.v3.extension_matcher",
    EXTENSIONS + "filters.common.matcher.action.v3.skip_action",
    EXTENSIONS + "filters.http.cors.v3.cors",
    EXTENSIONS + "filters.http.fault.v3.fault",
    EXTENSIONS + "filters.http.grpc_stats.v3.config",
    EXTENSIONS + "filters.http.grpc_web.v3.grpc_web",
    EXTENSIONS + "filters.http.header_mutation.v3.header_mutation",
    EXTENSIONS + "filters.http.local_ratelimit.v3.local_rate_limit",
    EXTENSIONS + "filters.http.rbac.v3.rbac",
    EXTENSIONS + "filters.http.router.v3.router",
    EXTENSIONS + "filters.http.set_filter_state.v3.set_filter_state",
    EXTENSIONS + "filters.listener.http_inspector.v3.http_inspector",
    EXTENSIONS + "filters.listener.original_dst.v3.original_dst",
    EXTENSIONS + "filters.listener.original_src.v3.original_src",
    EXTENSIONS + "filters.listener.tls_inspector.v3.tls_inspector",
    EXTENSIONS + "filters.network.http_connection_manager.v3.http_connection_manager",
    EXTENSIONS + "filters.network.rbac.v3.rbac",
    EXTENSIONS + "filters.network.tcp_proxy.v3.tcp_proxy",
    EXTENSIONS + "load_balancing_policies.least_request.v3.least_request",
    EXTENSIONS + "load_balancing_policies.maglev.v3.maglev",
    EXTENSIONS + "load_balancing_policies.random.v3.random",
    EXTENSIONS + "load_balancing_policies.ring_hash.v3.ring_hash",
    EXTENSIONS + "load_balancing_policies.round_robin.v3.round_robin",
    EXTENSIONS + "matching.common_inputs.network.v3.network_inputs",
    EXTENSIONS + "matching.input_matchers.metadata.v3.metadata",
    EXTENSIONS + "resource_monitors.downstream_connections.v3.downstream_connections",
    EXTENSIONS + "retry.host.previous_hosts.v3.previous_hosts",
    EXTENSIONS + "transport_sockets.tls.v3.tls",
    EXTENSIONS + "upstreams.http.v3.http_protocol_options",
)


def generic_secret() -> descriptor_pb2.FileDescriptorProto:
    """The one message of Envoy 1.40 that xds-protos 1.85 does not have: what `%SECRET(…)%` in formats stands for."""
    package = "envoy.extensions.formatter.generic_secret.v3"
    secret = "envoy/extensions/transport_sockets/tls/v3/secret.proto"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}/generic_secret.proto", package=package, dependency=[secret], syntax="proto3"
    )
    message = file.message_type.add(name="GenericSecret")
    entry = message.nested_type.add(name="SecretConfigsEntry")
    entry.options.map_entry = True
    kinds = descriptor_pb2.FieldDescriptorProto
    config = ".envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig"
    once, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=once)
    entry.field.add(name="value", number=2, type=kinds.TYPE_MESSAGE, type_name=config, label=once)
    of = f".{package}.GenericSecret.SecretConfigsEntry"
    message.field.add(name="secret_configs", number=1, type=kinds.TYPE_MESSAGE, type_name=of, label=many)
    return file


def collect() -> bytes:
    """Return the serialised FileDescriptorSet of MODULES and all they import, each file after what it imports."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file: FileDescriptor) -> None:
        if file.name in files:
            return
        for dependency in file.dependencies:
            add(dependency)
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        files[file.name] = proto

    for module in MODULES:
        add(importlib.import_module(module + "_pb2").DESCRIPTOR)
    files["generic_secret"] = generic_secret()
    return descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString(deterministic=True)


def main() -> int:
    """Write the descriptor set, or with --check compare it with the tree."""
    wanted = collect()
    if "--check" not in sys.argv[1:]:
        TARGET.write_bytes(wanted)
        return 0
    if TARGET.exists() and TARGET.read_bytes() == wanted:
        return 0
    print(f"{TARGET} is stale: see the head of tools/gen_xds.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
