"""The configuration Envoy was last offered, in a file: what a new Envoy begins with while no agent is there.

It holds certificates' keys as well: Envoy has them in its memory, root alone reads either, and without them TLS would
be closed. The folder is below /var/run, which no reboot outlives.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from mycel.envoy.resources import Snapshot, TypeUrl, resource
from mycel.kit.files import replace_private
from mycel.kit.latest import Latest

_GATHER_S = 1.0
_Bodies = dict[str, dict[str, bytes]]


def save(path: Path, snapshot: Snapshot) -> None:
    """Replace the file (mode 0600), whole or not at all."""
    bodies = {kind: {name: each.body for name, each in by_name.items()} for kind, by_name in snapshot.items()}
    replace_private(path, [msgspec.msgpack.encode(bodies)])


def load(path: Path) -> Snapshot | None:
    """What the file holds; None when there is none. Raises ValueError when it is none of ours."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    bodies = msgspec.msgpack.decode(data, type=_Bodies)
    return {TypeUrl(kind): {name: resource(body) for name, body in by_name.items()} for kind, by_name in bodies.items()}


async def keep(path: Path, snapshot: Latest[Snapshot]) -> None:
    """Save every snapshot, those of a second together; until cancelled."""
    seen = 0
    while True:
        seen = await snapshot.newer_than(seen)
        await asyncio.to_thread(save, path, snapshot.value)
        await asyncio.sleep(_GATHER_S)
