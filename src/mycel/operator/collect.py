"""The collecting loop: every interval, ask `garbage` what is due and delete it, each under its uid or
version.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mycel.k8s import parse
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, Conflict, NotFound
from mycel.k8s.informer import Informer
from mycel.k8s.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES, CILIUM_NODES, NODES, PODS
from mycel.model.workload import Identity, IdentityId, PodRef
from mycel.operator.garbage import Ageing, departed_nodes, orphans, unused_identities

log = logging.getLogger(__name__)
_ORPHAN_GRACE_S = 60.0


@dataclass
class Collected:
    """Counters for metrics."""

    identities: int = 0
    endpoints: int = 0
    nodes: int = 0
    errors: int = 0


class Collector:
    """Deletes what is due, for as long as it leads."""

    def __init__(self, client: ApiClient, *, interval_s: float, identity_grace_s: float) -> None:
        self._client = client
        self._interval_s = interval_s
        self._identities = Ageing(identity_grace_s)
        self._endpoints = Ageing(_ORPHAN_GRACE_S)
        self._nodes = Ageing(_ORPHAN_GRACE_S)
        self.collected = Collected()

    async def run(self) -> None:
        """Until cancelled."""
        pods = Informer(self._client, PODS, parse.PODS_CODEC)
        nodes = Informer(self._client, NODES, parse.NODES_CODEC)
        identities = Informer(self._client, CILIUM_IDENTITIES, parse.IDENTITIES_CODEC)
        endpoints = Informer(self._client, CILIUM_ENDPOINTS, parse.ENDPOINTS_CODEC)
        published = Informer(self._client, CILIUM_NODES, parse.PUBLISHED_NODES_CODEC)
        informers = (pods, nodes, identities, endpoints, published)
        async with asyncio.TaskGroup() as group:
            for informer in informers:
                group.create_task(informer.run(), name=f"informer {informer.resource}")
            await asyncio.gather(*(informer.wait_synced() for informer in informers))
            while True:
                if all(informer.connected for informer in informers):  # never on stale knowledge
                    now_s = time.monotonic()
                    known = unused_identities(identities.store.values(), endpoints.store.values())
                    for number in self._identities.due(known, now_s):
                        assert isinstance(number, int)
                        await self._delete_identity(known[IdentityId(number)])
                    alive = {pod.ref: not pod.finished for pod in pods.store.values()}
                    for ref in self._endpoints.due(orphans(endpoints.store.values(), alive), now_s):
                        assert isinstance(ref, PodRef)
                        await self._delete_endpoint(ref)
                    gone = departed_nodes(
                        (node.name for node in published.store.values()), (node.name for node in nodes.store.values())
                    )
                    for name in self._nodes.due(gone, now_s):
                        assert isinstance(name, str)
                        await self._delete_node(name)
                await asyncio.sleep(self._interval_s)

    async def _delete_identity(self, identity: Identity) -> None:
        if await self._delete(
            f"identity {identity.id}",
            lambda: self._client.delete(CILIUM_IDENTITIES, str(identity.id), uid=identity.uid or None),
        ):
            self.collected.identities += 1

    async def _delete_endpoint(self, ref: PodRef) -> None:
        if await self._delete(
            f"endpoint {ref}",
            lambda: self._client.delete(CILIUM_ENDPOINTS, ref.name, namespace=ref.namespace),
        ):
            self.collected.endpoints += 1

    async def _delete_node(self, name: str) -> None:
        if await self._delete(f"node {name}", lambda: self._client.delete(CILIUM_NODES, name)):
            self.collected.nodes += 1

    async def _delete(self, what: str, call: Callable[[], Awaitable[None]]) -> bool:
        try:
            await call()
        except (NotFound, Conflict):
            return False
        except ApiError as exc:
            self.collected.errors += 1
            log.info("%s is not collected yet: %s", what, exc)
            return False
        log.info("%s is collected: nobody uses it", what)
        return True
