"""The shapes of Kubernetes' JSON, as thin as we use it: msgspec skips every other field unmade.

Only `parse` reads these; nothing outside of this room sees them. Field names are the API's own.
"""

from __future__ import annotations

import msgspec


class _Shape(msgspec.Struct, gc=False, frozen=True, rename="camel"):
    """Absent fields take their defaults; `null` is allowed where the API says so."""


class OwnerReference(_Shape, frozen=True):
    """metav1.OwnerReference."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Metadata(_Shape, frozen=True):
    """metav1.ObjectMeta."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None
    deletion_timestamp: str | None = None
    creation_timestamp: str | None = None


class Annotated(Metadata, frozen=True):
    """metav1.ObjectMeta of kinds whose annotations mean something here."""

    annotations: dict[str, str] | None = None


class ContainerPort(_Shape, frozen=True):
    """v1.ContainerPort."""

    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")


class Container(_Shape, frozen=True):
    """v1.Container."""

    ports: list[ContainerPort] | None = None


class PodSpec(_Shape, frozen=True):
    """v1.PodSpec."""

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    containers: list[Container] | None = None


class PodIp(_Shape, frozen=True):
    """v1.PodIP."""

    ip: str = ""


class PodStatus(_Shape, frozen=True):
    """v1.PodStatus."""

    phase: str = ""
    pod_i_ps: list[PodIp] | None = msgspec.field(default=None, name="podIPs")


class Pod(_Shape, frozen=True):
    """v1.Pod."""

    metadata: Annotated = Annotated()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Namespace(_Shape, frozen=True):
    """v1.Namespace."""

    metadata: Annotated = Annotated()


class Taint(_Shape, frozen=True):
    """v1.Taint."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeAddress(_Shape, frozen=True):
    """v1.NodeAddress; also the entries of a CiliumNode, where the field is `ip`."""

    type: str = ""
    address: str = ""
    ip: str = ""


class NodeSpec(_Shape, frozen=True):
    """v1.NodeSpec."""

    pod_cidr: str = msgspec.field(default="", name="podCIDR")
    pod_cidrs: list[str] | None = msgspec.field(default=None, name="podCIDRs")
    taints: list[Taint] | None = None


class NodeStatus(_Shape, frozen=True):
    """v1.NodeStatus."""

    addresses: list[NodeAddress] | None = None


class Node(_Shape, frozen=True):
    """v1.Node."""

    metadata: Metadata = Metadata()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ServicePort(_Shape, frozen=True):
    """v1.ServicePort."""

    name: str = ""
    protocol: str = "TCP"
    port: int = 0
    node_port: int = 0


class ClientIp(_Shape, frozen=True):
    """v1.ClientIPConfig."""

    timeout_seconds: int | None = None


class AffinityConfig(_Shape, frozen=True):
    """v1.SessionAffinityConfig."""

    client_ip: ClientIp | None = msgspec.field(default=None, name="clientIP")


class ServiceSpec(_Shape, frozen=True):
    """v1.ServiceSpec."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    external_ips: list[str] | None = msgspec.field(default=None, name="externalIPs")
    ip_families: list[str] | None = None
    ports: list[ServicePort] | None = None
    session_affinity: str = "None"
    session_affinity_config: AffinityConfig | None = None
    selector: dict[str, str] | None = None
    external_traffic_policy: str = "Cluster"
    internal_traffic_policy: str = "Cluster"
    load_balancer_class: str | None = None


class LoadBalancerIngress(_Shape, frozen=True):
    """v1.LoadBalancerIngress."""

    ip: str = ""
    ip_mode: str = "VIP"


class LoadBalancer(_Shape, frozen=True):
    """v1.LoadBalancerStatus."""

    ingress: list[LoadBalancerIngress] | None = None


class ServiceStatus(_Shape, frozen=True):
    """v1.ServiceStatus."""

    load_balancer: LoadBalancer = LoadBalancer()


class Service(_Shape, frozen=True):
    """v1.Service."""

    metadata: Metadata = Metadata()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class SlicePort(_Shape, frozen=True):
    """discovery.k8s.io/v1 EndpointPort."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class Conditions(_Shape, frozen=True):
    """discovery.k8s.io/v1 EndpointConditions; absent means true, except for terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(_Shape, frozen=True):
    """discovery.k8s.io/v1 Endpoint."""

    addresses: list[str] = []
    conditions: Conditions = Conditions()
    node_name: str | None = None


class EndpointSlice(_Shape, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Metadata = Metadata()
    address_type: str = "IPv4"
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


class CepIdentity(_Shape, frozen=True):
    """The identity of a CiliumEndpoint."""

    id: int = 0
    labels: list[str] | None = None


class CepAddress(_Shape, frozen=True):
    """An address pair of a CiliumEndpoint."""

    ipv4: str = ""
    ipv6: str = ""


class CepNetworking(_Shape, frozen=True):
    """Where a CiliumEndpoint is."""

    addressing: list[CepAddress] | None = None
    node: str = ""


class CepDirection(_Shape, frozen=True):
    """One direction of status.policy of a CiliumEndpoint."""

    enforcing: bool = False


class CepPolicy(_Shape, frozen=True):
    """status.policy of a CiliumEndpoint."""

    ingress: CepDirection | None = None
    egress: CepDirection | None = None


class CepStatus(_Shape, frozen=True):
    """status of a CiliumEndpoint."""

    id: int = 0
    identity: CepIdentity | None = None
    networking: CepNetworking | None = None
    policy: CepPolicy | None = None
    state: str = ""


class CiliumEndpoint(_Shape, frozen=True):
    """cilium.io/v2 CiliumEndpoint."""

    metadata: Metadata = Metadata()
    status: CepStatus | None = None


class CiliumIdentity(_Shape, frozen=True):
    """cilium.io/v2 CiliumIdentity."""

    metadata: Metadata = Metadata()
    security_labels: dict[str, str] | None = msgspec.field(default=None, name="security-labels")


class CiliumNodeIpam(_Shape, frozen=True):
    """spec.ipam of a CiliumNode."""

    pod_cidrs: list[str] | None = msgspec.field(default=None, name="podCIDRs")


class CiliumNodeSpec(_Shape, frozen=True):
    """spec of a CiliumNode."""

    addresses: list[NodeAddress] | None = None
    ipam: CiliumNodeIpam = CiliumNodeIpam()


class CiliumNode(_Shape, frozen=True):
    """cilium.io/v2 CiliumNode."""

    metadata: Metadata = Metadata()
    spec: CiliumNodeSpec = CiliumNodeSpec()
