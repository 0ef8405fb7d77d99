"""Records of layer 7 on their way to the flows: from Envoy's log, and as datagrams from the DNS proxy.

Nobody waits for whoever reads them: what finds no room is counted.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from pathlib import Path

from mycel.flow.l7 import L7Record, decode
from mycel.kit.sockets import bind_unix

log = logging.getLogger(__name__)
_MOST = 16_384


class Records:
    """Those not taken yet."""

    def __init__(self) -> None:
        self._waiting: deque[L7Record] = deque()
        self._arrived = asyncio.Event()
        self.lost = 0
        """Records that found no room, since the start."""

    def add(self, *records: L7Record) -> None:
        """Put records at the end."""
        room = _MOST - len(self._waiting)
        self._waiting.extend(records[:room])
        self.lost += max(0, len(records) - room)
        self._arrived.set()

    async def take(self) -> list[L7Record]:
        """Wait for records, and take all there are."""
        await self._arrived.wait()
        self._arrived.clear()
        found = list(self._waiting)
        self._waiting.clear()
        return found


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, records: Records) -> None:
        self._records = records
        self._told = False

    def datagram_received(self, data: bytes, addr: object) -> None:
        try:
            self._records.add(decode(data))
        except ValueError as exc:
            if not self._told:  # once: it may come with every query
                self._told = True
                log.error("a record of the DNS proxy cannot be read: %s", exc)


async def receive(path: Path, records: Records) -> asyncio.DatagramTransport:
    """Take in what comes to a datagram socket of mode 0600, until the transport is closed."""
    loop = asyncio.get_running_loop()
    sock = bind_unix(socket.SOCK_DGRAM, path)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Receiver(records), sock=sock)
    return transport
