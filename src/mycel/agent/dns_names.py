"""The agent's side of the DNS proxy: tells it the rules, gives identities to what it asks for, reads what it learnt.

Identities are given when their rows are in the kernel. The proxy's rules outlive this process, and the next one goes
on with the identities in them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import msgspec
from aiohttp import web

from mycel.abi.layouts import Tuple
from mycel.agent.planner import Part, Planner
from mycel.kit.files import replace_private
from mycel.model.address import Address, parse_address, parse_prefix
from mycel.model.workload import IdentityId
from mycel.plan.dns import DnsRules, KnownIdentity, NamesAnswer, NamesRequest, Wanted, read_rules
from mycel.policy.engine import Engine
from mycel.policy.names import Named
from mycel.policy.rules import Network

log = logging.getLogger(__name__)
_REALIZE_S = 4.0
_MOST_WANTED = 4096

Connections = Callable[[], Collection[Address]]
"""Ends of the connections of this node. Blocks."""


class DnsNames:
    """See the module."""

    def __init__(self, folder: Path, engine: Engine, *, connections: Connections) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._engine = engine
        self._connections = connections
        self._planner: Planner | None = None
        self._written = b""
        self._unused: set[IdentityId] = set()

    def adopt(self) -> None:
        """Go on with the identities of the file an earlier agent wrote. Before anything is planned."""
        path = self._folder / "rules.json"
        try:
            rules = read_rules(path.read_bytes())
            self._engine.names.adopt({_named(each.of): IdentityId(each.identity) for each in rules.identities})
        except FileNotFoundError:
            return
        except (OSError, ValueError) as exc:
            log.error("the DNS proxy's rules %s cannot be read, identities are given anew: %s", path, exc)

    async def run(self, planner: Planner) -> None:
        """Tell the proxy whenever the kernel has something new. Until cancelled."""
        self._planner = planner
        seen = 0
        while True:
            seen = await planner.realized.newer_than(seen)
            self.tell()

    def tell(self) -> None:
        """Write the rules, if they are others than before, and say so."""
        content = msgspec.json.encode(rules_of(self._engine))
        if content == self._written:
            return
        replace_private(self._folder / "rules.json", [content])
        self._written = content
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as poke:
            try:
                poke.sendto(b"", str(self._folder / "poke.sock"))
            except OSError as exc:
                log.debug("the DNS proxy is not told, it looks by itself: %s", exc)

    # ---- asked by the proxy

    async def handle(self, request: web.Request) -> web.Response:
        """POST /v1/names."""
        try:
            asked = msgspec.json.decode(await request.read(), type=NamesRequest)
            if len(asked.wanted) > _MOST_WANTED:
                raise ValueError(f"{len(asked.wanted)} identities at once are more than {_MOST_WANTED}")
            answer = await self.answer(asked)
        except ValueError as exc:
            return web.json_response({"message": str(exc)}, status=400)
        except TimeoutError:
            return web.json_response({"message": "the rows are not in the kernel yet"}, status=503)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def answer(self, asked: NamesRequest) -> NamesAnswer:
        """Give identities. Raises ValueError, and TimeoutError when the kernel does not have their rows in time."""
        numbers: tuple[IdentityId, ...] = ()
        if asked.wanted:
            keys = [_named(each) for each in asked.wanted]
            fresh = any(key not in self._engine.names.identities for key in keys)
            numbers = tuple(map(self._engine.names.identity, keys))
            if fresh or not self._written:
                await self._realize()
                self.tell()  # the next agent gives the same
        if asked.used is not None:
            self._release(frozenset(map(IdentityId, asked.used)))
        live: tuple[str, ...] = ()
        if asked.live:
            ends = await asyncio.to_thread(self._connections)
            live = tuple(text for text in asked.live if parse_address(text) in ends)
        return NamesAnswer(numbers, live)

    async def _realize(self) -> None:
        if self._planner is None:
            raise TimeoutError
        async with asyncio.timeout(_REALIZE_S):
            await self._planner.realize(Part.POLICY)

    def _release(self, used: Collection[IdentityId]) -> None:
        """Let go of what was unused at two sweeps in a row: what was given since the first may be on its way."""
        names = self._engine.names
        unused = {number for number in names.identities.values() if number not in used}
        gone = unused & self._unused
        self._unused = unused
        if gone and names.keep({*names.identities.values()} - gone) and self._planner is not None:
            self._planner.touch(Part.POLICY)
            self.tell()


def rules_of(engine: Engine) -> DnsRules:
    """What the proxy has to know."""
    return DnsRules(
        listeners=engine.dns_listeners,
        selectors=tuple(sorted(engine.names.selectors)),
        networks=tuple(sorted(map(str, engine.networks))) if engine.names.selectors else (),
        identities=tuple(
            sorted(
                (
                    KnownIdentity(Wanted(key.selectors, str(key.network)), number)
                    for key, number in engine.names.identities.items()
                ),
                key=lambda each: each.of,
            )
        ),
    )


def connection_ends(tuples: Iterable[Tuple]) -> frozenset[Address]:
    """Both ends of connections."""
    return frozenset(Address(end) for each in tuples for end in (each.source, each.destination))


def _named(wanted: Wanted) -> Named:
    if not wanted.selectors or list(wanted.selectors) != sorted(set(wanted.selectors)):
        raise ValueError("selectors must be there, sorted, each once")
    return Named(wanted.selectors, Network(*parse_prefix(wanted.network)))
