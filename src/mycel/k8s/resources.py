"""The kinds we talk about: where their REST collections live.

A `Resource` is an address, not a schema. Constants cover what the mesh and the embedded cluster use; anything
else is one constructor call away.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind's REST collection. `group` is empty for the core API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1` or `group/version`, as objects carry it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, *, subresource: str = "") -> str:
        """The URL path of the collection (all namespaces without `namespace`), object, or its subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            if self.namespaced and not namespace:
                raise ValueError(f"{self.kind} {name}: the namespace is missing")
            parts.append(quote(name, safe=""))
            if subresource:
                parts.append(subresource)
        return "/".join(parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _core(plural: str, kind: str, *, namespaced: bool = True) -> Resource:
    return Resource("", "v1", plural, kind, namespaced)


def _apps(plural: str, kind: str) -> Resource:
    return Resource("apps", "v1", plural, kind)


def _rbac(plural: str, kind: str, *, namespaced: bool = True) -> Resource:
    return Resource("rbac.authorization.k8s.io", "v1", plural, kind, namespaced)


def _cilium(plural: str, kind: str, *, namespaced: bool = True, version: str = "v2") -> Resource:
    return Resource("cilium.io", version, plural, kind, namespaced)


NAMESPACES = _core("namespaces", "Namespace", namespaced=False)
NODES = _core("nodes", "Node", namespaced=False)
PODS = _core("pods", "Pod")
SERVICES = _core("services", "Service")
ENDPOINTS = _core("endpoints", "Endpoints")
CONFIG_MAPS = _core("configmaps", "ConfigMap")
SECRETS = _core("secrets", "Secret")
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount")
EVENTS = _core("events", "Event")
DEPLOYMENTS = _apps("deployments", "Deployment")
REPLICA_SETS = _apps("replicasets", "ReplicaSet")
DAEMON_SETS = _apps("daemonsets", "DaemonSet")
STATEFUL_SETS = _apps("statefulsets", "StatefulSet")
CONTROLLER_REVISIONS = _apps("controllerrevisions", "ControllerRevision")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
INGRESS_CLASSES = Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", False)
CLUSTER_ROLES = _rbac("clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = _rbac("clusterrolebindings", "ClusterRoleBinding", namespaced=False)
ROLES = _rbac("roles", "Role")
ROLE_BINDINGS = _rbac("rolebindings", "RoleBinding")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False)
VALIDATING_WEBHOOK_CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False
)

CILIUM_ENDPOINTS = _cilium("ciliumendpoints", "CiliumEndpoint")
CILIUM_IDENTITIES = _cilium("ciliumidentities", "CiliumIdentity", namespaced=False)
CILIUM_NODES = _cilium("ciliumnodes", "CiliumNode", namespaced=False)
CILIUM_NETWORK_POLICIES = _cilium("ciliumnetworkpolicies", "CiliumNetworkPolicy")
CILIUM_CLUSTERWIDE_NETWORK_POLICIES = _cilium(
    "ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy", namespaced=False
)
CILIUM_CIDR_GROUPS = _cilium("ciliumcidrgroups", "CiliumCIDRGroup", namespaced=False)
CILIUM_ENVOY_CONFIGS = _cilium("ciliumenvoyconfigs", "CiliumEnvoyConfig")
CILIUM_CLUSTERWIDE_ENVOY_CONFIGS = _cilium(
    "ciliumclusterwideenvoyconfigs", "CiliumClusterwideEnvoyConfig", namespaced=False
)
CILIUM_LOAD_BALANCER_IP_POOLS = _cilium("ciliumloadbalancerippools", "CiliumLoadBalancerIPPool", namespaced=False)
CILIUM_L2_ANNOUNCEMENT_POLICIES = _cilium(
    "ciliuml2announcementpolicies", "CiliumL2AnnouncementPolicy", namespaced=False, version="v2alpha1"
)
