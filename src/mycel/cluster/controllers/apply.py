"""Perform what controllers decided: requests to the API server, whose answers go straight back into the
caches.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterable, Sequence

import msgspec

from mycel.cluster.controllers.objects import Obj, Uid, controller_ref, name, uid
from mycel.cluster.controllers.recorder import Recorder
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, Note, Verb, Write
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, Conflict, NotFound
from mycel.k8s.resources import PODS, Resource

log = logging.getLogger(__name__)

_CONTENT_TYPE = {Verb.PATCH: "application/merge-patch+json"}
_METHOD = {Verb.CREATE: "POST", Verb.POST: "POST", Verb.PATCH: "PATCH", Verb.DELETE: "DELETE"}


class Applier:
    """Shared by all controllers; bounds how many requests are under way at once."""

    def __init__(self, client: ApiClient, world: World, recorder: Recorder, *, parallel: int = 24) -> None:
        self._client = client
        self._world = world
        self._recorder = recorder
        self._slots = asyncio.Semaphore(parallel)

    async def apply(self, decision: Decision) -> None:
        """Writes in order; neighbours of the same verb and kind side by side. Raises the first ApiError."""
        for note in decision.notes:
            self._recorder.record(note)
        for _, batch in itertools.groupby(decision.writes, key=lambda one: (one.verb, one.resource)):
            await self._apply_batch(list(batch))

    async def _apply_batch(self, batch: Sequence[Write]) -> None:
        if len(batch) == 1:
            await self.write(batch[0])
            return
        outcomes = await asyncio.gather(*(self.write(one) for one in batch), return_exceptions=True)
        _raise_first(outcomes)

    async def write(self, write: Write) -> Obj | None:
        """One request. An object that is gone already is no error; the caches learn of it."""
        subresource = write.subresource
        named = write.verb is not Verb.CREATE
        path = write.resource.path(write.namespace, write.name if named else None, subresource=subresource)
        try:
            async with self._slots:
                answer = await self._client.request(
                    _METHOD[write.verb],
                    path,
                    body=write.body,
                    content_type=_CONTENT_TYPE.get(write.verb, "application/json"),
                )
        except NotFound:
            if write.verb is Verb.CREATE:
                raise
            self._world.forget(write.resource, (write.namespace, write.name), None)
            return None
        except Conflict:
            if write.verb is not Verb.DELETE:
                raise
            # Another object took the name since we looked: the one we meant is gone.
            gone = write.body.get("preconditions", {}).get("uid")
            self._world.forget(write.resource, (write.namespace, write.name), gone)
            return None
        except ApiError as exc:
            self._tell_owner(write, "FailedCreate", f"Error creating: {exc}", warning=True)
            raise
        return self._take_in(write, answer)

    def _take_in(self, write: Write, answer: bytes) -> Obj | None:
        obj: Obj = msgspec.json.decode(answer)
        if obj.get("kind") == "Status":
            if write.verb is Verb.DELETE:
                gone = write.body.get("preconditions", {}).get("uid")
                self._world.forget(write.resource, (write.namespace, write.name), gone)
            return None
        if write.verb is Verb.DELETE and not obj.get("metadata", {}).get("deletionTimestamp"):
            self._world.forget(write.resource, (write.namespace, write.name), uid(obj))
        elif obj.get("kind") == write.resource.kind:
            self._world.observe(write.resource, obj)
        if write.verb is Verb.CREATE:
            self._tell_owner(write, "SuccessfulCreate", f"Created pod: {name(obj)}")
        return obj

    def _tell_owner(self, write: Write, reason: str, message: str, *, warning: bool = False) -> None:
        """An Event for the manager of a pod that was, or could not be, created."""
        ref = controller_ref(write.body) if write.resource is PODS else None
        if write.verb is not Verb.CREATE or ref is None:
            return
        group, _, version = ref["apiVersion"].rpartition("/")
        owner = Resource(group, version, "", ref["kind"])
        self._recorder.record(Note(owner, write.namespace, ref["name"], Uid(ref["uid"]), reason, message, warning))


def _raise_first(outcomes: Iterable[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
