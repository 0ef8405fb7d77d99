"""The Secrets that objects name, asked for one by one: an agent may not list them.

Each is asked for when it is first named, and again every half minute, so that a renewed certificate is used.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Iterable
from typing import Any

from mycel.envoy.config.secrets import Data
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.resources import SECRETS

log = logging.getLogger(__name__)
_EVERY_S = 30.0
Place = tuple[str, str]


class Secrets:
    """Content by (namespace, name): None where there is no such Secret; absent while nobody knows yet."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._wanted: frozenset[Place] = frozenset()
        self._wake = asyncio.Event()
        self.found: dict[Place, Data | None] = {}
        self.changed: Callable[[], None] = lambda: None

    def want(self, places: Iterable[Place]) -> None:
        """Say which are named. What is named no more is forgotten."""
        wanted = frozenset(places)
        if wanted != self._wanted:
            self._wanted = wanted
            self.found = {place: data for place, data in self.found.items() if place in wanted}
            self._wake.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            self._wake.clear()
            for place in sorted(self._wanted):
                await self._ask(place)
            try:
                async with asyncio.timeout(_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _ask(self, place: Place) -> None:
        namespace, name = place
        try:
            data = _decode(await self._client.get(SECRETS, name, namespace=namespace))
        except NotFound:
            data = None
        except ApiError as exc:
            log.info("Secret %s/%s cannot be read: %s", namespace, name, exc)
            return  # what is known of it holds
        if place in self._wanted and (place not in self.found or self.found[place] != data):
            self.found[place] = data
            self.changed()


def _decode(item: dict[str, Any]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for key, text in (item.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(text or "", validate=True)
        except binascii.Error:
            continue
    return found
