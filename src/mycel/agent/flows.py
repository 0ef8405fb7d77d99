"""Kernel events → flows, served as Hubble's Observer on the node's socket."""

from __future__ import annotations

import asyncio
import logging

from mycel.agent.answers import Answers
from mycel.agent.directory import StoreDirectory
from mycel.agent.settings import VERSION, Settings
from mycel.agent.watches import Watches
from mycel.datapath.node import Datapath
from mycel.observe.peers import Peer, Peers
from mycel.observe.pipeline import FlowPipeline
from mycel.observe.server import serve

log = logging.getLogger(__name__)


async def run_flows(
    settings: Settings, datapath: Datapath, directory: StoreDirectory, answers: Answers, watches: Watches
) -> None:
    """Read events and serve flows until cancelled."""
    pipeline = FlowPipeline(
        directory,
        node_name=settings.node_name,
        cluster_name=settings.cluster_name,
        capacity=settings.hubble_capacity,
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
    lost = reader.lost()
    try:
        async for batch in reader.batches():
            pipeline.feed(batch)
            now = reader.lost()
            pipeline.lost(now - lost)
            lost = now
    finally:
        reader.close()
        await server.aclose()
