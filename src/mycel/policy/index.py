"""Which selectors match whom, without asking every selector: they are found by a label they all require."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from mycel.policy.rules import Block, Cidr, Labelled, Network, Party, Peer, peer_matches


class PeerIndex:
    """Peers in use, counted, and found by what they match."""

    def __init__(self) -> None:
        self._uses: Counter[Peer] = Counter()
        self._anchored: defaultdict[tuple[str, str], set[Peer]] = defaultdict(set)
        self._others: set[Peer] = set()
        self._networks: defaultdict[Network, set[Peer]] = defaultdict(set)
        self._lengths: Counter[int] = Counter()

    def add(self, peer: Peer) -> bool:
        """Use a peer; True when it is new."""
        self._uses[peer] += 1
        if self._uses[peer] > 1:
            return False
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
        self._place(peer).discard(peer)
        if isinstance(peer, Cidr | Block):
            self._lengths[peer.network.length] -= 1
            if not self._networks[peer.network]:
                del self._networks[peer.network]
            if not self._lengths[peer.network.length]:
                del self._lengths[peer.network.length]
        return True

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
