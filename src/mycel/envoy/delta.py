"""One client's delta-ADS stream as a state machine: requests and snapshots go in, responses and outcomes come out.

No I/O. The rules are those of the xDS protocol document ("Incremental xDS" and what it refers to), named by heading
where they are applied. Ours beyond it:

- at most one response of a type is unanswered, so an answer is always about a known set of resources;
- a type waits until what it points at was answered (make before break; clusters, endpoints and secrets go together),
  and removals wait for every update;
- a cluster that is sent has its endpoints sent after it: a changed one begins without, and asks for none that it has
  asked for before (each assignment is named as its cluster);
- a response that is refused is taken apart: its resources are sent again one by one, so that a refusal names one
  resource. What was refused is not sent again until its content changes, and the client keeps what it had;
- secrets are sent one by one from the begin: Envoy refuses one that is broken when it comes first, and says nothing of
  it when the same comes again (it compares with what came last).

Whoever drives a stream bounds the wait for an answer (`unanswered`) and closes the stream when it is over: the next
stream begins with what the client says it has, so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mycel.envoy.resources import (
    BREAK_ORDER,
    CLUSTER,
    ENDPOINTS,
    MAKE_ORDER,
    SECRET,
    TOGETHER,
    WILDCARD_TYPES,
    Resource,
    Snapshot,
    TypeUrl,
    Version,
)

WILDCARD = "*"


class Request(NamedTuple):
    """A DeltaDiscoveryRequest. `error` is error_detail's message, None where the field is not set."""

    type_url: TypeUrl
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, Version] = {}
    nonce: str = ""
    error: str | None = None


class Response(NamedTuple):
    """A DeltaDiscoveryResponse."""

    type_url: TypeUrl
    nonce: str
    resources: Mapping[str, Resource]
    removed: tuple[str, ...]


class Outcome(NamedTuple):
    """What the client said of one resource: `error` is its words, None when it accepted; a removal has no version."""

    type_url: TypeUrl
    name: str
    version: Version | None
    error: str | None


@dataclass
class _Type:
    """What one type's subscription has come to."""

    wildcard: bool = False
    names: set[str] = field(default_factory=lambda: set[str]())
    held: dict[str, Version] = field(default_factory=lambda: dict[str, Version]())
    refused: dict[str, Version] = field(default_factory=lambda: dict[str, Version]())
    alone: set[str] = field(default_factory=lambda: set[str]())  # sent one by one since a refusal
    asked: set[str] = field(default_factory=lambda: set[str]())  # to be answered even if nothing changed
    in_flight: Response | None = None

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names


class Stream:
    """The server's side of one stream: `offer` what should be, `receive` what came, send what is `due` after either."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self._snapshot: Snapshot = snapshot or {}
        self._types: dict[TypeUrl, _Type] = {}
        self._sent = 0
        self._bare: set[str] = set()  # clusters sent whose endpoints have not been sent since

    @property
    def unanswered(self) -> tuple[TypeUrl, ...]:
        """Types with a response the client has not answered yet."""
        return tuple(url for url, state in self._types.items() if state.in_flight)

    @property
    def settled(self) -> bool:
        """Whether the client has answered for everything it subscribed to: it holds or has refused each resource."""
        return not any(
            state.in_flight or self._updates(url, state) or self._removals(url, state)
            for url, state in self._types.items()
        )

    def offer(self, snapshot: Snapshot) -> None:
        """Make `snapshot` what the client is brought to. A type that is missing counts as empty."""
        self._snapshot = snapshot

    def receive(self, request: Request) -> list[Outcome]:
        """Take a request in: an answer, a change of subscriptions, or both. Returns what it says of resources."""
        state = self._types.get(request.type_url)
        first = state is None
        if state is None:
            state = self._types[request.type_url] = _Type()
            # "Incremental xDS", initial_resource_versions: only in a stream's first request of a type.
            state.held.update(request.initial_versions)
        outcomes: list[Outcome] = []
        if request.nonce and state.in_flight and request.nonce == state.in_flight.nonce:
            outcomes = self._answered(state, request.error)
        # Subscriptions count whatever the nonce: a request may be an answer and a change at once, or only a change.
        if first and not request.subscribe and request.type_url in WILDCARD_TYPES:
            state.wildcard = True
        for name in request.subscribe:
            if name == WILDCARD:
                state.wildcard = True
                continue
            state.names.add(name)
            # "resource_names_subscribe": what is asked for is provided even if the client has it already,
            # except for what it has just declared.
            if not first or name not in request.initial_versions:
                state.asked.add(name)
                state.refused.pop(name, None)
        for name in request.unsubscribe:
            if name == WILDCARD:
                state.wildcard = False
            elif state.wildcard and name in state.names:
                state.asked.add(name)  # "Unsubscribing from resources": it may still be wanted, so say what it is
            state.names.discard(name)
        for name in [name for name in state.held if not state.wants(name)]:
            del state.held[name]  # a client forgets what it gave up
        state.asked = {name for name in state.asked if state.wants(name)}
        return outcomes

    def due(self) -> list[Response]:
        """The responses to send now. Each call returns every response once."""
        responses: list[Response] = []
        busy = False
        for url in (*MAKE_ORDER, *(url for url in self._types if url not in MAKE_ORDER)):
            state = self._types.get(url)
            if state is None:
                continue
            waits = state.in_flight or (busy and url not in TOGETHER)
            updates = {} if waits else self._updates(url, state)
            if updates:
                responses.append(self._respond(url, state, _part(url, state, updates), ()))
            elif not state.in_flight:
                # "Knowing when a requested resource does not exist": absence is an answer, and nobody need wait for it.
                absent = tuple(sorted(state.asked - self._snapshot.get(url, {}).keys()))
                if absent:
                    responses.append(self._respond(url, state, {}, absent))
            busy = busy or state.in_flight is not None
        if busy:
            return responses
        for url in BREAK_ORDER:
            state = self._types.get(url)
            removals = self._removals(url, state) if state else ()
            if state and removals:
                return [self._respond(url, state, {}, removals)]
        return responses

    def _updates(self, url: TypeUrl, state: _Type) -> dict[str, Resource]:
        asked = state.asked | self._bare if url == ENDPOINTS else state.asked
        return {
            name: resource
            for name, resource in self._snapshot.get(url, {}).items()
            if state.wants(name)
            and state.refused.get(name) != resource.version
            and (name in asked or state.held.get(name) != resource.version)
        }

    def _removals(self, url: TypeUrl, state: _Type) -> tuple[str, ...]:
        return tuple(sorted(state.held.keys() - self._snapshot.get(url, {}).keys()))

    def _respond(
        self, url: TypeUrl, state: _Type, resources: Mapping[str, Resource], removed: tuple[str, ...]
    ) -> Response:
        self._sent += 1
        state.in_flight = Response(url, str(self._sent), resources, removed)
        state.asked -= resources.keys()
        state.asked -= set(removed)
        if url == CLUSTER:
            self._bare |= resources.keys()
        elif url == ENDPOINTS:
            self._bare -= resources.keys()
        return state.in_flight

    def _answered(self, state: _Type, error: str | None) -> list[Outcome]:
        response = state.in_flight
        if response is None:
            return []
        state.in_flight = None
        url, resources = response.type_url, response.resources
        if error is None:
            for name, resource in resources.items():
                if state.wants(name):
                    state.held[name] = resource.version
                state.refused.pop(name, None)
                state.alone.discard(name)
            for name in response.removed:
                state.held.pop(name, None)
                state.refused.pop(name, None)
            accepted = [Outcome(url, name, resource.version, None) for name, resource in resources.items()]
            return accepted + [Outcome(url, name, None, None) for name in response.removed]
        if len(resources) > 1:
            state.alone.update(resources)
            state.asked.update(resources)  # the client may have taken some of them: ask about each
            return []
        for name, resource in resources.items():
            state.refused[name] = resource.version
            state.alone.discard(name)
        for name in response.removed:
            state.held.pop(name, None)  # nothing we can do about a removal that failed but not repeat it for ever
        refused = [Outcome(url, name, resource.version, error) for name, resource in resources.items()]
        return refused + [Outcome(url, name, None, error) for name in response.removed]


def _part(url: TypeUrl, state: _Type, updates: dict[str, Resource]) -> dict[str, Resource]:
    """What goes into the next response: everything that is not sent alone, else one of those."""
    together = {name: resource for name, resource in updates.items() if name not in state.alone}
    if together and url != SECRET:
        return together
    name = min(updates)
    return {name: updates[name]}
