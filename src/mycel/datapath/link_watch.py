"""Tell when network devices of this namespace come, go or change, without looking again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from mycel.datapath.rtnetlink import LINK_GROUP, Netlink

GATHER_S = 0.1


async def link_changes(*, gather_s: float = GATHER_S) -> AsyncIterator[None]:
    """Yield once after each burst of changes; the reader lists devices anew, so nothing can be missed."""
    loop = asyncio.get_running_loop()
    with Netlink(LINK_GROUP) as netlink:
        while True:
            changed: asyncio.Future[None] = loop.create_future()
            loop.add_reader(netlink.fileno(), _resolve, changed)
            try:
                await changed
            finally:
                loop.remove_reader(netlink.fileno())
            await asyncio.sleep(gather_s)
            netlink.read_group()
            yield None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
