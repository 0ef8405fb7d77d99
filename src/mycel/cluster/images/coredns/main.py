"""Starts what the Corefile asks for and stops it in order."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from mycel.cluster.images.coredns.chain import Chain, Dispatcher
from mycel.cluster.images.coredns.config import Kubernetes, Server, configure, parse_hosts
from mycel.cluster.images.coredns.corefile import CorefileError
from mycel.cluster.images.coredns.directory import Directory
from mycel.cluster.images.coredns.health import HttpStatus
from mycel.cluster.images.coredns.hosts import Entries
from mycel.cluster.images.coredns.server import DnsServer

log = logging.getLogger(__name__)


async def serve(servers: Sequence[Server]) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when a port cannot be had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        waits: dict[str, asyncio.Event] = {}
        directories: dict[Kubernetes, Directory] = {}
        for server in servers:
            wanted = server.kubernetes
            if wanted is not None and wanted not in directories:
                from mycel.cluster.images.coredns import sources

                directories[wanted] = Directory()
                synced = waits["kubernetes " + " ".join(wanted.zones)] = asyncio.Event()
                tasks.append(group.create_task(sources.watch(wanted, directories[wanted], synced), name="kubernetes"))
        await _listen(servers, directories, stack)
        lameduck_s = await _start_status(servers, waits, stack)
        log.info("serving %s", ", ".join(f"{one.zone}:{one.port}" for one in servers))
        await stop.wait()
        await asyncio.sleep(lameduck_s)
        for task in tasks:
            task.cancel()


async def _listen(servers: Sequence[Server], directories: dict[Kubernetes, Directory], stack: AsyncExitStack) -> None:
    ports: dict[tuple[int, tuple[str, ...]], list[Chain]] = {}
    for server in servers:
        directory = directories[server.kubernetes] if server.kubernetes is not None else Directory()
        ports.setdefault((server.port, server.addresses), []).append(Chain(server, directory, _entries(server)))
    for (port, addresses), chains in ports.items():
        listener = DnsServer(Dispatcher(chains))
        stack.push_async_callback(listener.close)
        await listener.start(addresses or _everywhere(), port)


async def _start_status(servers: Sequence[Server], waits: dict[str, asyncio.Event], stack: AsyncExitStack) -> float:
    """Start health and ready ports (each once); returns how long to stay up after the stop signal, in seconds."""

    def blocked() -> str:
        return "\n".join(name for name, done in waits.items() if not done.is_set())

    lameduck_s = 0.0
    started: set[tuple[str, int]] = set()
    for server in servers:
        for path, wanted, blocked_by in (("/health", server.health, lambda: ""), ("/ready", server.ready, blocked)):
            if wanted is None or (wanted.host, wanted.port) in started:
                continue
            started.add((wanted.host, wanted.port))
            lameduck_s = max(lameduck_s, wanted.lameduck_s)
            status = HttpStatus(path, blocked_by)
            stack.callback(status.close)
            await status.start(wanted.host, wanted.port)
    return lameduck_s


def _entries(server: Server) -> Entries:
    if server.hosts is None:
        return {}
    entries = dict(server.hosts.entries)
    if server.hosts.file:
        rows = [line.partition("#")[0].split() for line in Path(server.hosts.file).read_text().splitlines()]
        entries |= parse_hosts([tuple(words) for words in rows if words])
    return entries


def _everywhere() -> tuple[str, ...]:
    """Both families, or IPv4 alone where IPv6 is missing or switched off."""
    known = Path("/proc/net/if_inet6")
    return ("0.0.0.0", "::") if known.exists() and known.read_text().strip() else ("0.0.0.0",)  # noqa: S104


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="coredns", description="A small DNS server that reads a Corefile.")
    parser.add_argument("-conf", default="Corefile", metavar="FILE", help="the Corefile (default: ./Corefile)")
    parser.add_argument("-dns.port", dest="port", type=int, default=53, metavar="PORT", help="default port (53)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] %(message)s", stream=sys.stdout)
    try:
        text = Path(options.conf).read_text()
        servers = configure(
            text,
            environment=os.environ,
            read_file=lambda path: Path(path).read_text(),
            default_port=options.port,
        )
    except OSError as exc:
        log.error("cannot read the Corefile %s: %s", options.conf, exc.strerror)
        return 1
    except CorefileError as exc:
        log.error("%s", exc)
        return 1
    gc.freeze()
    code = 0
    try:
        asyncio.run(serve(servers))
    except* OSError as group:
        log.error("cannot serve: %s", group.exceptions[0])
        code = 1
    return code
