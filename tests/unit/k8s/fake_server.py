"""A small Kubernetes API for one kind, with the misbehaviour informers must survive, on a real socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Object = dict[str, Any]


class FakeApi:
    """Pods under /api/v1/pods: list in pages, watch, and hooks to break things."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.version = 0
        self.oldest = 0
        self.history: list[tuple[int, str, Object]] = []
        self.watchers: set[asyncio.Queue[bytes | None]] = set()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.page = 500
        self.fail_next: list[int] = []
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self.server = TestServer(app)

    def put(self, name: str, namespace: str = "default", **spec: Any) -> None:
        """Create or change a pod and tell the watchers."""
        self.version += 1
        kind = "MODIFIED" if (namespace, name) in self.objects else "ADDED"
        metadata = {"name": name, "namespace": namespace, "resourceVersion": str(self.version)}
        obj = {"metadata": metadata, "spec": spec}
        self.objects[namespace, name] = obj
        self._emit(kind, obj)

    def remove(self, name: str, namespace: str = "default", *, silently: bool = False) -> None:
        """Delete a pod; `silently` as if the watchers missed it."""
        self.version += 1
        obj = self.objects.pop((namespace, name))
        obj["metadata"]["resourceVersion"] = str(self.version)
        if not silently:
            self._emit("DELETED", obj)

    def bookmark(self) -> None:
        """Advance the version without a change."""
        self.version += 1
        self._emit("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def send(self, line: bytes) -> None:
        """Any bytes to every watcher."""
        for watcher in self.watchers:
            watcher.put_nowait(line)

    def hang_up(self) -> None:
        """End every watch."""
        for watcher in self.watchers:
            watcher.put_nowait(None)

    def compact(self) -> None:
        """Forget the past: watches from before now get 410."""
        self.version += 1
        self.oldest = self.version
        self.history.clear()

    def watches(self) -> list[dict[str, str]]:
        """The query parameters of the watches so far."""
        return [query for _, _, query in self.requests if query.get("watch")]

    def lists(self) -> list[dict[str, str]]:
        """The query parameters of the list requests so far."""
        return [query for method, _, query in self.requests if method == "GET" and not query.get("watch")]

    def _emit(self, kind: str, obj: Object) -> None:
        self.history.append((self.version, kind, json.loads(json.dumps(obj))))
        self.send(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path, dict(request.query)))
        if self.fail_next:
            status = self.fail_next.pop(0)
            return web.json_response({"kind": "Status", "code": status, "message": "broken"}, status=status)
        if request.query.get("watch"):
            return await self._watch(request)
        names = sorted(self.objects)
        start = int(request.query.get("continue", "0"))
        page = names[start : start + self.page]
        metadata: Object = {"resourceVersion": str(self.version)}
        if start + self.page < len(names):
            metadata["continue"] = str(start + self.page)
        return web.json_response({"metadata": metadata, "items": [self.objects[name] for name in page]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        if since < self.oldest:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for version, kind, obj in self.history:
            if version > since:
                queue.put_nowait(json.dumps({"type": kind, "object": obj}).encode() + b"\n")
        self.watchers.add(queue)
        try:
            while (line := await queue.get()) is not None:
                await response.write(line)
        finally:
            self.watchers.discard(queue)
        return response
