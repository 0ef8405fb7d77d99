"""Tells `flow.owners` which pod has which address: this node's when they are made and removed, others' as published."""

from __future__ import annotations

import time
from typing import Any

from mycel.agent.endpoints import Endpoints
from mycel.agent.watches import Watches
from mycel.flow.owners import Owners
from mycel.flow.records import Endpoint
from mycel.flow.records import Workload as Controller
from mycel.model.address import Address, parse_address
from mycel.model.workload import LocalEndpoint, PodRef, PublishedEndpoint, Workload

_POD_HASH = "pod-template-hash"
_Records = dict[Address, Endpoint]


class PodOwners(Owners):
    """Owners over the agent's stores.

    Who is there at the start counts as always there: without an agent no address of this node changes hands. Others'
    count from when their node has told, so that their very first packets may have an identity and no name.
    """

    def __init__(self, watches: Watches, endpoints: Endpoints, *, here: str, cluster: str) -> None:
        """`here`: the underlay address of this node, whose pods it knows better than anybody tells it."""
        super().__init__()
        self._watches = watches
        self._endpoints = endpoints
        self._here = here
        self._cluster = cluster
        for endpoint in endpoints.all().values():
            self._local_changed(None, endpoint, at_ns=0)
        for published in watches.endpoints.store.values():
            self._published_changed(None, published, at_ns=0)
        endpoints.subscribe(lambda old, new: self._local_changed(old, new, at_ns=time.monotonic_ns()))
        watches.endpoints.subscribe(lambda _key, old, new: self._published_changed(old, new, at_ns=self._told_ns()))
        watches.pods.subscribe(self._pod_changed)

    def _told_ns(self) -> int:
        return time.monotonic_ns() if self._watches.endpoints.synced else 0

    def _local_changed(self, old: LocalEndpoint | None, new: LocalEndpoint | None, *, at_ns: int) -> None:
        self._changed(self._local(old), self._local(new), at_ns=at_ns)

    def _published_changed(self, old: PublishedEndpoint | None, new: PublishedEndpoint | None, *, at_ns: int) -> None:
        self._changed(self._published(old), self._published(new), at_ns=at_ns)

    def _changed(self, before: _Records, now: _Records, *, at_ns: int) -> None:
        for address in before.keys() - now.keys():
            self.leave(address, before[address], at_ns=at_ns)
        for address, record in now.items():
            self.take(address, record, at_ns=at_ns)

    def _pod_changed(self, _key: Any, _old: Any, new: Workload | None) -> None:
        """Who made a pod may be told after it was wired."""
        endpoint = self._endpoints.of_pod(new.ref) if new is not None else None
        if endpoint is not None:
            self._local_changed(endpoint, endpoint, at_ns=time.monotonic_ns())

    def _published(self, endpoint: PublishedEndpoint | None) -> _Records:
        if endpoint is None or endpoint.node_address == self._here:
            return {}
        record = Endpoint(
            identity=endpoint.identity,
            namespace=endpoint.ref.namespace,
            pod_name=endpoint.ref.name,
            labels=endpoint.labels,
            cluster_name=self._cluster,
        )
        return dict.fromkeys(map(parse_address, endpoint.addresses), record)

    def _local(self, endpoint: LocalEndpoint | None) -> _Records:
        if endpoint is None:
            return {}
        record = Endpoint(
            identity=endpoint.identity,
            endpoint_id=endpoint.endpoint_id,
            namespace=endpoint.ref.namespace,
            pod_name=endpoint.ref.name,
            labels=endpoint.labels,
            workloads=self._workloads(endpoint.ref),
            cluster_name=self._cluster,
        )
        return dict.fromkeys(endpoint.addresses, record)

    def _workloads(self, ref: PodRef) -> tuple[Controller, ...]:
        """The pod's controller; a ReplicaSet named after its template is shown as its Deployment."""
        pod = self._watches.pods.get(ref.name, ref.namespace)
        if pod is None or not pod.owner[0]:
            return ()
        kind, name = pod.owner
        suffix = f"-{pod.labels.get(_POD_HASH, '')}"
        if kind == "ReplicaSet" and len(suffix) > 1 and name.endswith(suffix):
            return (Controller("Deployment", name.removesuffix(suffix)),)
        return (Controller(kind, name),)
