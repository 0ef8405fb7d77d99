"""One server block at work: its plugins in CoreDNS' order, memory first, other servers last.

`respond` answers at once what memory knows, and hands back a coroutine only for what has to be forwarded: almost
every query within a cluster costs no task.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from mycel.cluster.images.coredns import hosts, kubernetes, local
from mycel.cluster.images.coredns.answer import Answer
from mycel.cluster.images.coredns.cache import AnswerCache
from mycel.cluster.images.coredns.config import Server, within
from mycel.cluster.images.coredns.directory import Directory
from mycel.cluster.images.coredns.forward import Forwarder
from mycel.kit.dns import Class, Flag, Message, RCode, Record, Type

log = logging.getLogger("mycel.coredns")

_CHAIN_LIMIT = 8


class Chain:
    """The plugins of one zone."""

    def __init__(self, server: Server, directory: Directory, entries: hosts.Entries) -> None:
        self.server = server
        self._directory = directory
        self._entries = entries
        self._forwarders = [Forwarder(one) for one in server.forwards]
        self._cache = AnswerCache(server.cache) if server.cache is not None else None
        self._turn = 0

    def respond(self, query: Message) -> Message | Coroutine[Any, Any, Message]:
        """The response, or the way to it."""
        question = query.questions[0]
        answer = self._from_memory(query)
        if answer is not None:
            if answer.records and answer.records[-1].type == Type.CNAME and question.type != Type.CNAME:
                return self._follow(query, answer)
            return self._reply(query, answer)
        if self._cache is not None:
            cached = self._cache.get(query, time.monotonic())
            if cached is not None:
                return cached
        forwarder = next((one for one in self._forwarders if one.covers(question.name.lower())), None)
        if forwarder is None:
            return query.reply(RCode.SERVFAIL if not self._forwarders else RCode.REFUSED)
        return self._ask(forwarder, query)

    def _from_memory(self, query: Message) -> Answer | None:
        question, server = query.questions[0], self.server
        answer = local.resolve(question) if server.local else None
        if answer is None and server.hosts is not None:
            answer = hosts.resolve(question, server.hosts, self._entries)
        if answer is None and server.kubernetes is not None:
            answer = kubernetes.resolve(question, server.kubernetes, self._directory)
        return answer

    def _reply(self, query: Message, answer: Answer) -> Message:
        return replace(
            query.reply(answer.rcode, authoritative=True),
            answers=self._rotate(answer.records),
            authority=answer.authority,
            additional=answer.additional,
        )

    def _rotate(self, records: tuple[Record, ...]) -> tuple[Record, ...]:
        """Another order each time, as the plugin loadbalance does: clients often take the first."""
        if len(records) < 2:
            return records
        self._turn = (self._turn + 1) % len(records)
        return records[self._turn :] + records[: self._turn]

    async def _ask(self, forwarder: Forwarder, query: Message) -> Message:
        answer = await forwarder.resolve(query)
        if self._cache is not None:
            self._cache.put(query, answer, time.monotonic())
        return answer

    async def _follow(self, query: Message, answer: Answer) -> Message:
        """An alias (ExternalName) with what its target resolves to, here or elsewhere."""
        reply = self._reply(query, answer)
        for _ in range(_CHAIN_LIMIT):
            target = reply.answers[-1].target()
            if target is None:
                break
            further = replace(query, questions=(query.questions[0]._replace(name=target),))
            known = self._from_memory(further)
            if known is None:
                found = self.respond(further)
                found = found if isinstance(found, Message) else await found
                return replace(reply, answers=reply.answers + found.answers, rcode=found.rcode)
            reply = replace(reply, answers=reply.answers + known.records)
            if not known.records or known.records[-1].type != Type.CNAME:
                return replace(reply, authority=known.authority, rcode=known.rcode)
        return reply


class Dispatcher:
    """All chains of one port; the longest zone that fits gets the query."""

    def __init__(self, chains: Sequence[Chain]) -> None:
        self._chains = sorted(chains, key=lambda one: -len(one.server.zone))

    def respond(self, query: Message) -> Message | Coroutine[Any, Any, Message]:
        """The response, or the way to it."""
        if query.opcode != 0:
            return query.reply(RCode.NOTIMP)
        if len(query.questions) != 1:
            return query.reply(RCode.FORMERR)
        if query.edns is not None and query.edns.version != 0:
            return query.reply(RCode.BADVERS)
        question = query.questions[0]
        folded = question.name.lower()
        chain = next((one for one in self._chains if within(folded, one.server.zone)), None)
        if chain is None or question.cls not in (Class.IN, Class.ANY) or question.type == Type.AXFR:
            return query.reply(RCode.REFUSED)
        response = chain.respond(query)
        return _logged(query, response) if chain.server.log else response


def _logged(query: Message, response: Message | Coroutine[Any, Any, Message]) -> Message | Coroutine[Any, Any, Message]:
    started_s = time.monotonic()

    def tell(found: Message) -> Message:
        question = query.questions[0]
        took_s = time.monotonic() - started_s
        log.info("%d %d %s %d %.6fs", query.id, question.type, question.name, found.rcode, took_s)
        return found

    async def later(coming: Coroutine[Any, Any, Message]) -> Message:
        return tell(await coming)

    return tell(response) if isinstance(response, Message) else later(response)


def finish(query: Message, response: Message) -> Message:
    """Last touches: recursion is on offer wherever we forward; the question stays as it was asked."""
    offered = response.flags | (Flag.RA if not response.flags & Flag.AA else Flag(0))
    return replace(response, id=query.id, flags=offered)
