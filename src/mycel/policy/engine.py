"""The policies and identities there are → what each subject enforces. Incremental, without I/O.

policies → which subjects they select → a set of rows per subject and direction (`subjects`, `set_table`)
identities → which peers they are among → their rows in the sets in use (`members`)
policies → identities of their own for prefixes, names and addresses (`networks`, `names`, `aliases`)

Whoever changes something gets the rows by `subject` and `sets`; what nobody asked for is not compiled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from mycel.abi import LIMIT_POLICY_ROWS
from mycel.model.address import Address
from mycel.model.workload import IdentityId
from mycel.policy.aliases import Aliases
from mycel.policy.held import Held, hold, networks_of, peers_of, selectors_of
from mycel.policy.members import Members
from mycel.policy.names import LocalNumbers, Names
from mycel.policy.networks import Networks
from mycel.policy.proxy_ports import HttpSections, ProxyPorts
from mycel.policy.resolve import Resolver, needs_resolving, resolved
from mycel.policy.rules import L7, Network, Party, Peer, Policy, RuleRef
from mycel.policy.set_table import SetTable
from mycel.policy.sets import PolicySet
from mycel.policy.subjects import Enforcement, Look, Subject, Subjects


class PolicyKeyRef(NamedTuple):
    """A policy object's place."""

    kind: str
    namespace: str
    name: str


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
        self._objects: dict[PolicyKeyRef, tuple[Policy, ...]] = {}
        self._held: dict[PolicyKeyRef, tuple[Held, ...]] = {}
        self._to_resolve: set[PolicyKeyRef] = set()
        self._sets = SetTable(limit=row_limit)
        self._members = Members(self._sets)
        self._subjects = Subjects(self._members, self._sets, enforcement)
        numbers = LocalNumbers()
        self._networks = Networks(self._members, numbers)
        self.names = Names(self._members, numbers, self._networks.labels)
        self._aliases = Aliases(self._members, cidr_modes)
        self.relabelled = 0
        """How often identities of this node got other labels while they went on."""

    # ---- policies

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
        self._hold(key, self._resolved(policies or ()))
        return True

    def resolve_again(self) -> bool:
        """Services or CIDR groups changed: resolve the policies that name them anew. True when one changed."""
        changed = False
        for key in sorted(self._to_resolve):
            new = self._resolved(self._objects[key])
            if new != self._held.get(key):
                self._hold(key, new)
                changed = True
        return changed

    def _resolved(self, policies: Iterable[Policy]) -> tuple[Held, ...]:
        return tuple(hold(resolved(policy, self._resolve)) for policy in policies)

    def _hold(self, key: PolicyKeyRef, new: tuple[Held, ...]) -> None:
        old = self._held.pop(key, ())
        if new:
            self._held[key] = new
        self._subjects.replace(old, new)
        self._members.replace(peers_of(old), peers_of(new))
        self._networks.replace(networks_of(old), networks_of(new))
        self.names.replace(selectors_of(old), selectors_of(new))

    @property
    def needs_resolving(self) -> bool:
        """Whether any policy names services or CIDR groups."""
        return bool(self._to_resolve)

    @property
    def policies(self) -> Mapping[PolicyKeyRef, tuple[Policy, ...]]:
        """The objects in force, as they were written."""
        return self._objects

    def held(self) -> Iterable[Policy]:
        """Every policy in force, resolved."""
        return (held.policy for policies in self._held.values() for held in policies)

    # ---- who there is

    def set_party(self, party: Party) -> None:
        """An identity is there (or has other named ports)."""
        self._members.put(party)

    def drop_party(self, identity: IdentityId) -> None:
        """An identity is gone."""
        self._subjects.forget(identity)
        self._members.drop(identity)

    def party(self, identity: IdentityId) -> Party | None:
        """Who an identity is."""
        return self._members.parties.get(identity)

    @property
    def parties(self) -> Iterable[Party]:
        """Everybody known."""
        return self._members.parties.values()

    # ---- addresses

    def adopt(self, networks: Mapping[Network, IdentityId]) -> None:
        """Go on with the identities an earlier process gave to prefixes."""
        self._networks.adopt(networks)

    def set_apiservers(self, addresses: Iterable[Network]) -> None:
        """API servers are at these addresses outside of the nodes: of the world, with the label kube-apiserver."""
        if changed := self._networks.set_apiservers(frozenset(addresses)):
            self.names.relabel(changed)
            self.relabelled += 1

    @property
    def networks(self) -> Mapping[Network, IdentityId]:
        """See Networks.identities."""
        return self._networks.identities

    def alias(self, party: Party, address: Address) -> IdentityId:
        """See Aliases.of."""
        return self._aliases.of(party, address)

    def aliases(self, addresses: Iterable[tuple[int, Address]]) -> dict[Address, IdentityId]:
        """See Aliases.all."""
        return self._aliases.all(addresses)

    @property
    def aliases_stale(self) -> bool:
        """Whether `aliases` may say something else of the same addresses."""
        return self._aliases.stale

    def forget_retired(self) -> bool:
        """Let go of prefixes and aliases nobody needs, when no address leads to them. True when there were any."""
        networks, aliases = self._networks.forget_retired(), self._aliases.forget_retired()
        return networks or aliases

    # ---- what is enforced

    def among(self, peer: Peer) -> Collection[IdentityId]:
        """The identities a (resolved) peer of policies in force is about; not for Everyone."""
        return self._members.by_peer.get(peer, ())

    def selecting(self, party: Party) -> list[Policy]:
        """The policies that select a subject, resolved, in order."""
        return [held.policy for held in self._subjects.selecting(party)]

    def subject(self, party: Party, visible: Look = ()) -> Subject:
        """What a subject enforces; its sets exist from then on. `party` is the subject itself, `visible` what a proxy
        looks at of its connections.
        """
        return self._subjects.get(party, visible)

    def sets(self, numbers: Iterable[int]) -> dict[int, PolicySet]:
        """Sets by number; all others are forgotten."""
        return self._sets.keep(numbers)

    def one_set(self, number: int) -> PolicySet:
        """A set by number."""
        return self._sets[number]

    def has_sets(self, numbers: Iterable[int]) -> bool:
        """Whether these sets are known, so that they may stay in use."""
        return all(not number or number in self._sets for number in numbers)

    def rule(self, number: int) -> tuple[RuleRef, ...]:
        """The rules a row's number stands for."""
        return self._sets.rule(number)

    # ---- listeners

    @property
    def ports(self) -> ProxyPorts:
        """The ports of proxies, whether a set names them or not."""
        return self._sets.ports

    def ports_of(self, numbers: Iterable[int]) -> set[int]:
        """Listeners that the rows of these sets name."""
        return {port for number in numbers if number for port in self._sets[number].proxy_ports}

    def proxy_rules(self, port: int) -> tuple[L7 | None, ...]:
        """The sections a proxy port stands for; None among them is "any request"."""
        return self._sets.ports.sections(port)

    @property
    def http_listeners(self) -> dict[int, HttpSections]:
        """Ports of Envoy's that rows of the sets in use name, with what applies there."""
        return self._sets.ports.http(self._sets.ports_in_use)

    @property
    def dns_listeners(self) -> dict[int, tuple[str, ...]]:
        """Ports of the DNS proxy that rows of the sets in use name, with the selectors of names they let through."""
        return self._sets.ports.dns(self._sets.ports_in_use)
