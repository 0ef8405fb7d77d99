"""What this node's pods enforce: by the policies in force, for the planner to put into rows.

An endpoint goes on with the sets it has until the listeners are there that new ones name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from mycel.abi import (
    LIMIT_POLICY_ROWS,
    AliasKey,
    AliasValue,
    EndpointValue,
    InterfaceKey,
    IpcacheKey,
    IpcacheLpmKey,
    IpcacheValue,
)
from mycel.agent.endpoints import Endpoints
from mycel.agent.planner import PolicyPlan
from mycel.agent.policy_objects import PolicyObjects
from mycel.agent.referents import Referents
from mycel.agent.views import EndpointPolicyView
from mycel.agent.watches import Watches, follow
from mycel.identity.reserved import HOST, RESERVED_LABELS
from mycel.k8s.informer import Key
from mycel.model.address import Address
from mycel.model.workload import EndpointId, Identity, IdentityId, LocalEndpoint, PodRef
from mycel.plan.rows import EndpointPolicy
from mycel.policy.engine import Engine, PolicyKeyRef
from mycel.policy.labels import label_texts
from mycel.policy.parties import party_of, reserved_parties
from mycel.policy.rules import Network, Party, has_l7, host_network
from mycel.policy.subjects import Subject
from mycel.policy.visibility import Visible

log = logging.getLogger(__name__)
T = TypeVar("T")


class Listeners(Protocol):
    """What rows wait for: the listeners of proxies that they name."""

    def pending(self, numbers: tuple[int, int]) -> bool:
        """Whether listeners that the rows of these sets name are still to come."""
        ...

    def refused(self, number: int) -> str:
        """Why a listener that the rows of this set name is not there for good; empty when there is no such one."""
        ...

    def planned(self) -> None:
        """The sets in use may be others."""
        ...

    def subscribe(self, hearer: Callable[[], None]) -> None:
        """Call `hearer` whenever these answers may be other than before."""
        ...


class Policies:
    """See the module."""

    def __init__(
        self,
        engine: Engine,
        objects: PolicyObjects,
        referents: Referents,
        *,
        watches: Watches,
        endpoints: Endpoints,
        listeners: Listeners,
        visible: Callable[[PodRef], tuple[Visible, ...]],
        touch: Callable[[], None],
    ) -> None:
        """`visible`: what a proxy looks at of a pod's connections. `touch` is called when others may be enforced."""
        self.engine = engine
        self.objects = objects
        self._referents = referents
        self._watches = watches
        self._endpoints = endpoints
        self._listeners = listeners
        self._visible = visible
        self._touch = touch
        self.subjects: dict[EndpointId, Subject] = {}
        self._in_force: dict[EndpointId, EndpointPolicy] = {}
        self._adopted: dict[int, EndpointPolicy] = {}
        self._parties: dict[IdentityId, tuple[tuple[str, ...], Party]] = {}  # of this node's pods
        self._serial = 1
        self._waits = False
        self._is_apiserver = False
        self._networks: Mapping[Network, IdentityId] = {}
        self._prefixes: Mapping[tuple[Address, int], IdentityId] = {}
        self._ipcache: Mapping[IpcacheKey, IpcacheValue] | None = None
        self._aliases: Mapping[AliasKey, AliasValue] = {}
        self._enforcement_hearers: list[Callable[[LocalEndpoint], None]] = []
        listeners.subscribe(self._listeners_answered)
        for party in reserved_parties():
            self.engine.set_party(party)
        follow(watches.identities, self._identity_changed)

    def on_enforcement(self, hearer: Callable[[LocalEndpoint], None]) -> None:
        """Call `hearer` when an endpoint begins or ceases to enforce a direction."""
        self._enforcement_hearers.append(hearer)

    def adopt(
        self, interfaces: Mapping[InterfaceKey, EndpointValue], prefixes: Mapping[IpcacheLpmKey, IpcacheValue]
    ) -> None:
        """Go on with what the kernel enforces: an endpoint whose sets are the same keeps its revision."""
        self._adopted = {
            key.ifindex: EndpointPolicy(value.ingress_set, value.egress_set, value.policy_revision)
            for key, value in interfaces.items()
        }
        self._serial = max([self._serial, *(value.policy_revision for value in interfaces.values())])
        self.engine.adopt(
            {Network(Address(key.addr), key.prefixlen): _identity(value) for key, value in prefixes.items()}
        )

    # ---- for the planner

    def plan(self, ipcache: Mapping[IpcacheKey, IpcacheValue]) -> PolicyPlan:
        """What every endpoint of this node enforces, by the policies and identities known now.

        `ipcache` tells whose addresses there are: prefixes may tell addresses of one identity apart.
        """
        self._place_apiservers(ipcache)
        if self._referents.resolve_again():
            self.objects.revision += 1
        local = [each for each in self._endpoints.all().values() if each.identity]
        labels = {each.identity: each.labels for each in local}
        parties = {identity: self._party(identity, of) for identity, of in labels.items()}
        for party in parties.values():
            self.engine.set_party(party)  # the informer may not have seen a new one yet
        for identity in self._parties.keys() - parties.keys():
            self._is_nobodys_here(identity)
        self._parties = {identity: known for identity, known in self._parties.items() if identity in parties}
        self.subjects = {
            each.endpoint_id: self.engine.subject(parties[each.identity], self._visible(each.ref)) for each in local
        }
        wanted = {number for subject in self.subjects.values() for number in (side.number for side in subject)}
        self._in_force = self._enforce(local)
        wanted |= {number for each in self._in_force.values() for number in each[:2]}
        self._look_at_addresses(ipcache)
        sets = self.engine.sets(wanted)
        self._listeners.planned()
        return PolicyPlan(
            endpoints=self._in_force,
            sets={number: each.rows for number, each in sets.items()},
            networks=self._prefixes,
            aliases=self._aliases,
            revision=self.objects.realized_revision if self._waits else self.objects.revision,
        )

    @property
    def apiservers(self) -> Collection[Address]:
        """See policy.resolve.Resolution."""
        return self._referents.apiservers

    def _place_apiservers(self, ipcache: Mapping[IpcacheKey, IpcacheValue]) -> None:
        """An API server is this node, another one (`ipcache` says so), or an address that nobody of the cluster has."""
        rows = {address: ipcache.get(IpcacheKey(address)) for address in self.apiservers}
        here = any(row is not None and row.identity == HOST for row in rows.values())
        if here != self._is_apiserver:
            self._is_apiserver = here
            for party in reserved_parties(host_runs_apiserver=here):
                self.engine.set_party(party)
        self.engine.set_apiservers(host_network(address) for address, row in rows.items() if row is None)

    def _look_at_addresses(self, ipcache: Mapping[IpcacheKey, IpcacheValue]) -> None:
        """Prefixes and aliases, made anew only when they may be others: there may be many thousands."""
        if self._ipcache is not ipcache or self.engine.aliases_stale:
            aliases = self.engine.aliases((value.identity, Address(key.addr)) for key, value in ipcache.items())
            found = {AliasKey(address): AliasValue(number) for address, number in aliases.items()}
            self._aliases = self._aliases if found == self._aliases else found
            self._ipcache = ipcache
        networks = self.engine.networks
        if self._networks is not networks:
            self._networks = networks
            self._prefixes = {(network.address, network.length): number for network, number in networks.items()}

    def _party(self, identity: IdentityId, labels: tuple[str, ...]) -> Party:
        known = self._parties.get(identity)
        if known is None or known[0] != labels:
            known = self._parties[identity] = labels, party_of(identity, labels)
        return known[1]

    def _is_nobodys_here(self, identity: IdentityId) -> None:
        """None of this node's pods has the identity any more: it is what its object says, if there is one."""
        told = self._watches.identities.get(str(identity))
        if told is not None:
            self.engine.set_party(party_of(identity, told.labels))
        else:
            self.engine.drop_party(identity)

    def _enforce(self, local: Iterable[LocalEndpoint]) -> dict[EndpointId, EndpointPolicy]:
        """Each endpoint's sets; a new revision where they are others than the kernel's.

        An endpoint keeps the sets it has until the listeners are there that the new ones name.
        """
        found: dict[EndpointId, EndpointPolicy] = {}
        self._waits = False
        fresh = self._serial % 0xFFFF_FFFF + 1
        for each in local:
            ingress, egress = self.subjects[each.endpoint_id]
            known = self._in_force.get(each.endpoint_id) or self._adopted.pop(each.ifindex, None)
            if known is not None:
                wanted = ingress.number, egress.number
                same = (known.ingress_set, known.egress_set) == wanted
                if not same and self.engine.has_sets(known[:2]) and self._listeners.pending(wanted):
                    self._waits = same = True
                if same:
                    found[each.endpoint_id] = known
                    continue
            self._serial = fresh
            found[each.endpoint_id] = EndpointPolicy(ingress.number, egress.number, fresh)
            if known is None or (known.ingress_set > 0, known.egress_set > 0) != (ingress.enforced, egress.enforced):
                for hearer in self._enforcement_hearers:
                    hearer(each)
        return found

    def _listeners_answered(self) -> None:
        """A listener was taken or refused: policies with rules for the proxy may stand differently."""
        self._touch()
        for key, policies in self.engine.policies.items():
            if has_l7(policies):
                self.objects.tell(key)

    def refusal(self, key: PolicyKeyRef) -> str:
        """Why this object's rules for the proxy are not in force on this node; empty when they are."""
        if not has_l7(self.engine.policies.get(key, ())):
            return ""
        for subject in self.subjects.values():
            for side in subject:
                rules = side.rules.rules if side.rules else ()
                of_object = any(rule.l7 and PolicyKeyRef(*rule.ref[:3]) == key for rule in rules)
                known = of_object and self.engine.has_sets((side.number,))
                if known and (words := self._listeners.refused(side.number)):
                    return words
        return ""

    def overflows(self) -> dict[EndpointId, str]:
        """Endpoints that are closed because their rows do not fit, with the directions."""
        found: dict[EndpointId, str] = {}
        for endpoint_id, subject in self.subjects.items():
            full = [
                name
                for name, side in (("ingress", subject.ingress), ("egress", subject.egress))
                if side.enforced and self.engine.one_set(side.number).overflows
            ]
            if full:
                found[endpoint_id] = " and ".join(full)
        return found

    # ---- for people

    def endpoint_view(self, endpoint_id: EndpointId) -> EndpointPolicyView:
        """How far an endpoint's policy is."""
        judged = self._judged(endpoint_id)
        return EndpointPolicyView(
            planned_revision=self.objects.revision,
            realized_revision=self.objects.realized_revision,
            ingress=bool(judged.ingress_set),
            egress=bool(judged.egress_set),
        )

    def in_force(self, endpoint: LocalEndpoint) -> EndpointPolicy:
        """What an endpoint is to enforce, in directions that policies are about."""
        return self._judged(endpoint.endpoint_id)

    def _judged(self, endpoint_id: EndpointId) -> EndpointPolicy:
        held = self._in_force.get(endpoint_id, EndpointPolicy())
        subject = self.subjects.get(endpoint_id)
        if subject is None:
            return held
        return held._replace(
            ingress_set=held.ingress_set if subject.ingress.judged else 0,
            egress_set=held.egress_set if subject.egress.judged else 0,
        )

    def local_identities(self) -> dict[IdentityId, tuple[str, ...]]:
        """Identities this node gave to prefixes (whose first label is the prefix) and to names, with their labels."""
        prefixes = {number: (f"cidr:{network}",) for network, number in self.engine.networks.items()}
        named = dict.fromkeys(self.engine.names.identities.values(), ())
        return {
            number: first + label_texts(party.labels)
            for number, first in (prefixes | named).items()
            if number not in RESERVED_LABELS and (party := self.engine.party(number)) is not None
        }

    def problems(self) -> list[str]:
        """One sentence per endpoint that is closed because its rows do not fit."""
        return [
            f"{directions} of endpoint {number} is closed: its policy needs more rows than a set holds"
            f" ({LIMIT_POLICY_ROWS}); let fewer identities be selected, or split policies"
            for number, directions in sorted(self.overflows().items())
        ]

    # ---- what changes

    def _identity_changed(self, _key: Key, old: Identity | None, new: Identity | None) -> None:
        if new is not None:
            self.engine.set_party(party_of(new.id, new.labels))
        elif old is not None:
            self.engine.drop_party(old.id)
        self._touch()


def _identity(value: IpcacheValue) -> Any:
    return value.identity
