"""Ask other DNS servers: over UDP from a fresh port each time, over TCP when an answer was truncated."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import secrets
import socket
from collections.abc import Sequence
from dataclasses import replace

from mycel.cluster.images.coredns.config import Forward, Upstream, within
from mycel.kit.dns import UDP_EDNS_SIZE, DnsFormatError, Edns, Flag, Message, RCode, parse, serialize

log = logging.getLogger(__name__)

_TRIES = 3


class Forwarder:
    """One `forward` directive at work."""

    def __init__(self, settings: Forward) -> None:
        self.settings = settings
        self._turn = itertools.count()
        self._under_way = 0
        self._random = random.SystemRandom()

    def covers(self, name: str) -> bool:
        """Whether questions for `name` (lower case) go to these upstreams."""
        if not within(name, self.settings.zone):
            return False
        return not any(within(name, zone) for zone in self.settings.excepted)

    async def resolve(self, query: Message) -> Message:
        """The first usable answer of an upstream; SERVFAIL when there is none, REFUSED when too many are asked."""
        if self._under_way >= self.settings.max_concurrent:
            log.warning("%s: %d queries are under way, this one is refused", query.questions[0].name, self._under_way)
            return query.reply(RCode.REFUSED)
        self._under_way += 1
        try:
            return await self._try_each(query)
        finally:
            self._under_way -= 1

    async def _try_each(self, query: Message) -> Message:
        upstreams = self._order()
        problem = "there is no upstream"
        for upstream in (upstreams * _TRIES)[: max(_TRIES, len(upstreams))]:
            try:
                async with asyncio.timeout(self.settings.timeout_s):
                    answer = await self._ask(upstream, query)
            except TimeoutError:
                problem = f"{upstream.host}:{upstream.port} did not answer within {self.settings.timeout_s:g} s"
            except (OSError, EOFError, DnsFormatError) as exc:
                problem = f"{upstream.host}:{upstream.port}: {exc}"
            else:
                return _for_client(query, answer)
        log.error("%s %d: %s", query.questions[0].name, query.questions[0].type, problem)
        return query.reply(RCode.SERVFAIL)

    def _order(self) -> list[Upstream]:
        upstreams = list(self.settings.upstreams)
        if self.settings.policy == "random":
            self._random.shuffle(upstreams)
        elif self.settings.policy == "round_robin" and upstreams:
            start = next(self._turn) % len(upstreams)
            upstreams = upstreams[start:] + upstreams[:start]
        return upstreams

    async def _ask(self, upstream: Upstream, query: Message) -> Message:
        edns = Edns(UDP_EDNS_SIZE, query.edns.do if query.edns else False)
        fresh = replace(query, id=secrets.randbelow(65536), flags=query.flags | Flag.RD, edns=edns)
        wire = serialize(fresh)
        if not self.settings.force_tcp:
            answer = await _over_udp(upstream, wire, fresh)
            if not answer.flags & Flag.TC:
                return answer
        return await _over_tcp(upstream, wire, fresh)


async def _over_udp(upstream: Upstream, wire: bytes, query: Message) -> Message:
    family = socket.AF_INET6 if ":" in upstream.host else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect((upstream.host, upstream.port))
        await loop.sock_sendall(sock, wire)
        while True:
            answer = parse(await loop.sock_recv(sock, 65535))
            if _answers(query, answer):
                return answer


async def _over_tcp(upstream: Upstream, wire: bytes, query: Message) -> Message:
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    try:
        writer.write(len(wire).to_bytes(2) + wire)
        size = int.from_bytes(await reader.readexactly(2))
        answer = parse(await reader.readexactly(size))
    finally:
        writer.close()
    if not _answers(query, answer):
        raise DnsFormatError("the answer is to another question")
    return answer


def _answers(query: Message, answer: Message) -> bool:
    """Whether it is the answer to our question; anything else was not asked for (RFC 5452, 9)."""
    return answer.is_response and answer.id == query.id and _folded(answer.questions) == _folded(query.questions)


def _folded(questions: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    return [(name.lower(), kind, cls) for name, kind, cls in questions]


def _for_client(query: Message, answer: Message) -> Message:
    """The upstream's answer under the client's id, question and EDNS."""
    flags = (answer.flags & ~Flag.RD) | (query.flags & Flag.RD)
    return replace(answer, id=query.id, flags=flags, questions=query.questions, edns=query.reply().edns)
