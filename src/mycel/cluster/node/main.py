"""One node program, wired: settings → client → pods, heartbeat, server. Shutdown leaves every container running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

from mycel.cluster.node import runtime, settings
from mycel.cluster.node.events import Recorder
from mycel.cluster.node.heartbeat import Heartbeat
from mycel.cluster.node.manager import Manager
from mycel.cluster.node.server import Server
from mycel.cluster.node.settings import NodeSettings
from mycel.k8s.client import ApiClient, Endpoint

log = logging.getLogger("mycel-node")


def run() -> int:
    """Run until SIGTERM. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The default child watcher starts a thread for every process we start.
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())  # pyright: ignore[reportDeprecated] (3.11 has no other way)
    asyncio.run(run_node(settings.load()))
    return 0


async def run_node(node: NodeSettings) -> None:
    """Every task of the node program, until a signal."""
    runtime.prepare()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    endpoint = Endpoint.from_kubeconfig(settings.CONFIG / "kubelet.conf")
    async with ApiClient(endpoint, user_agent=f"mycel-node/{node.name}") as client:
        recorder = Recorder(client, node=node.name)
        manager = Manager(client, node, recorder)
        heartbeat = Heartbeat(client, node, lambda: manager.network_error)
        server = Server(node, manager)

        async def relay_network() -> None:
            while True:
                await manager.network_changed.wait()
                manager.network_changed.clear()
                heartbeat.poke()

        async def main_tasks() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(recorder.run(), name="events")
                group.create_task(manager.run(), name="pods")
                group.create_task(heartbeat.run(), name="heartbeat")
                group.create_task(relay_network(), name="network readiness")
                group.create_task(server.run(), name="server")

        tasks = asyncio.create_task(main_tasks(), name="node")
        stop = asyncio.create_task(stopping.wait(), name="signal")
        await asyncio.wait({tasks, stop}, return_when=asyncio.FIRST_COMPLETED)
        if tasks.done():
            stop.cancel()
            await tasks
        tasks.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tasks
