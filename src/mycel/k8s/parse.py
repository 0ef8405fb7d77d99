"""Kubernetes' objects → the mesh's nouns, at the border and once. ValueError on what cannot be used.

Each kind has a `Codec` for its informer: `Informer(client, PODS, parse.PODS_CODEC)`.
"""

from __future__ import annotations

from mycel.k8s import wire
from mycel.k8s.informer import Codec
from mycel.model.node import Node, PublishedNode
from mycel.model.service import (
    EndpointSlice,
    Protocol,
    Service,
    ServicePort,
    ServiceRef,
    SliceEndpoint,
    SlicePort,
)
from mycel.model.workload import (
    EndpointId,
    HostPort,
    Identity,
    IdentityId,
    NamedPort,
    Namespace,
    PodRef,
    PublishedEndpoint,
    Workload,
)
from mycel.policy.visibility import ANNOTATION

_AFFINITY_S = 10800  # v1.DefaultClientIPServiceAffinitySeconds
_SERVICE_NAME = "kubernetes.io/service-name"


def parse_pod(pod: wire.Pod) -> Workload:
    """v1.Pod."""
    metadata, spec = pod.metadata, pod.spec
    owners = [owner for owner in metadata.owner_references or [] if owner.controller]
    return Workload(
        ref=PodRef(metadata.namespace, metadata.name),
        uid=metadata.uid,
        node=spec.node_name,
        labels=metadata.labels or {},
        service_account=spec.service_account_name,
        host_network=spec.host_network,
        addresses=tuple(each.ip for each in pod.status.pod_i_ps or [] if each.ip),
        owner=(owners[0].kind, owners[0].name) if owners else ("", ""),
        named_ports=tuple(
            NamedPort(port.name, port.container_port, port.protocol)
            for container in spec.containers or []
            for port in container.ports or []
            if port.name
        ),
        visibility=(metadata.annotations or {}).get(ANNOTATION),
        host_ports=()
        if spec.host_network
        else tuple(
            HostPort(port.host_ip, port.host_port, Protocol(port.protocol), port.container_port)
            for container in spec.containers or []
            for port in container.ports or []
            if port.host_port
        ),
        finished=pod.status.phase in ("Succeeded", "Failed"),
        deleted=metadata.deletion_timestamp is not None,
    )


def parse_namespace(namespace: wire.Namespace) -> Namespace:
    """v1.Namespace."""
    metadata = namespace.metadata
    return Namespace(metadata.name, metadata.labels or {}, (metadata.annotations or {}).get(ANNOTATION))


def parse_node(node: wire.Node) -> Node:
    """v1.Node."""
    addresses = node.status.addresses or []
    networks = node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else [])
    return Node(
        name=node.metadata.name,
        uid=node.metadata.uid,
        labels=node.metadata.labels or {},
        internal_addresses=tuple(each.address for each in addresses if each.type == "InternalIP"),
        other_addresses=tuple(each.address for each in addresses if each.type == "ExternalIP"),
        pod_networks=tuple(networks),
        taints=tuple(taint.key for taint in node.spec.taints or []),
    )


def parse_service(service: wire.Service) -> Service:
    """v1.Service. ExternalName services have no frontends."""
    spec = service.spec
    external_name = spec.type == "ExternalName"
    addresses = [] if external_name else spec.cluster_ips or [spec.cluster_ip]
    client = spec.session_affinity_config.client_ip if spec.session_affinity_config else None
    affinity_s = (client.timeout_seconds if client else None) or _AFFINITY_S
    ingress = service.status.load_balancer.ingress or []
    return Service(
        ref=ServiceRef(service.metadata.namespace, service.metadata.name),
        cluster_addresses=tuple(address for address in addresses if address not in ("", "None")),
        external_addresses=tuple(spec.external_ips or ()),
        # A `Proxy` address belongs to a load balancer that wants its own hop (KEP-1860).
        ingress_addresses=tuple(each.ip for each in ingress if each.ip and each.ip_mode == "VIP"),
        ports=tuple(
            ServicePort(port.name, Protocol(port.protocol), port.port, port.node_port) for port in spec.ports or []
        ),
        ip_families=tuple(4 if family == "IPv4" else 6 for family in spec.ip_families or ()),
        affinity_s=affinity_s if spec.session_affinity == "ClientIP" else 0,
        local_external=spec.external_traffic_policy == "Local",
        local_internal=spec.internal_traffic_policy == "Local",
        labels=service.metadata.labels or {},
        selector=spec.selector or {},
        load_balancer_class=spec.load_balancer_class or "",
    )


def parse_slice(each: wire.EndpointSlice) -> EndpointSlice:
    """discovery.k8s.io/v1 EndpointSlice.

    Ports without a number (all ports) and FQDN slices have no targets.
    """
    name = (each.metadata.labels or {}).get(_SERVICE_NAME, "")
    endpoints: list[SliceEndpoint] = []
    for endpoint in each.endpoints or [] if each.address_type != "FQDN" else []:
        said = endpoint.conditions
        ready = said.ready is not False
        serving = ready if said.serving is None else said.serving
        endpoints += [
            SliceEndpoint(address, endpoint.node_name or "", ready, serving, bool(said.terminating))
            for address in endpoint.addresses[:1]  # the API: further addresses are fungible, use the first
        ]
    return EndpointSlice(
        ref=ServiceRef(each.metadata.namespace, name),
        name=each.metadata.name,
        ports=tuple(
            SlicePort(port.name or "", Protocol(port.protocol or "TCP"), port.port)
            for port in each.ports or []
            if port.port
        ),
        endpoints=tuple(endpoints),
    )


def parse_endpoint(each: wire.CiliumEndpoint) -> PublishedEndpoint:
    """cilium.io/v2 CiliumEndpoint; zero identity and no addresses while its agent has not said them."""
    status = each.status or wire.CepStatus()
    networking = status.networking or wire.CepNetworking()
    identity = status.identity or wire.CepIdentity()
    policy = status.policy or wire.CepPolicy()
    return PublishedEndpoint(
        ref=PodRef(each.metadata.namespace, each.metadata.name),
        endpoint_id=EndpointId(status.id),
        identity=IdentityId(identity.id),
        labels=tuple(sorted(identity.labels or ())),
        addresses=tuple(
            address for pair in networking.addressing or [] for address in (pair.ipv4, pair.ipv6) if address
        ),
        node_address=networking.node,
        enforcing=(_enforces(policy.ingress), _enforces(policy.egress)),
    )


def _enforces(side: wire.CepDirection | None) -> bool:
    return side is not None and side.enforcing


def parse_identity(each: wire.CiliumIdentity) -> Identity:
    """cilium.io/v2 CiliumIdentity. Raises ValueError when the name is not a number."""
    labels = each.security_labels or {}
    return Identity(
        id=IdentityId(int(each.metadata.name)),
        labels=tuple(sorted(f"{key}={value}" for key, value in labels.items())),
        uid=each.metadata.uid,
        created_at=each.metadata.creation_timestamp or "",
    )


def parse_published_node(node: wire.CiliumNode) -> PublishedNode:
    """cilium.io/v2 CiliumNode."""
    addresses = node.spec.addresses or []
    return PublishedNode(
        name=node.metadata.name,
        internal_addresses=tuple(each.ip for each in addresses if each.type == "InternalIP"),
        router_addresses=tuple(each.ip for each in addresses if each.type == "CiliumInternalIP"),
        pod_networks=tuple(node.spec.ipam.pod_cidrs or ()),
    )


PODS_CODEC = Codec(wire.Pod, parse_pod)
NAMESPACES_CODEC = Codec(wire.Namespace, parse_namespace)
NODES_CODEC = Codec(wire.Node, parse_node)
SERVICES_CODEC = Codec(wire.Service, parse_service)
SLICES_CODEC = Codec(wire.EndpointSlice, parse_slice)
ENDPOINTS_CODEC = Codec(wire.CiliumEndpoint, parse_endpoint)
IDENTITIES_CODEC = Codec(wire.CiliumIdentity, parse_identity)
PUBLISHED_NODES_CODEC = Codec(wire.CiliumNode, parse_published_node)
