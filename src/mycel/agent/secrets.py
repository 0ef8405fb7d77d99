"""The Secrets that objects name, asked for one by one: an agent may not list them.

Each is asked for when it is first named, and again every half minute, so that a renewed certificate is used; one that
is not there sooner at first.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Iterable
from typing import Any

from mycel.envoy.secrets import Data
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.resources import SECRETS
from mycel.kit.workqueue import WorkQueue

log = logging.getLogger(__name__)
_EVERY_S = 30.0
_FIRST_RETRY_S = 0.5
Place = tuple[str, str]


class Secrets:
    """Content by (namespace, name): None where there is no such Secret; absent while nobody knows yet."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._wanted: frozenset[Place] = frozenset()
        self._queue: WorkQueue[Place] = WorkQueue(first_retry_s=_FIRST_RETRY_S, longest_retry_s=_EVERY_S)
        self.found: dict[Place, Data | None] = {}
        self.changed: Callable[[], None] = lambda: None

    def want(self, places: Iterable[Place]) -> None:
        """Say which are named. What is named no more is forgotten."""
        wanted, before = frozenset(places), self._wanted
        self._wanted = wanted
        self.found = {place: data for place, data in self.found.items() if place in wanted}
        for place in sorted(wanted - before):
            self._queue.add(place)

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            place = await self._queue.get()
            if place in self._wanted:
                if await self._ask(place):
                    self._queue.forget(place)
                    self._queue.add_after(place, _EVERY_S)
                else:
                    self._queue.retry(place)
            else:
                self._queue.forget(place)
            self._queue.done(place)

    async def _ask(self, place: Place) -> bool:
        """Whether it is there."""
        namespace, name = place
        try:
            data = _decode(await self._client.get(SECRETS, name, namespace=namespace))
        except NotFound:
            data = None
        except ApiError as exc:
            log.info("Secret %s/%s cannot be read: %s", namespace, name, exc)
            return False  # what is known of it holds
        if place in self._wanted and (place not in self.found or self.found[place] != data):
            self.found[place] = data
            self.changed()
        return data is not None


def _decode(item: dict[str, Any]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for key, text in (item.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(text or "", validate=True)
        except binascii.Error:
            continue
    return found
