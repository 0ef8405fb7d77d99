"""Kernel events → flows, served as Hubble's Observer on the node's socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from mycel.agent.answers import Answers
from mycel.agent.directory import StoreDirectory
from mycel.agent.proxy.envoy_drops import follow_drops
from mycel.agent.proxy.records import Records, receive
from mycel.agent.settings import VERSION, Settings
from mycel.agent.watches import Watches
from mycel.datapath.node import Datapath
from mycel.kit.tasks import spawn
from mycel.observe.peers import Peer, Peers
from mycel.observe.pipeline import FlowPipeline
from mycel.observe.server import serve

log = logging.getLogger(__name__)
_LOOK_AGAIN_S = 1.0


class Losses:
    """Tells what found no room, by CPU: after each batch, and once more when silence follows one.

    Programs go on counting while a batch is taken in, and no further event may ever come to wake us.
    """

    def __init__(self, counters: Callable[[], Sequence[int]], tell: Callable[..., None]) -> None:
        self._counters = counters
        self._tell = tell
        self._seen = list(counters())
        self._later: asyncio.TimerHandle | None = None

    def look_now_and_later(self) -> None:
        """Tell what is new now, and look again in a second unless that is planned already."""
        self._look()
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._look_again)

    def close(self) -> None:
        """Plan nothing any more."""
        if self._later is not None:
            self._later.cancel()

    def _look_again(self) -> None:
        self._later = None
        self._look()

    def _look(self) -> None:
        now = list(self._counters())
        for cpu, (count, before) in enumerate(zip(now, self._seen, strict=True)):
            if count > before:
                self._tell(count - before, cpu=cpu)
        self._seen = now


async def run_flows(
    settings: Settings,
    datapath: Datapath,
    directory: StoreDirectory,
    answers: Answers,
    watches: Watches,
    records: Records,
) -> None:
    """Read events and serve flows until cancelled."""
    pipeline = FlowPipeline(
        directory,
        node_name=settings.node_name,
        cluster_name=settings.cluster_name,
        capacity=settings.hubble_capacity,
        refuse=records.refuse,
    )
    peers = Peers()

    def update_peers() -> None:
        found: dict[str, Peer] = {}
        for node in watches.nodes.store.values():
            address = node.internal_addresses[0] if node.internal_addresses else ""
            found[node.name] = Peer(f"{settings.cluster_name}/{node.name}", f"{address}:4244")
        peers.replace(found)

    watches.on_any((watches.nodes,), update_peers)
    update_peers()
    reader = await asyncio.to_thread(datapath.events, wait_s=30.0)
    settings.hubble_socket.unlink(missing_ok=True)
    server = await serve(str(settings.hubble_socket), pipeline.store, peers=peers, version=VERSION)
    answers.flow_metrics = pipeline.metrics.render
    answers.hubble_problem = ""
    log.info("flows are served at %s", settings.hubble_socket)
    losses = Losses(reader.lost_by_cpu, pipeline.lost)
    datagrams = await receive(settings.records_socket, records)
    try:
        async with asyncio.TaskGroup() as group:
            spawn(group, follow_drops(settings.envoy_dir / "admin.sock", records), "records Envoy dropped")
            spawn(group, feed_l7(records, pipeline), "records of layer 7")
            async for batch in reader.batches():
                pipeline.feed(batch)
                losses.look_now_and_later()
    finally:
        datagrams.close()
        losses.close()
        reader.close()
        await server.aclose()


async def feed_l7(records: Records, pipeline: FlowPipeline) -> None:
    """Make flows of what proxies saw, until cancelled."""
    while True:
        found = await records.take()
        pipeline.feed_l7(found.records)
        for sheet in found.sheets:
            pipeline.feed_sheet(sheet)
        pipeline.lost(found.lost)
