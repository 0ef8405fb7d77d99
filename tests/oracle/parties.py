"""Who is who, for the policy model: Kubernetes manifests in, the two ends of a flow with their labels out.

Everything is a string or a dict as it stands in YAML; numbered choices are those of `deviations.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, NamedTuple

Object = dict[str, Any]
POLICY_KINDS = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "NetworkPolicy")
NAMESPACE_KEY = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
CLUSTER_KEY = "io.cilium.k8s.policy.cluster"
ACCOUNT_KEY = "io.cilium.k8s.policy.serviceaccount"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
# Keys of pods that identities leave out (choice 9); `app.kubernetes.io` is kept although it resembles them.
IGNORED = (
    "io.kubernetes",
    "kubernetes.io",
    "k8s.io",
    "beta.kubernetes.io",
    "topology.kubernetes.io",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "pod-template-",
    "controller-revision-hash",
    "controller-uid",
    "annotation",
    "etcd_node",
)


class Party(NamedTuple):
    """One end of a flow. `labels` maps a key to its (source, value) pairs; `ports` are (name, protocol, number)."""

    kind: str  # pod, node or world
    name: str
    namespace: str
    node: str
    labels: dict[str, list[tuple[str, str]]]
    pod_labels: dict[str, str]
    address: str
    ports: tuple[tuple[str, str, int], ...]

    def has(self, source: str, key: str) -> bool:
        return any(found == source for found, _ in self.labels.get(key, ()))


class Cluster:
    """Manifests sorted by kind; nothing is derived here."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self.objects = list(objects)
        self.pods = {f"{namespace_of(pod)}/{pod['metadata']['name']}": pod for pod in self.of("Pod")}
        self.nodes = {node["metadata"]["name"]: node for node in self.of("Node")}
        self.namespaces = {found["metadata"]["name"]: found for found in self.of("Namespace")}
        self.policies = [found for found in objects if found["kind"] in POLICY_KINDS]
        self.apiservers = [
            address
            for piece in self.of("EndpointSlice")
            if namespace_of(piece) == "default"
            and (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == "kubernetes"
            for endpoint in piece.get("endpoints") or []
            for address in endpoint["addresses"][:1]
        ]
        config: dict[str, str] = {}
        for found in self.of("ConfigMap"):
            if (found["metadata"]["name"], namespace_of(found)) == ("cilium-config", "kube-system"):
                config = found.get("data") or {}
        self.cluster_name = config.get("cluster-name") or "default"
        self.host_always = (config.get("allow-localhost") or "always") != "policy"
        self.cidr_modes = (config.get("policy-cidr-match-mode") or "").replace(",", " ").split()

    def of(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def namespace_labels(self, name: str) -> dict[str, str]:
        labels = (self.namespaces.get(name) or {"metadata": {}})["metadata"].get("labels") or {}
        return {**labels, "kubernetes.io/metadata.name": name}


def namespace_of(found: Object) -> str:
    return found["metadata"].get("namespace") or "default"


def packed(address: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


def inside(address: str, cidr: str) -> bool:
    """Whether an address lies in a prefix of its own family; bits right of the length do not count."""
    base, _, length = cidr.partition("/")
    one, other = packed(address), packed(base)
    if len(one) != len(other):
        return False
    shift = len(one) * 8 - int(length or len(one) * 8)
    return int.from_bytes(one, "big") >> shift == int.from_bytes(other, "big") >> shift


def addresses(found: Object) -> list[str]:
    """Of a pod or a node."""
    status = found.get("status") or {}
    if found["kind"] == "Node":
        return [entry["address"] for entry in status.get("addresses") or [] if entry["type"] == "InternalIP"]
    several = [entry["ip"] for entry in status.get("podIPs") or []]
    return several or ([status["podIP"]] if status.get("podIP") else [])


def family_of(address: str) -> int:
    return 6 if ":" in address else 4


def _in_family(found: Object, family: int) -> str:
    return next((address for address in addresses(found) if family_of(address) == family), "")


def host_network(pod: Object) -> bool:
    return bool((pod.get("spec") or {}).get("hostNetwork"))


def ends(cluster: Cluster, flow: Object) -> tuple[Party, Party, int]:
    """Source, destination and family of a flow (choices 1, 2 and 7)."""
    raw = [_by_address(cluster, flow[side]) for side in ("from", "to")]
    family = _family(cluster, flow, raw)
    homes = [_home(cluster, end) for end in raw]
    source = _party(cluster, raw[0], homes[1], family)
    return source, _party(cluster, raw[1], homes[0], family), family


def _by_address(cluster: Cluster, end: Object) -> Object:
    """An `ip` end becomes the pod or node that has the address; a pod on its node's network becomes the node."""
    if "ip" in end:
        for name, pod in cluster.pods.items():
            if not host_network(pod) and any(packed(have) == packed(end["ip"]) for have in addresses(pod)):
                return {"pod": name, "ip": end["ip"]}
        for name, node in cluster.nodes.items():
            if any(packed(have) == packed(end["ip"]) for have in addresses(node)):
                return {"node": name, "ip": end["ip"]}
    elif "pod" in end and host_network(cluster.pods[end["pod"]]):
        return {"node": cluster.pods[end["pod"]]["spec"]["nodeName"]}
    return end


def _family(cluster: Cluster, flow: Object, raw: list[Object]) -> int:
    if flow.get("family"):
        return flow["family"]
    if flow["protocol"] == "ICMPv6":
        return 6
    for end in raw:
        if "ip" in end:
            return family_of(end["ip"])
    pods = [cluster.pods[end["pod"]] for end in raw if "pod" in end]
    return 4 if all(_in_family(pod, 4) for pod in pods) else 6


def _home(cluster: Cluster, end: Object) -> str:
    return cluster.pods[end["pod"]]["spec"].get("nodeName") or "" if "pod" in end else ""


def _party(cluster: Cluster, end: Object, home: str, family: int) -> Party:
    """An end as the other one sees it, which is a pod on the node `home` ("" when it is no pod)."""
    if "pod" in end:
        return _pod(cluster, end["pod"], family)
    if "node" in end:
        return _node(cluster, end["node"], home, family)
    if "ip" in end:
        return _outside(cluster, end["ip"])
    if end["entity"] == "host":
        return _node(cluster, home, home, family)
    masters = sorted(name for name, node in cluster.nodes.items() if _has_apiserver(cluster, node))
    if end["entity"] == "kube-apiserver" and masters:
        return _node(cluster, home if home in masters else masters[0], home, family)
    reserved = {"remote-node": [("reserved", "")]}
    if end["entity"] == "kube-apiserver":
        for address in cluster.apiservers:
            if family_of(address) == family:
                return _outside(cluster, address)
        reserved["kube-apiserver"] = [("reserved", "")]
    return Party("node", end["entity"], "", "", reserved, {}, "", ())


def _outside(cluster: Cluster, address: str) -> Party:
    """An address that is no pod's and no node's; an API server may be there."""
    reserved = {"world": [("reserved", "")], f"world-ipv{family_of(address)}": [("reserved", "")]}
    if any(packed(address) == packed(known) for known in cluster.apiservers):
        reserved["kube-apiserver"] = [("reserved", "")]
    return Party("world", address, "", "", reserved, {}, address, ())


def _has_apiserver(cluster: Cluster, node: Object) -> bool:
    if cluster.apiservers:
        own = [packed(address) for address in addresses(node)]
        return any(packed(address) in own for address in cluster.apiservers)
    return CONTROL_PLANE in (node["metadata"].get("labels") or {})


def _node(cluster: Cluster, name: str, home: str, family: int) -> Party:
    reserved = {"host" if name == home else "remote-node": [("reserved", "")]}
    node = cluster.nodes.get(name)
    if node and _has_apiserver(cluster, node):
        reserved["kube-apiserver"] = [("reserved", "")]
    return Party("node", name, "", name, reserved, {}, _in_family(node, family) if node else "", ())


def _pod(cluster: Cluster, full_name: str, family: int) -> Party:
    pod = cluster.pods[full_name]
    namespace, spec = namespace_of(pod), pod.get("spec") or {}
    kept = {
        key: value
        for key, value in (pod["metadata"].get("labels") or {}).items()
        if not key.startswith(IGNORED) and not key.startswith((NAMESPACE_KEY, "io.cilium.k8s."))
    }
    labels = {key: [("k8s", value)] for key, value in kept.items()}
    labels[NAMESPACE_KEY] = [("k8s", namespace)]
    labels[CLUSTER_KEY] = [("k8s", cluster.cluster_name)]
    labels[ACCOUNT_KEY] = [("k8s", spec.get("serviceAccountName") or "default")]
    for key, value in cluster.namespace_labels(namespace).items():
        labels[NAMESPACE_LABELS + key] = [("k8s", value)]
    node = spec.get("nodeName") or ""
    return Party("pod", full_name, namespace, node, labels, kept, _in_family(pod, family), named_ports(pod))


def named_ports(pod: Object) -> tuple[tuple[str, str, int], ...]:
    """Name, protocol and number of each."""
    return tuple(
        (port["name"], port.get("protocol") or "TCP", port["containerPort"])
        for container in (pod.get("spec") or {}).get("containers") or []
        for port in container.get("ports") or []
        if port.get("name")
    )
