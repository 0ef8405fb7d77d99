"""Answers of other servers, for as long as they live. Pure: the caller brings the time."""

from __future__ import annotations

import collections
from dataclasses import replace
from typing import NamedTuple

from mycel.cluster.images.coredns.config import Cache, within
from mycel.kit.dns import Flag, Message, RCode, Record, Type

_LEAST_TTL_S = 1

Key = tuple[str, int, bool]


class _Entry(NamedTuple):
    message: Message
    stored_s: float
    expires_s: float


class AnswerCache:
    """At most `capacity` answers; the longest unused goes first."""

    def __init__(self, settings: Cache) -> None:
        self._settings = settings
        self._entries: collections.OrderedDict[Key, _Entry] = collections.OrderedDict()

    def get(self, query: Message, now_s: float) -> Message | None:
        """The answer to `query` with what is left of its lives, or None."""
        key = _key(query)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_s <= now_s:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        age_s = int(now_s - entry.stored_s)
        message = entry.message
        return replace(
            message,
            id=query.id,
            flags=(message.flags & ~Flag.AA) | (query.flags & Flag.RD),
            questions=query.questions,
            answers=_aged(message.answers, age_s),
            authority=_aged(message.authority, age_s),
            additional=_aged(message.additional, age_s),
            edns=query.reply().edns,
        )

    def put(self, query: Message, answer: Message, now_s: float) -> None:
        """Keep an answer, if it is one that may be kept."""
        if not any(within(query.questions[0].name.lower(), zone) for zone in self._settings.zones):
            return
        ttl_s = self._ttl_s(answer)
        if ttl_s is None or answer.flags & Flag.TC:
            return
        key = _key(query)
        self._entries[key] = _Entry(answer, now_s, now_s + ttl_s)
        self._entries.move_to_end(key)
        while len(self._entries) > self._settings.capacity:
            self._entries.popitem(last=False)

    def _ttl_s(self, answer: Message) -> int | None:
        """How long; negative answers live as their SOA says (RFC 2308), those without one are not kept."""
        if answer.rcode == RCode.NOERROR and answer.answers:
            return max(min(answer.smallest_ttl() or 0, self._settings.success_ttl_s), _LEAST_TTL_S)
        if answer.rcode not in (RCode.NOERROR, RCode.NXDOMAIN):
            return None
        soa = next((one for one in answer.authority if one.type == Type.SOA and len(one.data) >= 4), None)
        if soa is None:
            return None
        minimum = int.from_bytes(soa.data[-4:])
        return max(min(soa.ttl, minimum, self._settings.denial_ttl_s), _LEAST_TTL_S)


def _key(query: Message) -> Key:
    question = query.questions[0]
    return question.name.lower(), question.type, bool(query.edns and query.edns.do)


def _aged(records: tuple[Record, ...], age_s: int) -> tuple[Record, ...]:
    return tuple(one._replace(ttl=max(one.ttl - age_s, 0)) for one in records) if age_s else records
