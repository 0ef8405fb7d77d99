"""The nodes that observe, as a set that changes: what Peer.Notify tells and GetNodes lists."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from mycel.api import peer_pb2


class Peer(NamedTuple):
    """One node's Observer. `server_name` is the name in its certificate; empty: plain text."""

    name: str
    address: str
    server_name: str = ""


class Peers:
    """Peers by name. `replace` sets them all; watchers get the differences."""

    def __init__(self, peers: Mapping[str, Peer] | None = None) -> None:
        self._peers: dict[str, Peer] = dict(peers or {})
        self._changed = asyncio.Event()

    @property
    def all(self) -> Mapping[str, Peer]:
        """Everything known now."""
        return self._peers

    def replace(self, peers: Mapping[str, Peer]) -> None:
        """Set the peers; does nothing when they are the same."""
        if dict(peers) == self._peers:
            return
        self._peers = dict(peers)
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self) -> AsyncIterator[peer_pb2.ChangeNotification]:
        """Every peer as ADDED, then changes for ever."""
        told: dict[str, Peer] = {}
        while True:
            changed, current = self._changed, self._peers
            for name, peer in sorted(told.items()):
                if name not in current:
                    yield _notification(peer, peer_pb2.PEER_DELETED)
            for name, peer in sorted(current.items()):
                if told.get(name) != peer:
                    yield _notification(peer, peer_pb2.PEER_UPDATED if name in told else peer_pb2.PEER_ADDED)
            told = current
            await changed.wait()


def _notification(peer: Peer, change: peer_pb2.ChangeNotificationType) -> peer_pb2.ChangeNotification:
    message = peer_pb2.ChangeNotification(name=peer.name, address=peer.address, type=change)
    if peer.server_name:
        message.tls.server_name = peer.server_name
    return message
