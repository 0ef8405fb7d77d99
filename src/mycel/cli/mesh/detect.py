"""What a cluster is like, before anything is installed: read from its API, judged by pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from mycel.cli.errors import Failure
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.resources import DAEMON_SETS, ENDPOINT_SLICES, NODES, SERVICES, Resource

if TYPE_CHECKING:
    from mycel.k8s.client import ApiClient

Object = dict[str, Any]
_SERVICE_CIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False)
_NO_SERVICE = "192.0.2.1"  # TEST-NET-1 (RFC 5737): no cluster's services are there
# What an API server says of an address that is not a service's; the same words since Kubernetes 1.0.
_VALID_RANGE = re.compile(r"range of valid IPs is ([0-9.]+/\d+)")


class Flavour(Enum):
    """Who runs the cluster; decides what nodes bring along."""

    EMBEDDED = "mycel (this machine)"
    KIND = "kind"
    MINIKUBE = "minikube"
    K3S = "k3s"
    EKS = "EKS"
    GKE = "GKE"
    AKS = "AKS"
    OTHER = "Kubernetes"


_PROVIDERS = {
    "mycel": Flavour.EMBEDDED,
    "kind": Flavour.KIND,
    "k3s": Flavour.K3S,
    "aws": Flavour.EKS,
    "gce": Flavour.GKE,
    "azure": Flavour.AKS,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found."""

    flavour: Flavour
    version: str
    context: str
    nodes: int
    api_host: str
    api_port: int
    kube_proxy: bool
    pod_networks: tuple[str, ...]
    service_network: str = ""  # empty: the cluster does not tell

    def lines(self) -> list[tuple[str, str]]:
        """For people: what and what was found."""
        networks = ", ".join(self.pod_networks) or "none yet (the node controller gives them out)"
        return [
            ("cluster", f"{self.flavour.value}, Kubernetes {self.version}, context {self.context}"),
            ("nodes", f"{self.nodes}, pod networks {networks}"),
            ("services", self.service_network or "network not known"),
            ("API server", f"{self.api_host}:{self.api_port}, as nodes reach it"),
            ("kube-proxy", "present; the mesh answers before it does" if self.kube_proxy else "absent"),
        ]


async def detect(client: ApiClient) -> Facts:
    """Ask the cluster. Raises Failure when it has no nodes or hides its API server's address."""
    version = await _version(client)
    nodes = (await client.list(NODES)).items
    slices = await client.list(
        ENDPOINT_SLICES, namespace="default", label_selector="kubernetes.io/service-name=kubernetes"
    )
    try:
        await client.get(DAEMON_SETS, "kube-proxy", namespace="kube-system")
        kube_proxy = True
    except NotFound:
        kube_proxy = False
    host, port = api_address(slices.items)
    return Facts(
        flavour=flavour(nodes, client.endpoint.context),
        version=version,
        context=client.endpoint.context or client.endpoint.server,
        nodes=len(nodes),
        api_host=host,
        api_port=port,
        kube_proxy=kube_proxy,
        pod_networks=pod_networks(nodes),
        service_network=await _service_network(client),
    )


async def _service_network(client: ApiClient) -> str:
    """The IPv4 network of service addresses: from a ServiceCIDR, or from how the server refuses a wrong address."""
    try:
        cidrs = [cidr for item in (await client.list(_SERVICE_CIDRS)).items for cidr in item["spec"]["cidrs"]]
    except ApiError:  # not served before Kubernetes 1.33, or not for us
        cidrs = []
    if not cidrs:
        probe = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"generateName": "mycel-probe-", "namespace": "default"},
            "spec": {"clusterIP": _NO_SERVICE, "ports": [{"port": 80}]},
        }
        try:
            path = SERVICES.path("default", "")
            await client.request("POST", path, params={"dryRun": "All"}, body=msgspec.json.encode(probe))
        except ApiError as exc:
            cidrs = _VALID_RANGE.findall(str(exc))
    return next((cidr for cidr in cidrs if ":" not in cidr), "")


async def _version(client: ApiClient) -> str:
    answer: Object = msgspec.json.decode(await client.request("GET", "/version"))
    return str(answer.get("gitVersion", "unknown"))


def flavour(nodes: Sequence[Object], context: str) -> Flavour:
    """By what runs the containers or provides the nodes, else by the context's name."""
    for node in nodes:
        runtime = node.get("status", {}).get("nodeInfo", {}).get("containerRuntimeVersion", "")
        for url in (str(runtime), str(node.get("spec", {}).get("providerID", ""))):
            scheme = url.partition("://")[0]
            if scheme in _PROVIDERS:
                return _PROVIDERS[scheme]
    if context.startswith("kind-"):
        return Flavour.KIND
    if any("minikube.k8s.io/name" in node["metadata"].get("labels", {}) for node in nodes):
        return Flavour.MINIKUBE
    return Flavour.OTHER


def api_address(slices: Sequence[Object]) -> tuple[str, int]:
    """Where nodes find the API server without any service: the endpoints of the `kubernetes` service."""
    for item in slices:
        addresses = [
            address
            for endpoint in item.get("endpoints") or []
            if endpoint.get("conditions", {}).get("ready") is not False
            for address in endpoint.get("addresses") or []
        ]
        ports = [port.get("port") for port in item.get("ports") or []]
        if addresses and ports and ports[0]:
            return str(addresses[0]), int(ports[0])
    raise Failure(
        "the service default/kubernetes has no endpoints, so nodes cannot be told where the API server is",
        hint="Give it yourself: --set k8sServiceHost=ADDRESS --set k8sServicePort=PORT",
    )


def pod_networks(nodes: Sequence[Object]) -> tuple[str, ...]:
    """The nodes' pod networks, in order and without repeats."""
    found: dict[str, None] = {}
    for node in nodes:
        spec: Object = node.get("spec", {})
        for network in spec.get("podCIDRs") or [spec.get("podCIDR")]:
            if network:
                found[str(network)] = None
    return tuple(found)
