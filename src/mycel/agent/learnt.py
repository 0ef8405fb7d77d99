"""What the DNS proxy of this node has learnt, read from its journal: names for flows, and `cilium fqdn`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from mycel.model.address import Address, format_address, parse_address
from mycel.model.workload import LocalEndpoint
from mycel.plan.dns import LearntLine

_LOOK_S = 1.0
_LIMIT = 256 << 20
_DECODER = msgspec.json.Decoder(LearntLine)


class Known(NamedTuple):
    """One address of one name; `until_s` by CLOCK_BOOTTIME."""

    until_s: float
    source: Address


class Learnt:
    """Follows the journal: new lines are added, a file written anew is read anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = (0, 0)  # inode, bytes
        self._known: dict[Address, dict[str, Known]] = {}

    async def run(self, changed: Callable[[], None]) -> None:
        """Until cancelled; `changed` hears of what is new."""
        while True:
            if await asyncio.to_thread(self.look):
                changed()
            await asyncio.sleep(_LOOK_S)

    def look(self) -> bool:
        """Read what is new; True when there was anything."""
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                start = self._read[1] if inode == self._read[0] else 0
                file.seek(start)
                content = file.read(_LIMIT)
        except FileNotFoundError:
            return False
        whole = content[: content.rfind(b"\n") + 1]
        if inode == self._read[0] and not whole:
            return False
        known = {address: dict(names) for address, names in self._known.items()} if start else {}
        for raw in whole.splitlines():
            try:
                line = _DECODER.decode(raw)
                address, source = parse_address(line.address), parse_address(line.source)
            except ValueError:
                continue
            known.setdefault(address, {})[line.name] = Known(line.until_s, source)
        self._known = known
        self._read = (inode, start + len(whole))
        return True

    def names(self, address: bytes) -> tuple[str, ...]:
        """The names of an address, sorted."""
        return tuple(sorted(self._known.get(Address(address), ())))

    def listing(self, endpoint: Callable[[Address], LocalEndpoint | None]) -> list[dict[str, object]]:
        """For people: names with their addresses, seconds left (negative: over), and who asked last."""
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        found: list[dict[str, object]] = []
        for address, names in self._known.items():
            for name, known in names.items():
                asker = endpoint(known.source)
                found.append(
                    {
                        "fqdn": name,
                        "ips": [format_address(address)],
                        "ttl-left": round(known.until_s - now_s),
                        "source": format_address(known.source),
                        "endpoint-id": asker.endpoint_id if asker else 0,
                        "pod": f"{asker.ref.namespace}/{asker.ref.name}" if asker else "",
                    }
                )
        return sorted(found, key=lambda each: (str(each["fqdn"]), str(each["ips"])))
