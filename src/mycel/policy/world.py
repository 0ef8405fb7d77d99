"""A cluster as manifests describe it: pods with identities, nodes, addresses, services, policies.

What an agent learns from the API server and its node, learnt from objects alone, so that the same engine can
answer offline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mycel.identity.labels import identity_labels
from mycel.identity.reserved import HOST, REMOTE_NODE, WORLD
from mycel.model.address import Address, is_ipv4
from mycel.model.workload import IdentityId, NamedPort, PodRef
from mycel.policy.engine import Engine, PolicyKeyRef
from mycel.policy.errors import ManifestInvalid, PolicyInvalid
from mycel.policy.fields import Field, labels_of, read_address
from mycel.policy.fqdn import Selectors, canonical_name
from mycel.policy.held import ALL_IPV4, ALL_IPV6
from mycel.policy.judge import API_HOST
from mycel.policy.names import Named
from mycel.policy.parse import CIDR_GROUP_KIND, POLICY_KINDS, parse_cidr_group, parse_policy
from mycel.policy.parties import party_of, reserved_parties
from mycel.policy.resolve import Resolution, ServiceFacts
from mycel.policy.rules import PROTOCOLS, Network, Party, host_network
from mycel.policy.services import Services, slice_ends

_FIRST_IDENTITY = 256
_KUBE_APISERVER = IdentityId(7)
_API_HOST_PARTY = party_of(API_HOST, ("reserved:host", "reserved:kube-apiserver"))
_KINDS = ("Namespace", "Node", "Pod", "Service", "Endpoints", "EndpointSlice", CIDR_GROUP_KIND, *POLICY_KINDS)
_LOWER = {kind.lower(): kind for kind in _KINDS}
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


class ContainerPorts(NamedTuple):
    """A port a pod listens on."""

    port: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the manifests."""

    ref: PodRef
    node: str
    host_network: bool
    addresses: tuple[Address, ...]
    ports: tuple[ContainerPorts, ...]
    party: Party | None  # None: it has its node's identity
    labels: Mapping[str, str]  # as they are written, for selectors of services
    named_ports: Mapping[tuple[str, int], int]  # by name and protocol, as services name them

    def address(self, *, ipv6: bool) -> Address | None:
        """Its address of a family."""
        return next((each for each in self.addresses if is_ipv4(each) != ipv6), None)


@dataclass
class World:
    """Everything manifests say."""

    engine: Engine
    resolution: Resolution
    services: Services = field(default_factory=Services)
    cluster: str = "default"
    allow_host: bool = True
    pods: dict[PodRef, Pod] = field(default_factory=dict[PodRef, Pod])
    by_address: dict[Address, Pod] = field(default_factory=dict[Address, Pod])
    nodes: dict[Address, str] = field(default_factory=dict[Address, str])
    api_nodes: set[str] = field(default_factory=set[str])
    api_outside: tuple[Address, ...] = ()  # of API servers that are none of the nodes
    parties: dict[IdentityId, Party] = field(default_factory=dict[IdentityId, Party])
    _pods: dict[tuple[IdentityId, Address], IdentityId] = field(
        default_factory=dict[tuple[IdentityId, Address], IdentityId]
    )
    _known: dict[tuple[Address, str, bool], IdentityId] = field(
        default_factory=dict[tuple[Address, str, bool], IdentityId]
    )

    def pod_identity(self, party: Party, address: Address | None) -> IdentityId:
        """Who a pod is to policy, met at an address."""
        if address is None:
            return party.identity
        memo = (party.identity, address)
        if memo not in self._pods:
            self._pods[memo] = self.engine.alias(party, address)
        return self._pods[memo]

    def identity_of(self, address: Address, *, seen_from: str, ipv6: bool, ingress: bool) -> IdentityId:
        """Who an address that is no pod's is to a node."""
        memo = (address, seen_from, ingress)
        if memo not in self._known:
            node = self.nodes.get(address)
            self._known[memo] = (
                self._prefix_identity(address)
                if node is None
                else self.node_identity(node, address, seen_from=seen_from, ipv6=ipv6, ingress=ingress)
            )
        return self._known[memo]

    def named_identity(self, names: Iterable[str], address: Address | None, *, ipv6: bool) -> IdentityId | None:
        """Who an address is that DNS answered with for these names; None where no rule is about any of them."""
        meant = Selectors(self.engine.names.selectors)
        selectors = sorted({each for name in names for each in meant.matching(canonical_name(name))})
        if not selectors or address in self.nodes or address in self.by_address:
            return None
        whole = ALL_IPV6 if ipv6 else ALL_IPV4
        network = self._network_of(address) if address is not None else None
        return self.engine.names.identity(Named(tuple(selectors), network or whole))

    def node_identity(
        self, node: str, address: Address | None, *, seen_from: str, ipv6: bool, ingress: bool
    ) -> IdentityId:
        """Who a node is to another one, or to itself; without an address it is met at the family's first."""
        runs_api = node in self.api_nodes
        if node == seen_from:
            number = API_HOST if runs_api else HOST
        else:
            number = _KUBE_APISERVER if runs_api else REMOTE_NODE
        at = address or self._node_address(node, ipv6=ipv6)
        return self.engine.alias(self.parties[number], at) if at else number

    def apiserver_identity(self, *, seen_from: str, ipv6: bool, ingress: bool) -> IdentityId:
        """Who the API server is to a node: itself, or the first node that runs one, or one outside."""
        if seen_from in self.api_nodes:
            return self.node_identity(seen_from, None, seen_from=seen_from, ipv6=ipv6, ingress=ingress)
        if self.api_nodes:
            return self.node_identity(min(self.api_nodes), None, seen_from=seen_from, ipv6=ipv6, ingress=ingress)
        outside = next((each for each in self.api_outside if is_ipv4(each) != ipv6), None)
        return self._prefix_identity(outside) if outside else _KUBE_APISERVER

    def _node_address(self, node: str, *, ipv6: bool) -> Address | None:
        return next((at for at, name in self.nodes.items() if name == node and is_ipv4(at) != ipv6), None)

    def _prefix_identity(self, address: Address) -> IdentityId:
        network = self._network_of(address)
        return self.engine.networks[network] if network else WORLD

    def _network_of(self, address: Address) -> Network | None:
        """The longest prefix of policies over an address."""
        own = host_network(address)
        found = [network for network in self.engine.networks if network.contains(own)]
        return max(found, key=lambda network: network.length, default=None)


def read_world(objects: Iterable[Mapping[str, Any]], *, cluster: str = "") -> World:
    """Build it; `cluster` is its name, unless the mesh's ConfigMap is there and says.

    Raises ManifestInvalid for an object that is none of its kind; kinds that do not matter are skipped.
    """
    listed = list(objects)
    resolution = Resolution()
    settings = _settings(listed)
    cluster = cluster or settings.get("cluster-name") or "default"
    modes = frozenset(settings.get("policy-cidr-match-mode", "").replace(",", " ").split())
    world = World(
        Engine(resolve=resolution.resolve, cidr_modes=modes),
        resolution,
        cluster=cluster,
        allow_host=settings.get("allow-localhost", "always") != "policy",
    )
    for party in (*reserved_parties(), _API_HOST_PARTY):
        world.engine.set_party(party)
        world.parties[party.identity] = party
    namespaces: dict[str, dict[str, str]] = {}
    numbers: dict[tuple[str, ...], IdentityId] = {}
    for index, manifest in enumerate(listed):
        try:
            _take(world, Field(dict(manifest), ""), namespaces)
        except PolicyInvalid as exc:
            raise ManifestInvalid(index, _name(manifest), exc) from exc
    if resolution.apiservers:  # agents go by these; node labels are for manifests that do not say
        world.api_nodes = {world.nodes[each] for each in resolution.apiservers if each in world.nodes}
    for index, manifest in enumerate(listed):
        try:
            if manifest.get("kind") == "Pod":
                _take_pod(world, Field(dict(manifest), ""), namespaces, numbers, cluster)
            elif manifest.get("kind") in POLICY_KINDS:
                policies = parse_policy(manifest, cluster=cluster)
                ref = policies[0].ref
                world.engine.set_policy(PolicyKeyRef(ref.kind, ref.namespace, ref.name), policies)
        except PolicyInvalid as exc:
            raise ManifestInvalid(index, _name(manifest), exc) from exc
    world.api_outside = tuple(
        each for each in sorted(set(resolution.apiservers)) if each not in world.nodes and each not in world.by_address
    )
    world.engine.set_apiservers(map(host_network, world.api_outside))
    return world


def _settings(objects: list[Mapping[str, Any]]) -> Mapping[str, str]:
    """The mesh's own settings, where its ConfigMap is among the manifests. Raises ManifestInvalid."""
    for index, manifest in enumerate(objects):
        root = Field(dict(manifest), "")
        try:
            if manifest.get("kind") == "ConfigMap" and root["metadata"]["name"].value == "cilium-config":
                return {str(key): str(value) for key, value in root["data"].mapping().items()}
        except PolicyInvalid as exc:
            raise ManifestInvalid(index, _name(manifest), exc) from exc
    return {}


def _name(manifest: Mapping[str, Any]) -> str:
    metadata = manifest.get("metadata") or {}
    parts = (metadata.get("namespace"), metadata.get("name")) if isinstance(metadata, dict) else ()
    return f"{manifest.get('kind', 'object')} {'/'.join(str(part) for part in parts if part)}".strip()


def _take(world: World, root: Field, namespaces: dict[str, dict[str, str]]) -> None:
    """Objects others refer to, and kinds that are nearly one's name. Raises PolicyInvalid."""
    match root.value.get("kind"):
        case "Namespace":
            name = root["metadata"]["name"].text()
            namespaces[name] = {"kubernetes.io/metadata.name": name} | labels_of(root["metadata"]["labels"])
        case "Node":
            name = root["metadata"]["name"].text()
            if _CONTROL_PLANE in root["metadata"]["labels"].mapping():
                world.api_nodes.add(name)
            for each in root["status"]["addresses"].items():
                if each["type"].text("") in ("InternalIP", "ExternalIP"):
                    world.nodes[read_address(each["address"])] = name
        case "Service" if "/" not in str(root.value.get("apiVersion")):  # others have kinds of that name, too
            service = _service(root)
            world.resolution.services[service.namespace, service.name] = service
            world.services.take(root)
        case "EndpointSlice":
            _take_slice(world, root)
        case "Endpoints":
            _take_endpoints(world, root)
        case kind if kind == CIDR_GROUP_KIND:
            labels = labels_of(root["metadata"]["labels"])
            world.resolution.groups[root["metadata"]["name"].text()] = (labels, parse_cidr_group(root.value))
        case kind:
            meant = _LOWER.get(str(kind).lower(), kind)
            if meant != kind:
                raise root["kind"].fail(f"there is no kind {kind}; did you mean {meant}?")


def _service(root: Field) -> ServiceFacts:
    metadata = root["metadata"]
    return ServiceFacts(
        namespace=metadata["namespace"].text("default"),
        name=metadata["name"].text(),
        labels=labels_of(metadata["labels"]),
        selector=labels_of(root["spec"]["selector"]),
    )


def _take_slice(world: World, root: Field) -> None:
    """Addresses of the service that its label names."""
    name = root["metadata"]["labels"].mapping().get("kubernetes.io/service-name")
    if not name:
        return
    place = (root["metadata"]["namespace"].text("default"), str(name))
    ends = list(slice_ends(root))
    world.resolution.addresses.setdefault(place, []).extend(address for address, _ in ends)
    world.services.take_slice(place, root, [address for address, ready in ends if ready])


def _take_endpoints(world: World, root: Field) -> None:
    place = (root["metadata"]["namespace"].text("default"), root["metadata"]["name"].text())
    ready = world.services.take_endpoints(place, root)
    world.resolution.addresses.setdefault(place, []).extend(address for each in ready for address in each.addresses)


def _take_pod(
    world: World,
    root: Field,
    namespaces: Mapping[str, Mapping[str, str]],
    numbers: dict[tuple[str, ...], IdentityId],
    cluster: str,
) -> None:
    metadata, spec, status = root["metadata"], root["spec"], root["status"]
    ref = PodRef(metadata["namespace"].text("default"), metadata["name"].text())
    addresses = [read_address(each["ip"]) for each in status["podIPs"].items()]
    if not status["podIP"].absent and status["podIP"].value:
        addresses.insert(0, read_address(status["podIP"]))
    ports: list[tuple[str, ContainerPorts]] = []
    for container in (*spec["containers"].items(), *spec["initContainers"].items()):
        for each in container["ports"].items():
            number = each["containerPort"].number(least=1, most=65535)
            protocol = each["protocol"].choice("TCP", "UDP", "SCTP", default="TCP")
            if number is not None:
                ports.append((each["name"].text(""), ContainerPorts(number, protocol)))
    host_network = bool(spec["hostNetwork"].flag())
    party = None
    if not host_network:
        labels = identity_labels(
            labels_of(metadata["labels"]),
            ref.namespace,
            namespace_labels=namespaces.get(ref.namespace, {"kubernetes.io/metadata.name": ref.namespace}),
            service_account=spec["serviceAccountName"].text(""),
            named_ports=[NamedPort(name, port.port, port.protocol) for name, port in ports if name],
            cluster=cluster,
        )
        number = numbers.setdefault(labels, IdentityId(_FIRST_IDENTITY + len(numbers)))
        party = party_of(number, labels)
        world.engine.set_party(party)
        world.parties[number] = party
    pod = Pod(
        ref=ref,
        node=spec["nodeName"].text(""),
        host_network=host_network,
        addresses=tuple(dict.fromkeys(addresses)),
        ports=tuple(dict.fromkeys(port for _, port in ports)),
        party=party,
        labels=labels_of(metadata["labels"]),
        # Containers may share a name; to services the first has it.
        named_ports={(name, PROTOCOLS[port.protocol]): port.port for name, port in reversed(ports) if name},
    )
    world.pods[ref] = pod
    if not host_network:
        world.by_address |= dict.fromkeys(pod.addresses, pod)
