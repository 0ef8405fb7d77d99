"""The node's Envoy as the rest of the agent knows it: what it is to hold, from several makers; what it has taken; where
its sockets are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mycel.abi import ProxyKey, ProxyKind, ProxyValue
from mycel.envoy.ads import Ads, Answers
from mycel.envoy.last import keep
from mycel.envoy.lending import DOOR, LAST
from mycel.envoy.resources import Snapshot, merged
from mycel.envoy.server import ProxyServer, borrow
from mycel.kit.groups import read_group
from mycel.kit.latest import Latest

log = logging.getLogger(__name__)
_LOOK_S = 0.5
_DIAL_S = 0.2


class Maker(Protocol):
    """Makes a part of what Envoy is to hold, and hears what Envoy says of all of it."""

    @property
    def snapshot(self) -> Latest[Snapshot]:
        """The part as it is to be."""
        ...

    def answered(self, answers: Answers) -> None:
        """Take in what Envoy has said so far."""
        ...


class Proxy:
    """One per node."""

    def __init__(
        self, folder: Path, *, groups: Mapping[ProxyKind, Path], changed: Callable[[], None] = lambda: None
    ) -> None:
        """`folder`: where Envoy's supervisor lends its socket. `groups`: the files in which proxies say which control
        group they are in; `changed` is called when these may be others.
        """
        self._folder = folder
        self._files = groups
        self._snapshot: Latest[Snapshot] = Latest()
        self._ads = Ads(self._snapshot)
        self.groups: dict[ProxyKey, ProxyValue] = {}
        self._changed = changed

    def adopt(self, groups: Mapping[ProxyKey, ProxyValue]) -> None:
        """Go on with the groups the kernel knows: Envoy goes on, too."""
        self.groups |= groups

    @property
    def connected(self) -> bool:
        """Whether an Envoy is there."""
        return self._ads.streams > 0

    async def run(self, makers: Sequence[Maker], handlers: Collection[Any] = ()) -> None:
        """Serve Envoy what `makers` make until cancelled; `handlers` are what else Envoy may call."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with asyncio.TaskGroup() as group:
            parts = [maker.snapshot for maker in makers]
            for part in parts:
                group.create_task(self._combine(part, parts))
            group.create_task(keep(self._folder / LAST, self._snapshot))
            group.create_task(self._serve(handlers))
            group.create_task(self._tell(makers))

    async def _serve(self, handlers: Collection[Any]) -> None:
        """On the socket that Envoy's supervisor lends, whenever there is one."""
        await self._snapshot.newer_than(0)  # until then whoever serves Envoy knows better
        while True:
            try:
                listening, loan = await borrow(self._folder / DOOR)
            except OSError:
                await asyncio.sleep(_DIAL_S)
                continue
            with listening, loan:
                server = ProxyServer([self._ads, *handlers])
                await server.start(sock=listening)
                try:
                    await asyncio.get_running_loop().sock_recv(loan, 1)  # nothing is said: this is its end
                except OSError as exc:
                    log.info("Envoy's supervisor is gone: %s", exc)
                finally:
                    server.close()
                    await server.wait_closed()

    async def _combine(self, part: Latest[Snapshot], parts: Sequence[Latest[Snapshot]]) -> None:
        seen = 0
        while True:
            seen = await part.newer_than(seen)
            if all(each.version for each in parts):  # what one maker has not said is not taken away
                self._snapshot.set(merged(*(each.value for each in parts)))

    async def _tell(self, makers: Sequence[Maker]) -> None:
        seen = 0
        while True:
            seen = await self._ads.answers.newer_than(seen)
            for maker in makers:
                maker.answered(self._ads.answers.value)

    async def watch_groups(self) -> None:
        """Who the proxies are, by the files they leave: they are containers of their own and come and go."""
        while True:
            found = await asyncio.to_thread(lambda: {kind: read_group(path) for kind, path in self._files.items()})
            groups = {ProxyKey(number): ProxyValue(kind) for kind, number in found.items() if number}
            # A file that is not there tells nothing: what the kernel knows stays.
            known = {key: value for key, value in self.groups.items() if not found.get(ProxyKind(value.kind))}
            if known | groups != self.groups:
                self.groups = known | groups
                self._changed()
            await asyncio.sleep(_LOOK_S)
