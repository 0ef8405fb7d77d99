"""Serves a new Envoy the last configuration while no agent is there, on the socket it inherits, until stdin ends.

The file may be a second older than what a running Envoy has: that one is left alone.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

from mycel.envoy.ads import Ads
from mycel.envoy.last import load
from mycel.envoy.resources import Snapshot
from mycel.envoy.server import ProxyServer
from mycel.kit.latest import Latest
from mycel.kit.logfmt import set_up as set_up_logs

log = logging.getLogger("mycel.envoy.stand_in")


async def serve(listening: socket.socket, snapshot: Snapshot) -> None:
    """Until stdin ends."""
    server = ProxyServer([Ads(Latest(snapshot), only_new=True)])
    await server.start(sock=listening)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(0, lambda: None if os.read(0, 1) else ended.set())
    await ended.wait()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="cilium-envoy-stand-in", description="Envoy's last configuration, served.")
    parser.add_argument("--socket", type=int, required=True, help="a listening socket, inherited")
    parser.add_argument("--last", type=Path, required=True)
    options = parser.parse_args()
    set_up_logs(debug=False)
    try:
        snapshot = load(options.last)
    except ValueError as exc:
        log.error("%s cannot be read, so Envoy waits for an agent: %s", options.last, exc)
        return 1
    if snapshot is None:
        return 1
    asyncio.run(serve(socket.socket(fileno=options.socket), snapshot))
    return 0


if __name__ == "__main__":
    sys.exit(main())
