"""Endpoints follow their labels: when a pod's or a namespace's labels change, or an identity is taken away."""

from __future__ import annotations

import asyncio
import logging

from mycel.agent.endpoints import Endpoints
from mycel.agent.identities import Identities
from mycel.agent.pods import PodFacts
from mycel.agent.watches import Watches
from mycel.k8s.errors import ApiError
from mycel.k8s.informer import Key
from mycel.kit.workqueue import WorkQueue
from mycel.model.workload import EndpointId, IdentityId, Namespace, Workload

log = logging.getLogger(__name__)


class Relabeller:
    """Keeps every endpoint's identity that of its labels."""

    def __init__(self, watches: Watches, endpoints: Endpoints, *, identities: Identities, facts: PodFacts) -> None:
        self._watches = watches
        self._endpoints = endpoints
        self._identities = identities
        self._facts = facts
        self._queue: WorkQueue[EndpointId] = WorkQueue()
        watches.pods.subscribe(self._pod_changed)
        watches.namespaces.subscribe(self._namespace_changed)
        identities.watch_use(self._labels_of)

    async def run(self) -> None:
        """Work until cancelled; every endpoint is looked at once, after a start."""
        for endpoint_id in self._endpoints.all():
            self._queue.add(endpoint_id)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work())
            group.create_task(self._recover())

    async def _work(self) -> None:
        while True:
            endpoint_id = await self._queue.get()
            try:
                await self._check(endpoint_id)
                self._queue.forget(endpoint_id)
            except ApiError as exc:
                log.info("endpoint %d keeps its identity for now: %s", endpoint_id, exc)
                self._queue.retry(endpoint_id)
            finally:
                self._queue.done(endpoint_id)

    async def _check(self, endpoint_id: EndpointId) -> None:
        endpoint = self._endpoints.all().get(endpoint_id)
        if endpoint is None:
            return
        pod = self._watches.pods.get(endpoint.ref.name, endpoint.ref.namespace)
        if pod is None or (endpoint.uid and pod.uid != endpoint.uid):
            return  # gone, or not there yet: what is enforced stays
        labels = self._facts.identity_labels(pod)
        if labels is None:
            return
        known = self._identities.known(labels)
        if labels == endpoint.labels and endpoint.identity and known == endpoint.identity:
            return
        if labels == endpoint.labels and endpoint.identity and known is None:
            number = await self._identities.restore(endpoint.identity, labels)
        else:
            number = await self._identities.resolve(labels)
        self._endpoints.set_identity(endpoint_id, number, labels)

    async def _recover(self) -> None:
        while True:
            number = await self._identities.lost.get()
            for endpoint in self._endpoints.all().values():
                if endpoint.identity == number:
                    self._queue.add(endpoint.endpoint_id)

    def _labels_of(self, number: IdentityId) -> tuple[str, ...] | None:
        for endpoint in self._endpoints.all().values():
            if endpoint.identity == number:
                return endpoint.labels
        return None

    def _pod_changed(self, key: Key, old: Workload | None, new: Workload | None) -> None:
        if new is None or (old is not None and old.labels == new.labels and old.uid == new.uid):
            return
        for endpoint in self._endpoints.all().values():
            if endpoint.ref == new.ref:
                self._queue.add(endpoint.endpoint_id)

    def _namespace_changed(self, key: Key, old: Namespace | None, new: Namespace | None) -> None:
        if new is None or old == new:
            return
        for endpoint in self._endpoints.all().values():
            if endpoint.ref.namespace == key.name:
                self._queue.add(endpoint.endpoint_id)
