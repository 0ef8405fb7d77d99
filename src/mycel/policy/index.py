"""Which selectors match whom, without asking every selector: they are found by a label they all require."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from mycel.model.workload import IdentityId
from mycel.policy.rules import Block, Cidr, Labelled, Names, Network, Party, Peer, peer_matches


class PartyIndex(Mapping[IdentityId, Party]):
    """Who there is, by identity, and found by what selects them."""

    def __init__(self) -> None:
        self._parties: dict[IdentityId, Party] = {}
        self._labelled: defaultdict[tuple[str, str], set[IdentityId]] = defaultdict(set)
        self._networks: list[tuple[int, int, IdentityId]] = []  # first address and length, sorted
        self._aliases: set[IdentityId] = set()
        self.with_ports: set[IdentityId] = set()
        """Who has named ports."""

    def __getitem__(self, identity: IdentityId) -> Party:
        return self._parties[identity]

    def __iter__(self) -> Iterator[IdentityId]:
        return iter(self._parties)

    def __len__(self) -> int:
        return len(self._parties)

    def put(self, party: Party) -> bool:
        """Add or replace somebody; False when nothing changes."""
        identity = party.identity
        if self._parties.get(identity) == party:
            return False
        self.remove(identity)
        self._parties[identity] = party
        for key, found in party.labels.items():
            for _, value in found:
                self._labelled[key, value].add(identity)
        if party.network is not None:
            insort(self._networks, _place(party.network, identity))
        if party.blocks:
            self._aliases.add(identity)
        if party.named_ports:
            self.with_ports.add(identity)
        return True

    def remove(self, identity: IdentityId) -> bool:
        """Take somebody away; False when nobody was there."""
        party = self._parties.pop(identity, None)
        if party is None:
            return False
        for key, found in party.labels.items():
            for _, value in found:
                self._labelled[key, value].discard(identity)
                if not self._labelled[key, value]:
                    del self._labelled[key, value]
        if party.network is not None:
            del self._networks[bisect_left(self._networks, _place(party.network, identity))]
        self._aliases.discard(identity)
        self.with_ports.discard(identity)
        return True

    def matching(self, peer: Peer) -> list[IdentityId]:
        """Whom a peer is about."""
        candidates: Iterable[IdentityId] = self._parties
        if isinstance(peer, Cidr | Block):
            candidates = self._within(peer.network)
        elif isinstance(peer, Labelled) and (anchor := peer.selector.anchor()):
            candidates = self._labelled.get(anchor, ())
        elif isinstance(peer, Names):
            candidates = {identity for name in peer.names for identity in self._labelled.get((name, ""), ())}
        return [identity for identity in candidates if peer_matches(peer, self._parties[identity])]

    def _within(self, network: Network) -> list[IdentityId]:
        """Prefixes that may lie in a network, and everybody whom prefixes tell apart."""
        first, _, _ = _place(network, IdentityId(0))
        start = bisect_left(self._networks, (first,))
        end = bisect_left(self._networks, (first + (1 << (128 - network.length)),))
        return [identity for _, _, identity in self._networks[start:end]] + list(self._aliases)


def _place(network: Network, identity: IdentityId) -> tuple[int, int, IdentityId]:
    return int.from_bytes(network.address, "big"), network.length, identity


class PeerIndex:
    """Peers in use, counted, and found by what they match."""

    def __init__(self) -> None:
        self._uses: Counter[Peer] = Counter()
        self._kinds: Counter[type[Peer]] = Counter()
        self._anchored: defaultdict[tuple[str, str], set[Peer]] = defaultdict(set)
        self._others: set[Peer] = set()
        self._networks: defaultdict[Network, set[Peer]] = defaultdict(set)
        self._lengths: Counter[int] = Counter()

    def add(self, peer: Peer) -> bool:
        """Use a peer; True when it is new."""
        self._uses[peer] += 1
        if self._uses[peer] > 1:
            return False
        self._kinds[type(peer)] += 1
        self._place(peer).add(peer)
        if isinstance(peer, Cidr | Block):
            self._lengths[peer.network.length] += 1
        return True

    def discard(self, peer: Peer) -> bool:
        """Stop using a peer; True when nobody uses it any more."""
        self._uses[peer] -= 1
        if self._uses[peer] > 0:
            return False
        del self._uses[peer]
        self._kinds[type(peer)] -= 1
        self._place(peer).discard(peer)
        if isinstance(peer, Cidr | Block):
            self._lengths[peer.network.length] -= 1
            if not self._networks[peer.network]:
                del self._networks[peer.network]
            if not self._lengths[peer.network.length]:
                del self._lengths[peer.network.length]
        return True

    def has(self, kinds: Iterable[type[Peer]]) -> bool:
        """Whether there is a peer of these kinds."""
        return any(self._kinds[kind] for kind in kinds)

    def matching(self, party: Party) -> frozenset[Peer]:
        """The peers a party is one of."""
        return frozenset(peer for peer in self._candidates(party) if peer_matches(peer, party)) | party.blocks

    def blocks(self, network: Network, kinds: tuple[type[Block] | type[Cidr], ...]) -> frozenset[Block | Cidr]:
        """The peers of these kinds that a network lies in."""
        return frozenset(
            peer
            for peer in self._by_network(network)
            if isinstance(peer, Block | Cidr) and isinstance(peer, kinds) and peer.covers(network)
        )

    def _place(self, peer: Peer) -> set[Peer]:
        if isinstance(peer, Cidr | Block):
            return self._networks[peer.network]
        if isinstance(peer, Names) and len(peer.names) == 1:
            return self._anchored[peer.names[0], ""]
        anchor = peer.selector.anchor() if isinstance(peer, Labelled) else None
        return self._anchored[anchor] if anchor else self._others

    def _candidates(self, party: Party) -> Iterator[Peer]:
        yield from self._others
        for key, found in party.labels.items():
            for _, value in found:
                yield from self._anchored.get((key, value), ())
        if party.network is not None:
            yield from self._by_network(party.network)

    def _by_network(self, network: Network) -> Iterable[Peer]:
        number = int.from_bytes(network.address, "big")
        for length in self._lengths:
            if length <= network.length:
                shift = 128 - length
                masked = (number >> shift << shift).to_bytes(16, "big")
                yield from self._networks.get(Network(masked, length), ())  # type: ignore[arg-type]
