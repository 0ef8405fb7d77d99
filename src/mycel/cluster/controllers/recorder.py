"""Events for people: notes of the controllers become v1 Events, repeated ones a higher count on the same
Event.

Best effort: a full queue or a refused Event never holds a controller up.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import secrets
import time

from mycel.cluster.controllers.objects import format_time
from mycel.cluster.controllers.writes import Note
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.resources import EVENTS

log = logging.getLogger(__name__)

_WAITING = 2000
_REMEMBERED = 2048


class Recorder:
    """Takes notes at any rate and writes them one after the other."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._queue: asyncio.Queue[Note] = asyncio.Queue(_WAITING)
        self._known: collections.OrderedDict[Note, tuple[str, int]] = collections.OrderedDict()

    def record(self, note: Note) -> None:
        """Have the note written some time soon."""
        try:
            self._queue.put_nowait(note)
        except asyncio.QueueFull:
            log.debug("event dropped, %d are waiting: %s", _WAITING, note.message)

    async def run(self) -> None:
        """Write notes until cancelled."""
        while True:
            note = await self._queue.get()
            try:
                await self._write(note)
            except ApiError as exc:
                log.debug("event %s about %s/%s not written: %s", note.reason, note.namespace, note.name, exc)

    async def _write(self, note: Note) -> None:
        now = format_time(time.time())
        space = note.namespace or "default"
        known = self._known.pop(note, None)
        if known is not None:
            name, count = known[0], known[1] + 1
            try:
                await self._client.patch(EVENTS, name, {"count": count, "lastTimestamp": now}, namespace=space)
            except NotFound:
                known = None
            else:
                self._known[note] = (name, count)
        if known is None:
            name = f"{note.name}.{secrets.token_hex(8)}"
            await self._client.create(EVENTS, self._body(note, name, space, now))
            self._known[note] = (name, 1)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _body(self, note: Note, name: str, space: str, now: str) -> dict[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": space},
            "involvedObject": {
                "apiVersion": note.resource.api_version,
                "kind": note.resource.kind,
                "namespace": note.namespace or None,
                "name": note.name,
                "uid": note.uid,
            },
            "reason": note.reason,
            "message": note.message,
            "type": "Warning" if note.warning else "Normal",
            "source": {"component": note.component},
            "reportingComponent": note.component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
