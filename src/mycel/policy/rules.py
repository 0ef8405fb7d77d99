"""The nouns: policies in one form, whichever API they were written in.

`None` means "not said" and `()` means "nothing", everywhere: a rule without `peers` is about everybody, one
with empty `peers` about nobody (and so does not exist: only its policy's default deny remains).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mycel.abi import Direction
from mycel.identity.labels import NAMESPACE_KEY
from mycel.model.address import Address, format_address, is_ipv4
from mycel.model.workload import IdentityId
from mycel.policy.labels import LabelMap, Selector, label_map

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP, "ICMP": ICMP, "ICMPV6": ICMPV6, "VRRP": 112, "IGMP": 2}
PROTOCOL_NAMES = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP", ICMP: "ICMP", ICMPV6: "ICMPv6", 112: "VRRP", 2: "IGMP"}
LAST_PORT = 65535


class Network(NamedTuple):
    """A prefix; `length` is of 128 bits."""

    address: Address
    length: int

    def contains(self, other: Network) -> bool:
        """Whether `other` lies within."""
        if self.length > other.length:
            return False
        shift = 128 - self.length
        mine, theirs = int.from_bytes(self.address, "big"), int.from_bytes(other.address, "big")
        return mine >> shift == theirs >> shift

    @property
    def is_ipv4(self) -> bool:
        """Whether it is of IPv4 addresses."""
        return self.length >= 96 and is_ipv4(self.address)

    def __str__(self) -> str:
        return f"{format_address(self.address)}/{self.length - 96 if self.is_ipv4 else self.length}"


def host_network(address: Address) -> Network:
    """One address as a network."""
    return Network(address, 128)


# ---- who: classes of their own, since named tuples of equal fields are equal


@dataclass(frozen=True, slots=True)
class Everyone:
    """Entity `all`."""

    def __str__(self) -> str:
        return "everyone"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Whoever's identity has these labels."""

    selector: Selector

    def __str__(self) -> str:
        return str(self.selector)


@dataclass(frozen=True, slots=True)
class _Prefix:
    network: Network
    excepts: tuple[Network, ...] = ()

    def covers(self, network: Network) -> bool:
        """Whether a network lies within and in none of the exceptions. ::/0 is no IPv4 address's, mapped or not."""
        if self.network.is_ipv4 != network.is_ipv4:
            return False
        return self.network.contains(network) and not any(each.contains(network) for each in self.excepts)

    def __str__(self) -> str:
        return f"{self.network} except {', '.join(map(str, self.excepts))}" if self.excepts else str(self.network)


@dataclass(frozen=True, slots=True)
class Cidr(_Prefix):
    """Addresses outside of the cluster (Cilium's CIDR rules never are about pods and nodes)."""


@dataclass(frozen=True, slots=True)
class Block(_Prefix):
    """Kubernetes' ipBlock: addresses, whoever has them."""


@dataclass(frozen=True, slots=True)
class Names:
    """toFQDNs: addresses DNS answered with, by canonical selectors; an identity has them as `fqdn` labels."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"names {', '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class ServicePeer:
    """toServices: what is behind services. Resolved to other peers before anything is judged."""

    name: str  # empty: by `selector`
    namespace: str  # empty: any
    selector: Selector | None = None

    def __str__(self) -> str:
        what = self.name or f"with {self.selector}"
        return f"service {self.namespace}/{what}" if self.namespace else f"service {what}"


@dataclass(frozen=True, slots=True)
class CidrGroup:
    """A CiliumCIDRGroup by name or labels. Resolved to Cidr before anything is judged."""

    name: str  # empty: by `selector`
    selector: Selector | None = None
    excepts: tuple[Network, ...] = ()

    def __str__(self) -> str:
        return f"CIDR group {self.name or self.selector}"


Peer = Everyone | Labelled | Cidr | Block | Names | ServicePeer | CidrGroup


# ---- on which ports


class PortMatch(NamedTuple):
    """A protocol with a range of ports, or with a named port; ICMP's types are in the place of ports."""

    protocol: int
    first: int = 0
    last: int = LAST_PORT
    name: str = ""  # of a container port of the destination; then first and last say nothing

    def covers(self, protocol: int, port: int) -> bool:
        """Whether a numbered match is about this destination port."""
        return not self.name and protocol == self.protocol and self.first <= port <= self.last

    def __str__(self) -> str:
        protocol = PROTOCOL_NAMES.get(self.protocol, str(self.protocol))
        if self.name:
            return f"{self.name}/{protocol}"
        if (self.first, self.last) == (0, LAST_PORT):
            return protocol
        if self.protocol in (ICMP, ICMPV6):
            return f"{protocol} type {self.first}"
        return f"{self.first}/{protocol}" if self.first == self.last else f"{self.first}-{self.last}/{protocol}"


class ContainerPort(NamedTuple):
    """A named port of a pod."""

    name: str  # lower case
    port: int
    protocol: int


# ---- rules


class L7(NamedTuple):
    """What only a proxy can check. `rules` is canonical JSON, so that equal sections are equal."""

    parser: str  # http, dns, tls, listener, authentication
    rules: str


class RuleRef(NamedTuple):
    """Where a rule is written."""

    kind: str
    namespace: str
    name: str
    field: str  # spec.ingress[0]

    @property
    def object(self) -> str:
        """`CiliumNetworkPolicy shop/web`."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    def __str__(self) -> str:
        return f"{self.object} {self.field}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Peers AND ports, allowed or denied in one direction."""

    ref: RuleRef
    deny: bool
    peers: tuple[Peer, ...] | None  # None: everybody
    ports: tuple[PortMatch, ...] | None  # None: all, ICMP and the rest among them
    l7: L7 | None = None
    section: str = ""  # where that is written: spec.ingress[0].toPorts[1]


class DirectionRules(NamedTuple):
    """What a policy says of one direction. `default_deny`: what no rule allows is denied."""

    default_deny: bool
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """One rule section of one object: subject, and both directions (None: it says nothing of it)."""

    ref: RuleRef  # field: spec, or specs[2]
    subject: Selector
    ingress: DirectionRules | None
    egress: DirectionRules | None
    of_nodes: bool = False  # nodeSelector: about nodes, which have no policy here

    @property
    def sides(self) -> tuple[DirectionRules, ...]:
        """The directions it says something of."""
        return tuple(side for side in (self.ingress, self.egress) if side is not None)

    def side(self, direction: Direction) -> DirectionRules | None:
        """What it says of a direction."""
        return self.ingress if direction == Direction.INGRESS else self.egress


def has_l7(policies: Iterable[Policy]) -> bool:
    """Whether any rule needs a proxy."""
    return any(rule.l7 for policy in policies for side in policy.sides for rule in side.rules)


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody with an identity: a subject or a peer of policy."""

    identity: IdentityId
    labels: LabelMap
    network: Network | None = None  # of a prefix's identity
    blocks: frozenset[Block | Cidr] = frozenset()  # what its addresses lie in, where that tells them apart
    named_ports: tuple[ContainerPort, ...] = ()

    @classmethod
    def of(cls, identity: IdentityId, labels: tuple[str, ...], **more: object) -> Party:
        """From labels as identities carry them."""
        return cls(identity, label_map(labels), **more)  # type: ignore[arg-type]

    @property
    def is_pod(self) -> bool:
        """Whether it is of a namespace."""
        return any(source == "k8s" for source, _ in self.labels.get(NAMESPACE_KEY, ()))

    @property
    def is_world(self) -> bool:
        """Outside of the cluster."""
        return self._reserved("world")

    @property
    def is_host(self) -> bool:
        """The node of the pod that judges."""
        return self._reserved("host")

    def _reserved(self, name: str) -> bool:
        return any(source == "reserved" for source, _ in self.labels.get(name, ()))


def peer_matches(peer: Peer, party: Party) -> bool:
    """Whether a party is one of a (resolved) peer."""
    match peer:
        case Everyone():
            return True
        case Labelled(selector):
            return selector.matches(party.labels)
        case Cidr():
            within = party.is_world and party.network is not None and peer.covers(party.network)
            return within or peer in party.blocks
        case Block():
            return peer in party.blocks or (party.network is not None and peer.covers(party.network))
        case Names(names):
            return any(source == "fqdn" for name in names for source, _ in party.labels.get(name, ()))
        case ServicePeer() | CidrGroup():
            return False


class Reason(Enum):
    """Why a connection is let through or not, in one direction."""

    NO_POLICY = "no-policy"
    ALLOWED = "allowed"
    DEFAULT_DENY = "default-deny"
    DENY_RULE = "deny-rule"


class Outcome(Enum):
    """What happens to a connection, in one direction."""

    ALLOWED = "allowed"
    DENIED = "denied"
    L7 = "l7"


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on a connection in one direction, with the rules that made it."""

    outcome: Outcome
    reason: Reason
    rules: tuple[RuleRef, ...] = ()  # of a default denial: the policies that switched it on
