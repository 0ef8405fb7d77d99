"""The policies in force on this node: from what the API server has to what the planner puts into rows.

An object that is no policy changes nothing: what was in force of it before stays, and its status says what is
wrong. The revision grows by one with every object that is taken in or goes; it is realized when the kernel has
been read back (`realized_revision`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

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
from mycel.agent.named_secrets import NamedSecrets
from mycel.agent.planner import Part, Planner, PolicyPlan
from mycel.agent.policy_files import PolicyFiles
from mycel.agent.views import EndpointPolicyView
from mycel.agent.watches import Watches
from mycel.k8s.informer import Informer, Key
from mycel.model.address import Address, parse_address
from mycel.model.service import EndpointSlice, Service, ServiceRef
from mycel.model.workload import EndpointId, Identity, IdentityId, LocalEndpoint, PodRef
from mycel.plan.rows import EndpointPolicy
from mycel.policy.engine import Engine, PolicyKeyRef
from mycel.policy.errors import PolicyInvalid
from mycel.policy.parse import parse_cidr_group, parse_policy
from mycel.policy.parties import party_of, reserved_parties
from mycel.policy.requests import Asked, deciding
from mycel.policy.resolve import Resolution, ServiceFacts
from mycel.policy.rules import Network, Party, RuleRef, has_l7
from mycel.policy.subjects import Subject
from mycel.policy.visibility import Visible

log = logging.getLogger(__name__)
T = TypeVar("T")


class PolicyState(NamedTuple):
    """How one object stands on this node."""

    generation: int
    problem: str  # empty: it is valid
    revision: int  # from which on it is enforced
    taken_at: float  # loop time it was taken in


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
        resolution: Resolution,
        watches: Watches,
        endpoints: Endpoints,
        *,
        listeners: Listeners,
        secrets: NamedSecrets,
        visible: Callable[[PodRef], tuple[Visible, ...]],
        touch: Callable[[Part], None],
        files: PolicyFiles,
        cluster: str,
    ) -> None:
        """`resolution` is what `engine` resolves by, `secrets` are those policies name: both are filled here.

        `visible`: what a proxy looks at of a pod's connections.
        """
        self.engine = engine
        self._resolution = resolution
        self._watches = watches
        self._endpoints = endpoints
        self._listeners = listeners
        self._visible = visible
        self._touch = touch
        self._cluster = cluster
        self._files = files
        self._slices: defaultdict[ServiceRef, dict[Key, EndpointSlice]] = defaultdict(dict)
        self.states: dict[PolicyKeyRef, PolicyState] = {}
        self._secrets = secrets
        self.revision = 1
        self.realized_revision = 0
        self.subjects: dict[EndpointId, Subject] = {}
        self._in_force: dict[EndpointId, EndpointPolicy] = {}
        self._adopted: dict[int, EndpointPolicy] = {}
        self._parties: dict[IdentityId, tuple[tuple[str, ...], Party]] = {}  # of this node's pods
        self._held: dict[EndpointId, tuple[int, EndpointPolicy]] = {}  # by device; seen in the kernel
        self._unrealized: set[PolicyKeyRef] = set()
        self._serial = 1
        self._unresolved = False
        self._waits = False
        self._networks: Mapping[Network, IdentityId] = {}
        self._prefixes: Mapping[tuple[Address, int], IdentityId] = {}
        self._ipcache: Mapping[IpcacheKey, IpcacheValue] | None = None
        self._aliases: Mapping[AliasKey, AliasValue] = {}
        self._state_hearers: list[Callable[[PolicyKeyRef], None]] = []
        self._enforcement_hearers: list[Callable[[LocalEndpoint], None]] = []
        listeners.subscribe(self._listeners_answered)
        for party in reserved_parties():
            self.engine.set_party(party)
        for informer in (watches.network_policies, watches.cilium_policies, watches.clusterwide_policies):
            _follow(informer, functools.partial(self._object_changed, informer.resource.kind))
        _follow(watches.identities, self._identity_changed)
        _follow(watches.services, self._service_changed)
        _follow(watches.slices, self._slice_changed)
        _follow(watches.cidr_groups, self._group_changed)

    def on_state(self, hearer: Callable[[PolicyKeyRef], None]) -> None:
        """Call `hearer` when an object's state may have another status."""
        self._state_hearers.append(hearer)

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
        if self._unresolved:
            self._unresolved = False
            if self.engine.resolve_again():
                self.revision += 1
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
            revision=self.realized_revision if self._waits else self.revision,
        )

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

    # ---- realized

    async def follow(self, planner: Planner, row: Callable[[InterfaceKey], EndpointValue | None]) -> None:
        """Raise the realized revision when the kernel (`row`) answers with it. Until cancelled."""
        seen = 0
        while True:
            seen = await planner.planned.newer_than(seen)
            planned = planner.planned.value
            await planner.applied(planned.version)
            while not self._is_held(planned.endpoints or {}, row):
                if planner.planned.version > seen:
                    break  # the kernel is further already
                await asyncio.sleep(0.02)  # an intruder's rows: the next round mends them
            else:
                self._realize(planned.revision)
            if self.engine.forget_retired():
                self._touch(Part.POLICY)

    def _realize(self, revision: int) -> None:
        if revision <= self.realized_revision:
            return
        log.debug("policy revision %d is realized", revision)
        self.realized_revision = revision
        done = {key for key in self._unrealized if key not in self.states or self.states[key].revision <= revision}
        self._unrealized -= done
        for key in done:
            self._tell(key)

    def _is_held(
        self, wanted: Mapping[EndpointId, EndpointPolicy], row: Callable[[InterfaceKey], EndpointValue | None]
    ) -> bool:
        """Whether the kernel has every endpoint's sets; what it was seen to have is not asked again."""
        held: dict[EndpointId, tuple[int, EndpointPolicy]] = {}
        for endpoint in self._endpoints.all().values():
            policy = wanted.get(endpoint.endpoint_id)
            if policy is None:
                continue  # being made or removed: not ready, so closed
            if self._held.get(endpoint.endpoint_id) != (endpoint.ifindex, policy):
                found = row(InterfaceKey(endpoint.ifindex))
                if found is None:
                    continue  # the same
                if (found.ingress_set, found.egress_set) != policy[:2]:
                    return False
            held[endpoint.endpoint_id] = endpoint.ifindex, policy
        self._held = held
        return True

    def _tell(self, key: PolicyKeyRef) -> None:
        for hearer in self._state_hearers:
            hearer(key)

    def _listeners_answered(self) -> None:
        """A listener was taken or refused: policies with rules for the proxy may stand differently."""
        self._touch(Part.POLICY)
        for key, policies in self.engine.policies.items():
            if has_l7(policies):
                self._tell(key)

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

    def revision_of(self, ref: RuleRef) -> int:
        """From which revision on a rule's object is enforced; 0 when it is gone."""
        state = self.states.get(PolicyKeyRef(ref.kind, ref.namespace, ref.name))
        return state.revision if state else 0

    def endpoint_view(self, endpoint_id: EndpointId) -> EndpointPolicyView:
        """How far an endpoint's policy is."""
        judged = self._judged(endpoint_id)
        return EndpointPolicyView(
            planned_revision=self.revision,
            realized_revision=self.realized_revision,
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

    def listing(self) -> str:
        """The objects in force, as JSON text with the generation and revision of each."""
        shown = [
            {
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "generation": state.generation,
                "revision": state.revision,
                "valid": not state.problem,
                **({"problem": state.problem} if state.problem else {}),
            }
            for key, state in sorted(self.states.items())
        ]
        return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()

    def problems(self) -> list[str]:
        """One sentence per endpoint that is closed because its rows do not fit."""
        return [
            f"{directions} of endpoint {number} is closed: its policy needs more rows than a set holds"
            f" ({LIMIT_POLICY_ROWS}); let fewer identities be selected, or split policies"
            for number, directions in sorted(self.overflows().items())
        ]

    # ---- for flows

    def names(self, rule: int, endpoint: int, *, ingress: bool, denied: bool) -> tuple[RuleRef, ...]:
        """The rules a verdict came from; for a default denial, the policies that switched it on."""
        if rule:
            return self.engine.rule(rule)
        subject = self.subjects.get(EndpointId(endpoint))
        if not denied or subject is None:
            return ()
        side = subject.ingress if ingress else subject.egress
        return side.rules.switched_on_by if side.rules else ()

    def request_names(
        self, asked: Asked, listener: int, endpoint: int, *, peer: int, ingress: bool
    ) -> tuple[RuleRef, ...]:
        """The rules by which a proxy let a request through or did not."""
        subject = self.subjects.get(EndpointId(endpoint))
        side = (subject.ingress if ingress else subject.egress) if subject else None
        if side is None or side.rules is None:
            return ()
        other = self.engine.party(IdentityId(peer))
        whose = self._subject_party(endpoint) if ingress else other
        return deciding(
            side.rules.rules,
            self.engine.proxy_rules(listener),
            asked,
            peer=other,
            named_ports=whose.named_ports if whose else (),
        )

    def _subject_party(self, endpoint: int) -> Party | None:
        found = self._endpoints.all().get(EndpointId(endpoint))
        return self.engine.party(found.identity) if found else None

    # ---- what changes

    def _object_changed(self, kind: str, _key: Key, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if old is not None and new is not None and _content(old) == _content(new):
            return
        self._policy_changed(kind, old, new)

    def _policy_changed(self, kind: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        manifest = new or old or {}
        metadata = manifest.get("metadata", {})
        key = PolicyKeyRef(kind, str(metadata.get("namespace", "")), str(metadata.get("name", "")))
        self.revision += 1
        if new is None:
            self.engine.set_policy(key, None)
            self.states.pop(key, None)
            self._files.remove(key)
            log.info("%s %s is gone", kind, "/".join(part for part in key[1:] if part))
        else:
            problem = ""
            try:
                self.engine.set_policy(key, parse_policy(manifest, cluster=self._cluster))
                self._files.remove(key)
            except PolicyInvalid as exc:
                problem = str(exc)
                log.warning("%s %s is not valid and not taken in: %s", kind, "/".join(filter(None, key[1:])), exc)
                self._keep(key, old, uid=str(metadata.get("uid", "")))
            generation = int(metadata.get("generation", 0))
            self.states[key] = PolicyState(generation, problem, self.revision, asyncio.get_running_loop().time())
        self._secrets.note(key, self.engine.policies.get(key, ()))
        self._unrealized.add(key)
        self._touch(Part.POLICY)
        self._tell(key)

    def _keep(self, key: PolicyKeyRef, old: Mapping[str, Any] | None, *, uid: str) -> None:
        """What was in force before an object became invalid stays, over a restart too."""
        before = self.states.get(key)
        if old is not None and before is not None and not before.problem:
            self._files.save(key, old)
        elif key not in self.engine.policies and (kept := self._files.load(key, uid)) is not None:
            try:
                self.engine.set_policy(key, parse_policy(kept, cluster=self._cluster))
            except PolicyInvalid as exc:
                log.error("the last valid version of %s %s cannot be used: %s", key.kind, key.name, exc)

    def _identity_changed(self, _key: Key, old: Identity | None, new: Identity | None) -> None:
        if new is not None:
            self.engine.set_party(party_of(new.id, new.labels))
        elif old is not None:
            self.engine.drop_party(old.id)
        self._touch(Part.POLICY)

    def _service_changed(self, key: Key, _old: Service | None, new: Service | None) -> None:
        place = (key.namespace, key.name)
        self._resolution.services.pop(place, None)
        if new is not None:
            self._resolution.services[place] = ServiceFacts(*place, new.labels, new.selector)
        self._resolve_again()

    def _slice_changed(self, key: Key, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if old is not None:
            self._slices[old.ref].pop(key, None)
        if new is not None:
            self._slices[new.ref][key] = new
        for ref in {each.ref for each in (old, new) if each is not None}:
            self._resolution.addresses[ref.namespace, ref.name] = [
                parse_address(endpoint.address) for each in self._slices[ref].values() for endpoint in each.endpoints
            ]
        self._resolve_again()

    def _group_changed(self, key: Key, _old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        self._resolution.groups.pop(key.name, None)
        if new is not None:
            labels = {str(name): str(value) for name, value in (new["metadata"].get("labels") or {}).items()}
            try:
                self._resolution.groups[key.name] = (labels, parse_cidr_group(new))
            except PolicyInvalid as exc:
                log.warning("CiliumCIDRGroup %s is not valid, so it stands for nothing: %s", key.name, exc)
        self._resolve_again()

    def _resolve_again(self) -> None:
        if self.engine.needs_resolving:
            self._unresolved = True
            self._touch(Part.POLICY)


def _follow(informer: Informer[T], listener: Callable[[Key, T | None, T | None], None]) -> None:
    """Hear every change, and what was there before: informers have been running for a while."""
    for key, value in informer.store.items():
        listener(key, None, value)
    informer.subscribe(listener)


def _content(manifest: Mapping[str, Any]) -> tuple[Any, Any]:
    return manifest.get("spec"), manifest.get("specs")


def _identity(value: IpcacheValue) -> Any:
    return value.identity
