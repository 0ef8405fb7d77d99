"""Events of pods (`kubectl describe`, `kubectl get events`): queued, sent by one task, repeated ones counted on
the same object.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass

from mycel.cluster.node import clock
from mycel.cluster.node.names import Object
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.resources import EVENTS

log = logging.getLogger(__name__)
_REMEMBERED = 2000
_WAITING = 1000


@dataclass(slots=True)
class _Sent:
    name: str
    count: int


class Recorder:
    """`normal(pod, reason, message)` and `warning(…)` return at once; `run()` sends. A full queue drops the newest."""

    def __init__(self, client: ApiClient, *, node: str) -> None:
        self._client = client
        self._node = node
        self._queue: asyncio.Queue[tuple[str, Object, str, str, str]] = asyncio.Queue(_WAITING)
        self._sent: dict[tuple[str, str, str, str], _Sent] = {}

    def normal(self, pod: Object, reason: str, message: str, *, container: str = "") -> None:
        """Something happened as it should."""
        self._put("Normal", pod, reason, message, container)

    def warning(self, pod: Object, reason: str, message: str, *, container: str = "") -> None:
        """Something went wrong."""
        self._put("Warning", pod, reason, message, container)

    def _put(self, kind: str, pod: Object, reason: str, message: str, container: str) -> None:
        try:
            self._queue.put_nowait((kind, pod, reason, message[:1024], container))
        except asyncio.QueueFull:
            log.warning("too many events are waiting: %s of %s is dropped", reason, pod["metadata"]["name"])

    async def run(self) -> None:
        """Send what is queued until cancelled; what the API server refuses is dropped."""
        while True:
            kind, pod, reason, message, container = await self._queue.get()
            try:
                await self._send(kind, pod, reason, message, container)
            except ApiError as exc:
                log.info("event %s of %s is lost: %s", reason, pod["metadata"]["name"], exc)

    async def _send(self, kind: str, pod: Object, reason: str, message: str, container: str) -> None:
        metadata = pod["metadata"]
        key = (metadata["uid"], reason, message, container)
        now = clock.stamp(clock.now())
        sent = self._sent.get(key)
        if sent is not None:
            sent.count += 1
            try:
                await self._client.patch(
                    EVENTS,
                    sent.name,
                    {"count": sent.count, "lastTimestamp": now},
                    namespace=metadata["namespace"],
                )
                return
            except NotFound:
                del self._sent[key]
        name = f"{metadata['name']}.{uuid.uuid4().hex[:16]}"
        involved: Object = {
            "apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        }  # fmt: skip
        if container:
            involved["fieldPath"] = f"spec.containers{{{container}}}"
        await self._client.create(
            EVENTS,
            {
                "metadata": {"name": name, "namespace": metadata["namespace"]},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "type": kind,
                "source": {"component": "kubelet", "host": self._node},
                "reportingComponent": "kubelet",
                "reportingInstance": self._node,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            },
        )
        if len(self._sent) >= _REMEMBERED:
            self._sent.pop(next(iter(self._sent)))
        self._sent[key] = _Sent(name, 1)
