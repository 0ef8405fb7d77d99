"""Records of layer 7 on their way to the flows: from Envoy's log, and as datagrams from the DNS proxy.

Nobody waits for whoever reads them. What finds no room, in number or in bytes, and what cannot be read is counted, and
told: as lost flows, as a metric, and in the agent's status.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from mycel.flow.l7 import L7Record, Loss, Sheet, decode, halves, weight
from mycel.kit.sockets import bind_unix

log = logging.getLogger(__name__)
_MOST = 16_384
_MOST_BYTES = 16 << 20


class Cause(StrEnum):
    """Why a record is no flow."""

    AGENT_BEHIND = "agent-behind"  # more came than was taken
    DNS_PROXY = "dns-proxy"  # the proxy could not send it
    ENVOY = "envoy"  # likewise
    UNUSABLE = "unusable"  # not to be read, or of values that no flow can have


class Taken(NamedTuple):
    """What came since the last time."""

    records: list[L7Record]
    sheets: list[Sheet]
    lost: int  # not told before


class Records:
    """Those not taken yet."""

    def __init__(self) -> None:
        self._waiting: list[L7Record] = []
        self._sheets: list[Sheet] = []
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._losses: Counter[Cause] = Counter()
        self._untold = 0

    @property
    def losses(self) -> Mapping[Cause, int]:
        """Records that became no flow, since the start."""
        return self._losses

    def add(self, *records: L7Record) -> None:
        """Put records at the end."""
        for each in records:
            size = weight(each)
            if len(self._waiting) >= _MOST or self._bytes + size > _MOST_BYTES:
                self.lose(Cause.AGENT_BEHIND)
                continue
            self._waiting.append(each)
            self._bytes += size
        self._arrived.set()

    def add_sheet(self, sheet: Sheet) -> None:
        """Put a piece of a proxy's log at the end."""
        if self._bytes + sheet.size > _MOST_BYTES:
            self.lose(Cause.AGENT_BEHIND, sheet.forwarded + sheet.dropped)
            return
        self._sheets.append(sheet)
        self._bytes += sheet.size
        self._arrived.set()

    def lose(self, cause: Cause, count: int = 1) -> None:
        """Count records that are no flows."""
        self._losses[cause] += count
        self._untold += count
        self._arrived.set()

    def refuse(self, why: str) -> None:
        """Count one that is unusable. The first is logged: it may come with every request."""
        if not self._losses[Cause.UNUSABLE]:
            log.error("a record of layer 7 is no flow, and further ones are only counted: %s", why)
        self.lose(Cause.UNUSABLE)

    async def take(self) -> Taken:
        """Wait for something new, and take all there is."""
        await self._arrived.wait()
        self._arrived.clear()
        found = Taken(self._waiting, self._sheets, self._untold)
        self._waiting, self._sheets, self._bytes, self._untold = [], [], 0, 0
        return found


def words(losses: Mapping[Cause, int]) -> str:
    """For people; empty when nothing was lost."""
    if not any(losses.values()):
        return ""
    each = ", ".join(f"{count} {cause}" for cause, count in sorted(losses.items()) if count)
    return f"records of layer 7 lost since the agent's start: {each}"


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, records: Records) -> None:
        self._records = records

    def datagram_received(self, data: bytes, addr: object) -> None:
        for line in data.split(b"\n"):
            try:
                found = decode(line)
            except ValueError as exc:
                self._records.refuse(str(exc))
                continue
            if isinstance(found, Loss):
                self._records.lose(Cause.DNS_PROXY, found.count)
            else:
                self._records.add(*halves(found))


async def receive(path: Path, records: Records) -> asyncio.DatagramTransport:
    """Take in what comes to a datagram socket of mode 0600, until the transport is closed."""
    loop = asyncio.get_running_loop()
    sock = bind_unix(socket.SOCK_DGRAM, path)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Receiver(records), sock=sock)
    return transport
