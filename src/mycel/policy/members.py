"""Who there is, and among which peers of policies in force. Whoever comes or goes is put into the sets in use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from mycel.model.workload import IdentityId
from mycel.policy.index import PartyIndex, PeerIndex
from mycel.policy.rules import Block, Cidr, Party, Peer
from mycel.policy.set_table import SetTable


class Members:
    """See the module. Here sets learn of parties, never of peers: a set with new peers is a new set."""

    def __init__(self, sets: SetTable) -> None:
        self._sets = sets
        self._matched: dict[IdentityId, frozenset[Peer]] = {}
        self.parties = PartyIndex()
        self.peers = PeerIndex()
        self.by_peer: defaultdict[Peer, set[IdentityId]] = defaultdict(set)
        self.version = 1
        """Grows when parties, or prefixes that peers are about, are others."""

    def put(self, party: Party) -> None:
        """An identity is there (or has other named ports)."""
        if not self.parties.put(party):
            return
        self.version += 1
        matched = self._match(party.identity, self.peers.matching(party))
        self._sets.put({party.identity: (party, matched)})

    def drop(self, identity: IdentityId) -> None:
        """An identity is gone."""
        if not self.parties.remove(identity):
            return
        self.version += 1
        self._match(identity, frozenset())
        del self._matched[identity]
        self._sets.put({identity: None})

    def _match(self, identity: IdentityId, peers: frozenset[Peer]) -> frozenset[Peer]:
        old = self._matched.get(identity, frozenset())
        for peer in old - peers:
            self.by_peer[peer].discard(identity)
        for peer in peers - old:
            self.by_peer[peer].add(identity)
        self._matched[identity] = peers
        return peers

    def replace(self, old: Iterable[Peer], new: Iterable[Peer]) -> None:
        """Policies name other peers than before."""
        fresh = [peer for peer in new if self.peers.add(peer)]
        gone = {peer for peer in old if self.peers.discard(peer)}
        if any(isinstance(peer, Block | Cidr) for peer in (*fresh, *gone)):
            self.version += 1
        for peer in fresh:
            for identity in self.parties.matching(peer):
                self.by_peer[peer].add(identity)
                self._matched[identity] |= {peer}
        for peer in gone:
            for identity in self.by_peer.pop(peer, ()):
                self._matched[identity] -= {peer}
