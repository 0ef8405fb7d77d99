"""Aggregated discovery for the node's one Envoy, over gRPC: `envoy.delta` holds the rules, this moves bytes.

Every stream is taken as new: what Envoy says it has is believed, and only what differs is sent. An answer that does not
come ends the stream, and Envoy begins another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from mycel.envoy import delta
from mycel.envoy.messages import message_class
from mycel.envoy.resources import SECRET, Snapshot, TypeUrl, Version
from mycel.kit.latest import Latest

log = logging.getLogger(__name__)

Answers = Mapping[tuple[TypeUrl, str], delta.Outcome]
ANSWER_S = 10.0
_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


class Ads:
    """Brings Envoy to `snapshot`; `answers` is what it has said of each resource it was sent or came with.

    `only_new`: an Envoy that comes with resources keeps those and is told nothing.
    """

    def __init__(self, snapshot: Latest[Snapshot], *, only_new: bool = False) -> None:
        self._snapshot = snapshot
        self._only_new = only_new
        self._refused: dict[str, delta.Outcome] = {}  # secrets, until they are others
        self.answers: Latest[Answers] = Latest()
        self.streams = 0

    def __mapping__(self) -> dict[str, Handler]:
        """What grpclib serves."""
        request = message_class("envoy.service.discovery.v3.DeltaDiscoveryRequest")
        response = message_class("envoy.service.discovery.v3.DeltaDiscoveryResponse")
        return {_METHOD: Handler(self._serve, Cardinality.STREAM_STREAM, request, response)}

    async def _serve(self, stream: Any) -> None:
        conversation = _Conversation(stream, self._snapshot, self._note, only_new=self._only_new)
        self.streams += 1
        log.info("Envoy asks for its configuration")
        try:
            await conversation.run()
        finally:
            self.streams -= 1

    def _note(self, outcomes: list[delta.Outcome], begins: TypeUrl | None = None) -> None:
        """Take outcomes in. `begins`: a type a stream begins with, of which nothing said before counts."""
        before = self.answers.value if self.answers.version else {}
        known = {place: each for place, each in before.items() if place[0] != begins}
        for each in outcomes:
            place = each.type_url, each.name
            if each.version is None and each.error is None:
                known.pop(place, None)
                continue
            known[place] = each = self._standing(each)
            if each.error is not None:
                log.warning("Envoy refuses %s %s: %s", each.type_url.rpartition(".")[2], each.name, each.error)
        self.answers.set(known)

    def _standing(self, outcome: delta.Outcome) -> delta.Outcome:
        """What holds of a resource: Envoy takes a secret it has refused when another stream brings the same again."""
        if outcome.type_url != SECRET:
            return outcome
        earlier = self._refused.pop(outcome.name, outcome)
        found = earlier if earlier.version == outcome.version and outcome.error is None else outcome
        if found.error is not None:
            self._refused[outcome.name] = found
        return found


class _Conversation:
    """One stream."""

    def __init__(self, stream: Any, snapshot: Latest[Snapshot], note: Any, *, only_new: bool) -> None:
        self._stream = stream
        self._only_new = only_new
        self._snapshot = snapshot
        self._note = note
        self._state = delta.Stream()
        self._begun: set[TypeUrl] = set()
        self._sending = asyncio.Lock()
        self._waits: dict[TypeUrl, asyncio.TimerHandle] = {}  # one per response that is not answered
        self._overdue: asyncio.Future[TypeUrl] = asyncio.get_running_loop().create_future()
        self._response = message_class("envoy.service.discovery.v3.DeltaDiscoveryResponse")

    async def run(self) -> None:
        """Until Envoy or the connection ends it, or an answer is overdue."""
        # Envoy asks only when a type's snapshot is known: an empty one must not take away what it has.
        seen = await self._snapshot.newer_than(0)
        self._state.offer(self._snapshot.value)
        tasks = [asyncio.create_task(each) for each in (self._receive(), self._offer(seen), self._expire())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for wait in self._waits.values():
                wait.cancel()

    async def _receive(self) -> None:
        while (message := await self._stream.recv_message()) is not None:
            request = _request(message)
            if self._only_new and request.initial_versions:
                await asyncio.Event().wait()
            begins = None if request.type_url in self._begun else request.type_url
            self._begun.add(request.type_url)
            outcomes = self._state.receive(request)
            if request.type_url not in self._state.unanswered and (wait := self._waits.pop(request.type_url, None)):
                wait.cancel()
            came_with = [
                delta.Outcome(request.type_url, name, version, None)
                for name, version in request.initial_versions.items()
            ]
            if begins or outcomes:
                self._note(came_with + outcomes, begins)
            await self._send()

    async def _offer(self, seen: int) -> None:
        while True:
            seen = await self._snapshot.newer_than(seen)
            self._state.offer(self._snapshot.value)
            await self._send()

    async def _expire(self) -> None:
        kind = (await self._overdue).rpartition(".")[2]
        raise GRPCError(Status.DEADLINE_EXCEEDED, f"no answer about {kind} for {ANSWER_S:g} s")

    async def _send(self) -> None:
        async with self._sending:
            for each in self._state.due():
                # From now on, however often something else is sent meanwhile.
                late = asyncio.get_running_loop().call_later(ANSWER_S, self._late, each.type_url)
                self._waits[each.type_url] = late
                await self._stream.send_message(self._message(each))

    def _late(self, kind: TypeUrl) -> None:
        if not self._overdue.done():
            self._overdue.set_result(kind)

    def _message(self, response: delta.Response) -> Any:
        made: Any = self._response()
        made.type_url, made.nonce = response.type_url, response.nonce
        made.removed_resources.extend(response.removed)
        for name, resource in response.resources.items():
            item = made.resources.add()
            item.name, item.version = name, resource.version
            item.resource.type_url, item.resource.value = response.type_url, resource.body
        return made


def _request(message: Any) -> delta.Request:
    return delta.Request(
        TypeUrl(message.type_url),
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        {name: Version(version) for name, version in message.initial_resource_versions.items()},
        message.response_nonce,
        message.error_detail.message if message.HasField("error_detail") else None,
    )
