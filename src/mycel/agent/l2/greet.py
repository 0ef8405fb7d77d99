"""Tells neighbours of addresses this node has just taken, once the kernel answers for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from mycel.agent.l2.announcer import Announcer
from mycel.agent.planner import Part, Planner
from mycel.datapath import arp
from mycel.datapath.netlink import Link
from mycel.model.address import Address, format_address

log = logging.getLogger(__name__)


async def greet(announcer: Announcer, planner: Planner, links: Iterable[Link]) -> None:
    """Bring what is announced into the kernel, then say it aloud. Until cancelled."""
    links = tuple(links)
    told: frozenset[Address] = frozenset()
    seen = 0
    while True:
        seen = await announcer.addresses.newer_than(seen)
        now = announcer.addresses.value
        await planner.realize(Part.SERVICES)
        taken = now - told
        if taken:
            log.info("answering for %s", ", ".join(sorted(map(format_address, taken))))
            try:
                await asyncio.to_thread(arp.announce, links, taken)
            except OSError as problem:
                log.info("neighbours are not told: %s", problem)
        if told - now:
            log.info("no more answering for %s", ", ".join(sorted(map(format_address, told - now))))
        told = now
