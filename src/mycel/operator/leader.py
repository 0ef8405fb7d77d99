"""Leader election on a Lease, as client-go does it: whoever holds and renews it works, the others wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mycel.k8s.client import ApiClient
from mycel.k8s.errors import AlreadyExists, ApiError, Conflict, NotFound
from mycel.k8s.lease import holding_spec, parse_lease
from mycel.k8s.resources import LEASES

log = logging.getLogger(__name__)


class Leader:
    """Runs `work` while it holds the Lease."""

    def __init__(
        self,
        client: ApiClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        lease_s: float = 15.0,
        renew_s: float = 5.0,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._seen: tuple[str, str] = ("", "")
        self._seen_at_s = 0.0
        self._holds = False
        self.leading = False

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, then work until it is lost (then wait again).

        `work` is cancelled at once then.
        """
        while True:
            await self._acquire()
            log.info("leading as %s", self._identity)
            self.leading = self._holds = True
            try:
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(self._work(work))
                    await self._renew()
                    task.cancel()
            finally:
                self.leading = False
            self._holds = False
            log.info("the lease %s was lost to another", self._name)

    async def release(self) -> None:
        """Let the next one in at once: on the way out, after `run` was cancelled."""
        if not self._holds:
            return
        self._holds = False
        try:
            lease = await self._client.get(LEASES, self._name, namespace=self._namespace)
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                await self._client.replace(LEASES, lease)
        except ApiError as exc:
            log.info("the lease is left to run out: %s", exc)

    async def _work(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            pass

    async def _acquire(self) -> None:
        while not await self._try():  # noqa: ASYNC110 (the Lease is on another machine)
            await asyncio.sleep(self._renew_s / 2)

    async def _renew(self) -> None:
        """Until the lease is lost."""
        renewed_at_s = time.monotonic()
        while True:
            await asyncio.sleep(self._renew_s)
            if await self._try():
                renewed_at_s = time.monotonic()
            elif time.monotonic() - renewed_at_s > self._lease_s * 2 / 3:
                return

    async def _try(self) -> bool:
        """Take or renew the lease; False when another holds it or the API server is away."""
        try:
            current = await self._client.get(LEASES, self._name, namespace=self._namespace)
            lease = parse_lease(current)
            record = (lease.holder, lease.renewed)
            if record != self._seen:
                self._seen, self._seen_at_s = record, time.monotonic()
            held = lease.holder not in ("", self._identity)
            if held and time.monotonic() - self._seen_at_s < self._lease_s:
                return False
            spec = (current.get("spec") or {}) | holding_spec(lease, self._identity, self._lease_s)
            await self._client.replace(LEASES, current | {"spec": spec})
        except NotFound:
            return await self._create(holding_spec(None, self._identity, self._lease_s))
        except Conflict:
            return False
        except ApiError as exc:
            log.info("lease %s: %s", self._name, exc)
            return False
        return True

    async def _create(self, spec: dict[str, Any]) -> bool:
        body = {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": spec}
        try:
            await self._client.create(LEASES, body)
        except AlreadyExists:
            return False
        except ApiError as exc:
            log.info("lease %s: %s", self._name, exc)
            return False
        return True
