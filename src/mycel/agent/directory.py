"""Names for flows: who has an address, what an identity's labels are, which service a frontend is."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping

from mycel.agent.identities import Identities
from mycel.agent.ipam import ingress_address
from mycel.agent.planner import Planner
from mycel.agent.policies import Policies
from mycel.agent.rule_names import RuleNames
from mycel.agent.watches import Watches
from mycel.flow.owners import Owners
from mycel.flow.records import Endpoint, Owner, PolicyName, Request, ServiceName
from mycel.identity.reserved import HOST, INGRESS, RESERVED_LABELS
from mycel.model.address import ANY_IPV4, Address, parse_address
from mycel.model.workload import IdentityId
from mycel.plan.rows import ThisNode
from mycel.policy.labels import label_texts
from mycel.policy.requests import Asked
from mycel.policy.rules import RuleRef


class StoreDirectory:
    """A `flow.records.Directory` over the agent's stores.

    The tables are made anew after a change, on demand.
    """

    def __init__(
        self,
        watches: Watches,
        *,
        pods: Owners,
        identities: Identities,
        planner: Planner,
        policies: Policies,
        rules: RuleNames,
        this: Callable[[], ThisNode],
        identity: Callable[[Address], int],
        names: Callable[[bytes], tuple[str, ...]],
        cluster: str,
    ) -> None:
        self._watches = watches
        self._pods = pods
        self._identities = identities
        self._planner = planner
        self._policies = policies
        self._rules = rules
        self._this = this
        self._identity = identity
        self._names = names
        self._cluster = cluster
        self._version = 1
        self._nodes: dict[bytes, Endpoint] | None = None
        self._services: dict[bytes, dict[tuple[int, int], ServiceName]] | None = None
        self._services_of = -1

    @property
    def version(self) -> int:
        """See flow.records.Directory."""
        return self._version + self._policies.engine.relabelled

    def changed(self) -> None:
        """Something that has names changed."""
        self._version += 1
        self._nodes = None

    def owner(self, address: Address, identity: int, at_ns: int) -> Owner:
        """Who had the address at a moment. Nodes keep theirs."""
        if self._nodes is None:
            self._nodes = self._index_nodes()
        node = self._nodes.get(address)
        return Owner(node, 0) if node is not None else self._pods.at(address, identity, at_ns)

    def labels(self, identity: int) -> tuple[str, ...]:
        """Labels of an identity."""
        number = IdentityId(identity)
        if number >> 24 == 1 and (party := self._policies.engine.party(number)) is not None:
            return label_texts(party.labels)
        return RESERVED_LABELS.get(number) or self._identities.labels(number)

    def identity(self, address: Address) -> int:
        """What the kernel takes an address for."""
        return self._identity(address)

    def services(self, address: Address) -> Mapping[tuple[int, int], ServiceName]:
        """Frontends on an address. NodePorts are on every address of this node."""
        if self._services is None or self._services_of != self._planner.frontends_version:
            self._services_of = self._planner.frontends_version
            self._services = self._index_services()
        return self._services.get(address, {})

    def names(self, address: Address) -> tuple[str, ...]:
        """DNS names, as this node's DNS proxy learnt them."""
        return self._names(address)

    def policies(self, rule: int, endpoint_id: int, *, ingress: bool, denied: bool) -> tuple[PolicyName, ...]:
        """The rules of a verdict; of a default denial the policies that switched it on."""
        return self._named(self._rules.of_verdict(rule, endpoint_id, ingress=ingress, denied=denied))

    def request_policies(self, request: Request) -> tuple[PolicyName, ...]:
        """The rules behind a proxy's verdict."""
        asked = Asked(request.protocol, request.port, request.denied, request.rule, request.query)
        refs = self._rules.of_request(
            asked, request.listener, request.endpoint_id, peer=request.peer, ingress=request.ingress
        )
        return self._named(refs)

    def _named(self, refs: Iterable[RuleRef]) -> tuple[PolicyName, ...]:
        return tuple(PolicyName(*ref, self._policies.objects.revision_of(ref)) for ref in refs)

    def interface(self, ifindex: int) -> str:
        """The device's name."""
        try:
            return socket.if_indextoname(ifindex)
        except OSError:
            return ""

    def _index_nodes(self) -> dict[bytes, Endpoint]:
        found: dict[bytes, Endpoint] = {}
        for node in self._watches.nodes.store.values():
            number = HOST if node.name == self._this().name else IdentityId(6)
            record = Endpoint(identity=number, labels=RESERVED_LABELS[number], cluster_name=self._cluster)
            for text in (*node.internal_addresses, *node.other_addresses):
                found[parse_address(text)] = record
        host = Endpoint(identity=HOST, labels=RESERVED_LABELS[HOST], cluster_name=self._cluster)
        found |= dict.fromkeys((*self._this().addresses, *self._this().router_addresses), host)
        ingress = Endpoint(identity=INGRESS, labels=RESERVED_LABELS[INGRESS], cluster_name=self._cluster)
        for node in self._watches.nodes.store.values():
            found |= dict.fromkeys(map(ingress_address, node.pod_networks), ingress)
        return found

    def _index_services(self) -> dict[bytes, dict[tuple[int, int], ServiceName]]:
        found: dict[bytes, dict[tuple[int, int], ServiceName]] = {}
        this = self._this()
        for key, frontend in self._planner.frontends.items():
            name = ServiceName(frontend.service.namespace, frontend.service.name)
            addresses = this.addresses if key.address == ANY_IPV4 else (key.address,)
            for address in addresses:
                found.setdefault(address, {})[key.port, key.protocol] = name
        return found
