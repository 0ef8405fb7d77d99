"""Secrets, asked for one by one: when, and what is told."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, cast

from mycel.agent.secrets import Secrets
from mycel.k8s.errors import Forbidden, NotFound
from tests.virtual_time import run


class Server:
    """Some Secrets, and what was asked for."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], bytes | Exception] = {}
        self.asked: list[str] = []

    async def get(self, _resource: object, name: str, *, namespace: str) -> dict[str, Any]:
        self.asked.append(name)
        found = self.held.get((namespace, name), NotFound(404, "NotFound", "no"))
        if isinstance(found, Exception):
            raise found
        return {"data": {"value": base64.b64encode(found).decode()}}


def test_what_is_not_there_is_asked_for_sooner_and_what_changes_is_told() -> None:
    async def story() -> None:
        server, told = Server(), 0
        secrets = Secrets(cast("Any", server))

        def tell() -> None:
            nonlocal told
            told += 1

        secrets.changed = tell
        task = asyncio.create_task(secrets.run())
        secrets.want([("shop", "a"), ("shop", "b")])
        server.held["shop", "a"] = b"1"
        await asyncio.sleep(0.1)
        assert secrets.found == {("shop", "a"): {"value": b"1"}, ("shop", "b"): None} and told == 2
        server.held["shop", "b"] = b"2"
        await asyncio.sleep(1)
        assert secrets.found["shop", "b"] == {"value": b"2"} and told == 3
        server.held["shop", "a"] = b"3"
        await asyncio.sleep(31)
        assert secrets.found["shop", "a"] == {"value": b"3"} and told == 4
        server.held["shop", "a"] = Forbidden(403, "Forbidden", "no")
        await asyncio.sleep(31)
        assert secrets.found["shop", "a"] == {"value": b"3"} and told == 4  # what is known holds
        secrets.want([("shop", "b")])
        assert secrets.found.keys() == {("shop", "b")}
        server.asked.clear()
        await asyncio.sleep(61)
        assert server.asked == ["b", "b"]
        task.cancel()

    run(story())
