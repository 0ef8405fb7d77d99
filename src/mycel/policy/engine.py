"""The policies and identities there are → what each subject enforces. Incremental, without I/O.

policies → which subjects they select → a set of rows per subject and direction
identities → which peers they are among → their rows in the sets in use

Whoever changes something gets the rows by `subject` and `sets`; what nobody asked for is not compiled.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from mycel.abi import LIMIT_POLICY_ROWS, Direction
from mycel.model.address import Address
from mycel.model.workload import IdentityId
from mycel.policy.held import (
    ALL_IPV4,
    ALL_IPV6,
    Held,
    has_names,
    hold,
    needs_resolving,
    networks_of,
    peers_of,
    selectors_of,
    world_labels,
)
from mycel.policy.index import PartyIndex, PeerIndex
from mycel.policy.numbers import HashedNumbers
from mycel.policy.proxy_ports import HttpSections, ProxyPorts
from mycel.policy.rules import (
    L7,
    Block,
    Cidr,
    CidrGroup,
    ContainerPort,
    DirectionRules,
    Labelled,
    Network,
    Party,
    Peer,
    Policy,
    Rule,
    RuleRef,
    ServicePeer,
    host_network,
)
from mycel.policy.set_table import SetTable
from mycel.policy.sets import PolicySet, SetKey, SetRules
from mycel.policy.visibility import Visible

FIRST_CIDR_IDENTITY = 1 << 24
"""Identities of prefixes are a node's own (scope byte 1)."""
FIRST_ALIAS_IDENTITY = 3 << 24
"""An identity among whose addresses ipBlocks tell apart (scope byte 3); never on the wire, never in ipcache."""
_LOCAL_COUNT = 1 << 24

Look = tuple[Visible, ...]
"""What a proxy looks at, sorted."""

Resolver = Callable[[Peer], tuple[Peer, ...]]
"""What a service or CIDR group stands for."""


class Enforcement(Enum):
    """Who is judged (enable-policy): pods that policies select, everybody, nobody."""

    DEFAULT = "default"
    ALWAYS = "always"
    NEVER = "never"


class PolicyKeyRef(NamedTuple):
    """A policy object's place."""

    kind: str
    namespace: str
    name: str


class Named(NamedTuple):
    """What the identity of an address that DNS answered with is made of."""

    selectors: tuple[str, ...]  # of toFQDNs that its names satisfy; canonical, sorted, not empty
    network: Network  # the longest prefix of policies over it; all of its family where there is none


class SubjectSide(NamedTuple):
    """One direction of a subject. `number` is that of its set; 0: nothing is enforced."""

    number: int
    rules: SetRules | None

    @property
    def enforced(self) -> bool:
        """Whether the kernel looks rows up."""
        return self.number != 0

    @property
    def judged(self) -> bool:
        """Whether any policy is about it; else its rows only say what a proxy looks at."""
        return self.rules is not None and (self.rules.default_deny or bool(self.rules.rules))


class Subject(NamedTuple):
    """What one subject enforces."""

    ingress: SubjectSide
    egress: SubjectSide


_NOTHING = SubjectSide(0, None)


class Engine:
    """See the module."""

    def __init__(
        self,
        *,
        resolve: Resolver = lambda _peer: (),
        cidr_modes: frozenset[str] = frozenset(),
        enforcement: Enforcement = Enforcement.DEFAULT,
        row_limit: int = LIMIT_POLICY_ROWS,
    ) -> None:
        """`cidr_modes`: what else CIDR rules are about: `nodes`, `pods` (policy-cidr-match-mode)."""
        self._resolve = resolve
        self.cidr_modes = cidr_modes
        self._enforcement = enforcement
        self._node_kinds = (Block, Cidr) if "nodes" in cidr_modes else ()
        self._pod_kinds = (Block, Cidr) if "pods" in cidr_modes else (Block,)
        self._objects: dict[PolicyKeyRef, tuple[Policy, ...]] = {}
        self._held: dict[PolicyKeyRef, tuple[Held, ...]] = {}
        self._to_resolve: set[PolicyKeyRef] = set()
        self._subjects = PeerIndex()
        self._by_subject: defaultdict[Peer, list[Held]] = defaultdict(list)
        self._asked: dict[IdentityId, tuple[Party, dict[Look, Subject]]] = {}
        """Subjects whose policies have not changed since."""
        self._askers = PartyIndex()  # these
        self._peers = PeerIndex()
        self._parties = PartyIndex()
        self._matched: dict[IdentityId, frozenset[Peer]] = {}
        self._members: defaultdict[Peer, set[IdentityId]] = defaultdict(set)
        self._network_uses: defaultdict[Network, int] = defaultdict(int)
        self._networks: Mapping[Network, IdentityId] | None = None  # made of the former when somebody asks
        self._retired: set[Network] = set()
        self._alias_parties: set[IdentityId] = set()
        self._retired_aliases: set[IdentityId] = set()
        self.aliases_stale = True
        """Whether `aliases` may say something else of the same addresses."""
        self._local_numbers: HashedNumbers[Network | Named] = HashedNumbers(FIRST_CIDR_IDENTITY, _LOCAL_COUNT)
        self._named: dict[Named, IdentityId] = {}
        self._selector_uses: defaultdict[str, int] = defaultdict(int)
        self._aliases: HashedNumbers[tuple[IdentityId, tuple[Block | Cidr, ...]]] = HashedNumbers(
            FIRST_ALIAS_IDENTITY, _LOCAL_COUNT
        )
        self._sets = SetTable(limit=row_limit)

    # ---- what there is

    def set_policy(self, key: PolicyKeyRef, policies: tuple[Policy, ...] | None) -> bool:
        """Put an object's policies in force; None takes them away. True when anything changed."""
        if policies is None:
            if self._objects.pop(key, None) is None:
                return False
        elif self._objects.get(key) == policies:
            return False
        else:
            self._objects[key] = policies
        self._to_resolve.discard(key)
        if any(needs_resolving(policy) for policy in policies or ()):
            self._to_resolve.add(key)
        self._hold(key, policies)
        return True

    def resolve_again(self) -> bool:
        """Services or CIDR groups changed: resolve the policies that name them anew. True when one changed."""
        changed = False
        for key in sorted(self._to_resolve):
            policies = self._objects[key]
            held = tuple(hold(self._resolved(policy)) for policy in policies)
            if held != self._held.get(key):
                self._hold(key, policies)
                changed = True
        return changed

    def set_party(self, party: Party) -> None:
        """An identity is there (or has other named ports)."""
        if not self._parties.put(party):
            return
        self.aliases_stale = True
        self._match(party.identity, self._peers.matching(party))
        self._update_sets([party.identity])

    def drop_party(self, identity: IdentityId) -> None:
        """An identity is gone."""
        self._forget_subject(identity)
        if self._parties.remove(identity):
            self.aliases_stale = True
            self._match(identity, frozenset())
            del self._matched[identity]
            self._update_sets([identity])

    def _match(self, identity: IdentityId, peers: frozenset[Peer]) -> None:
        old = self._matched.get(identity, frozenset())
        for peer in old - peers:
            self._members[peer].discard(identity)
        for peer in peers - old:
            self._members[peer].add(identity)
        self._matched[identity] = peers

    @property
    def policies(self) -> Mapping[PolicyKeyRef, tuple[Policy, ...]]:
        """The objects in force, as they were written."""
        return self._objects

    def adopt(self, networks: Mapping[Network, IdentityId]) -> None:
        """Go on with the identities an earlier process gave to prefixes."""
        for network, number in networks.items():
            self._local_numbers.adopt(network, number)

    @property
    def networks(self) -> Mapping[Network, IdentityId]:
        """Prefixes policies name → the identity of the addresses that no longer prefix has.

        The same object as before when they are the same.
        """
        if self._networks is not None:
            return self._networks
        found = {network: IdentityId(self._local_numbers.number(network)) for network in self._network_uses}
        if any(network.contains(ALL_IPV4) for network in found) and ALL_IPV4 not in found:
            found[ALL_IPV4] = IdentityId(2)  # else ::/0 would be IPv4's too
        self._networks = found
        return found

    # ---- addresses by their names

    def adopt_names(self, named: Mapping[Named, IdentityId]) -> None:
        """Go on with the identities an earlier process gave to addresses with names."""
        for key, number in named.items():
            self._local_numbers.adopt(key, number)
            self.name_identity(key)

    def name_identity(self, key: Named) -> IdentityId:
        """The identity of addresses whose names satisfy these selectors; it is there from then on."""
        number = self._named.get(key)
        if number is None:
            number = self._named[key] = IdentityId(self._local_numbers.number(key))
            labels = (*(f"fqdn:{each}=" for each in key.selectors), *world_labels(key.network))
            self.set_party(Party.of(number, labels, network=key.network))
        return number

    @property
    def named(self) -> Mapping[Named, IdentityId]:
        """Every identity of addresses with names."""
        return self._named

    @property
    def selectors(self) -> frozenset[str]:
        """The selectors of toFQDNs in force."""
        return frozenset(self._selector_uses)

    def keep_names(self, used: Collection[IdentityId]) -> bool:
        """Let go of identities no address has, but for those of single selectors in force. True when any went."""
        gone = {
            key: number
            for key, number in self._named.items()
            if number not in used and not (len(key.selectors) == 1 and key.selectors[0] in self._selector_uses)
        }
        for key, number in gone.items():
            del self._named[key]
            self.drop_party(number)
        self._local_numbers.keep([*self._network_uses, *self._retired, *self._named])
        return bool(gone)

    def _use_names(self, old: tuple[Held, ...], new: tuple[Held, ...]) -> None:
        """Single selectors have their identities before anybody asks: rows are there for the first answer."""
        for count, holders in ((1, new), (-1, old)):
            for selector in selectors_of(holders):
                self._selector_uses[selector] += count
                if count > 0:
                    self.name_identity(Named((selector,), ALL_IPV4))
                    self.name_identity(Named((selector,), ALL_IPV6))
                elif not self._selector_uses[selector]:
                    del self._selector_uses[selector]

    # ---- what is enforced

    def party(self, identity: IdentityId) -> Party | None:
        """Who an identity is."""
        return self._parties.get(identity)

    @property
    def parties(self) -> Iterable[Party]:
        """Everybody known."""
        return self._parties.values()

    def selecting(self, party: Party) -> list[Policy]:
        """The policies that select a subject, resolved, in order."""
        return [held.policy for held in self._selecting(party)]

    def held(self) -> Iterable[Policy]:
        """Every policy in force, resolved."""
        return (held.policy for policies in self._held.values() for held in policies)

    def subject(self, party: Party, visible: Look = ()) -> Subject:
        """What a subject enforces; its sets exist from then on. `party` is the subject itself, `visible` what a proxy
        looks at of its connections.
        """
        known = self._asked.get(party.identity)
        if known is None or known[0] != party:
            known = self._asked[party.identity] = party, {}
            self._askers.put(party)
        found = known[1].get(visible)
        if found is None or not self._exist(found):
            selected = self._selecting(party)
            ingress, egress = (
                self._side(selected, direction, party, tuple(each for each in visible if each.direction == direction))
                for direction in (Direction.INGRESS, Direction.EGRESS)
            )
            found = known[1][visible] = Subject(ingress, egress)
        return found

    def _forget_subject(self, identity: IdentityId) -> None:
        if self._asked.pop(identity, None) is not None:
            self._askers.remove(identity)

    def _exist(self, subject: Subject) -> bool:
        return all(not side.enforced or side.number in self._sets for side in subject)

    def sets(self, numbers: Iterable[int]) -> dict[int, PolicySet]:
        """Sets by number; all others are forgotten."""
        return self._sets.keep(numbers)

    def one_set(self, number: int) -> PolicySet:
        """A set by number."""
        return self._sets[number]

    def rule(self, number: int) -> tuple[RuleRef, ...]:
        """The rules a row's number stands for."""
        return self._sets.rule(number)

    def proxy_rules(self, port: int) -> tuple[L7 | None, ...]:
        """The sections a proxy port stands for; None among them is "any request"."""
        return self._sets.ports.sections(port)

    @property
    def http_listeners(self) -> dict[int, HttpSections]:
        """Ports of Envoy's that rows of the sets in use name, with what applies there."""
        return self._sets.ports.http(self._sets.ports_in_use)

    @property
    def ports(self) -> ProxyPorts:
        """The ports of proxies, whether a set names them or not."""
        return self._sets.ports

    def ports_of(self, numbers: Iterable[int]) -> set[int]:
        """Listeners that the rows of these sets name."""
        return {port for number in numbers if number for port in self._sets[number].proxy_ports}

    def has_sets(self, numbers: Iterable[int]) -> bool:
        """Whether these sets are known, so that they may stay in use."""
        return all(not number or number in self._sets for number in numbers)

    @property
    def dns_listeners(self) -> dict[int, tuple[str, ...]]:
        """Ports of the DNS proxy that rows of the sets in use name, with the selectors of names they let through."""
        return self._sets.ports.dns(self._sets.ports_in_use)

    def alias(self, party: Party, address: Address) -> IdentityId:
        """The identity policy knows an address of a pod or node by: another one where prefixes tell addresses apart."""
        blocks = self._peers.blocks(host_network(address), self._pod_kinds if party.is_pod else self._node_kinds)
        if not blocks:
            return party.identity
        number = IdentityId(self._aliases.number((party.identity, tuple(sorted(blocks, key=repr)))))
        self._alias_parties.add(number)
        self.set_party(dataclasses.replace(party, identity=number, blocks=blocks))
        return number

    def aliases(self, addresses: Iterable[tuple[int, Address]]) -> dict[Address, IdentityId]:
        """Addresses (with their identities) that policy knows by another identity than their own.

        Aliases that no address has any more are let go by `forget_retired`.
        """
        found: dict[Address, IdentityId] = {}
        if self.has_blocks or self._alias_parties:
            for identity, address in addresses:
                party = self._parties.get(IdentityId(identity))
                if party is not None and (number := self.alias(party, address)) != identity:
                    found[address] = number
            self._retired_aliases = self._alias_parties - set(found.values())
        self.aliases_stale = False
        return found

    @property
    def needs_resolving(self) -> bool:
        """Whether any policy names services or CIDR groups."""
        return bool(self._to_resolve)

    @property
    def has_blocks(self) -> bool:
        """Whether any rule is about prefixes that may tell addresses of pods or nodes apart."""
        return self._peers.has((*self._pod_kinds, *self._node_kinds))

    # ---- policies

    def _hold(self, key: PolicyKeyRef, policies: tuple[Policy, ...] | None) -> None:
        old = self._held.pop(key, ())
        new = tuple(hold(self._resolved(policy)) for policy in policies or ())
        if new:
            self._held[key] = new
        fresh = [peer for peer in peers_of(new) if self._peers.add(peer)]
        gone = {peer for peer in peers_of(old) if self._peers.discard(peer)}
        for held in old:
            if held.policy.of_nodes:
                continue
            subject = Labelled(held.policy.subject)
            self._by_subject[subject].remove(held)
            if self._subjects.discard(subject):
                del self._by_subject[subject]
        for held in new:
            if not held.policy.of_nodes:
                subject = Labelled(held.policy.subject)
                self._subjects.add(subject)
                self._by_subject[subject].append(held)
        if any(isinstance(peer, (*self._pod_kinds, *self._node_kinds)) for peer in (*fresh, *gone)):
            self.aliases_stale = True
        for peer in {Labelled(held.policy.subject) for held in (*old, *new) if not held.policy.of_nodes}:
            for identity in self._askers.matching(peer):
                self._forget_subject(identity)
        self._use_networks(old, new)
        self._use_names(old, new)
        self._match_again(fresh, gone)

    def _resolved(self, policy: Policy) -> Policy:
        if not needs_resolving(policy):
            return policy
        return dataclasses.replace(
            policy, ingress=self._resolved_side(policy.ingress), egress=self._resolved_side(policy.egress)
        )

    def _resolved_side(self, side: DirectionRules | None) -> DirectionRules | None:
        if side is None:
            return None
        rules: list[Rule] = []
        for rule in side.rules:
            if rule.peers is not None and any(isinstance(peer, ServicePeer | CidrGroup) for peer in rule.peers):
                peers = tuple(
                    found
                    for peer in rule.peers
                    for found in (self._resolve(peer) if isinstance(peer, ServicePeer | CidrGroup) else (peer,))
                )
                rule = dataclasses.replace(rule, peers=peers)
            if rule.peers != ():
                rules.append(rule)
        return side._replace(rules=tuple(rules))

    def _use_networks(self, old: tuple[Held, ...], new: tuple[Held, ...]) -> None:
        for count, holders in ((1, new), (-1, old)):
            for network in networks_of(holders):
                self._network_uses[network] += count
                if self._network_uses[network] == 1 and count == 1:
                    self._networks = None
                    number = IdentityId(self._local_numbers.number(network))
                    self.set_party(Party.of(number, world_labels(network), network=network))
                self._retired.discard(network)
                if self._network_uses[network] <= 0:
                    self._networks = None
                    del self._network_uses[network]
                    self._retired.add(network)

    def forget_retired(self) -> bool:
        """Let go of prefixes and aliases nobody needs, when no address leads to them. True when there were any."""
        found, self._retired = self._retired, set()
        for network in found:
            self.drop_party(IdentityId(self._local_numbers.number(network)))
        self._local_numbers.keep([*self._network_uses, *self._named])
        gone, self._retired_aliases = self._retired_aliases, set()
        for number in gone:
            self.drop_party(number)
        self._alias_parties -= gone
        return bool(found or gone)

    def _match_again(self, fresh: Iterable[Peer], gone: Iterable[Peer]) -> None:
        """Bring what identities match up to date. Sets in use have none of the new peers yet."""
        for peer in fresh:
            for identity in self._parties.matching(peer):
                self._members[peer].add(identity)
                self._matched[identity] |= {peer}
        for peer in gone:
            for identity in self._members.pop(peer, ()):
                self._matched[identity] -= {peer}

    # ---- sets

    def _selecting(self, party: Party) -> list[Held]:
        return sorted(
            (held for peer in self._subjects.matching(party) for held in self._by_subject[peer]),
            key=lambda held: held.policy.ref,
        )

    def _side(self, selected: list[Held], direction: Direction, party: Party, visible: Look) -> SubjectSide:
        sides = [(held, side) for held in selected if (side := held.policy.side(direction)) is not None]
        always = self._enforcement is Enforcement.ALWAYS
        if self._enforcement is Enforcement.NEVER:
            sides = []
        if not (sides or always or visible):
            return _NOTHING
        ports: tuple[ContainerPort, ...] = ()
        if direction == Direction.INGRESS and any(has_names(side) for _, side in sides):
            ports = party.named_ports
        key = SetKey(direction, tuple(sorted(held.digest for held, _ in sides)), ports, visible)
        number = self._sets.number(
            key,
            lambda: SetRules(
                rules=tuple(rule for _, side in sides for rule in side.rules),
                default_deny=always or any(side.default_deny for _, side in sides),
                switched_on_by=tuple(held.policy.ref for held, side in sides if side.default_deny),
            ),
            members=self._members,
            parties=self._parties,
        )
        return SubjectSide(number, self._sets[number].rules)

    def _update_sets(self, identities: Iterable[IdentityId]) -> None:
        self._sets.put(
            {
                identity: (self._parties[identity], self._matched[identity]) if identity in self._parties else None
                for identity in identities
            }
        )
