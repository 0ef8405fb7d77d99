"""What the agent says of its pods: CiliumEndpoints.

Nothing here is on a pod's start-up path: other nodes reach a new pod by its network prefix until its CiliumEndpoint
arrives.
"""

from __future__ import annotations

from mycel.agent.endpoint_object import endpoint_object
from mycel.agent.endpoints import Endpoints
from mycel.agent.policies import Policies
from mycel.agent.watches import Watches
from mycel.agent.writing import WriteQueue
from mycel.k8s.client import ApiClient, Patch
from mycel.k8s.errors import AlreadyExists
from mycel.k8s.informer import Key
from mycel.k8s.resources import CILIUM_ENDPOINTS
from mycel.model.address import format_address
from mycel.model.workload import LocalEndpoint, PodRef, PublishedEndpoint
from mycel.plan.rows import EndpointPolicy


class EndpointPublisher:
    """Keeps the CiliumEndpoints of this node's pods as the endpoints are."""

    def __init__(
        self, client: ApiClient, watches: Watches, endpoints: Endpoints, policies: Policies, *, node_address: str
    ) -> None:
        """`node_address`: where other nodes reach this one."""
        self._client = client
        self._watches = watches
        self._endpoints = endpoints
        self._policies = policies
        self._here = node_address
        self._queue: WriteQueue[PodRef] = WriteQueue(self._write, what="CiliumEndpoint")
        self.touch = self._queue.touch
        """A pod's endpoint, or what the API server has of it, changed."""
        endpoints.subscribe(self._endpoint_changed)
        watches.endpoints.subscribe(self._object_changed)
        policies.on_enforcement(lambda endpoint: self.touch(endpoint.ref))

    async def run(self) -> None:
        """Write until cancelled, each endpoint at least once."""
        for endpoint in self._endpoints.all().values():
            self.touch(endpoint.ref)
        await self._queue.run()

    def _endpoint_changed(self, old: LocalEndpoint | None, new: LocalEndpoint | None) -> None:
        if (endpoint := new or old) is not None:
            self.touch(endpoint.ref)

    def _object_changed(self, _key: Key, old: PublishedEndpoint | None, new: PublishedEndpoint | None) -> None:
        seen = new or old
        if seen is not None and (seen.node_address == self._here or self._endpoints.of_pod(seen.ref) is not None):
            self.touch(seen.ref)

    async def _write(self, ref: PodRef) -> bool:
        endpoint, published = self._endpoints.of_pod(ref), self._watches.endpoints.get(ref.name, ref.namespace)
        here = self._here
        if endpoint is None or not endpoint.identity:
            # Another node's object of the same name (a StatefulSet's pod that moved) is not ours to delete.
            if endpoint is None and published is not None and published.node_address == here:
                await self._client.delete(CILIUM_ENDPOINTS, ref.name, namespace=ref.namespace)
            return False
        enforced = self._policies.in_force(endpoint)
        pod = self._watches.pods.get(ref.name, ref.namespace)
        body = endpoint_object(endpoint, pod, node_address=here, enforced=enforced)
        if published is not None and _same(published, endpoint, here, enforced):
            return False
        try:
            if published is None:
                await self._client.create(CILIUM_ENDPOINTS, body)
                return True
        except AlreadyExists:
            pass
        await self._client.patch(CILIUM_ENDPOINTS, ref.name, body, namespace=ref.namespace, kind=Patch.MERGE)
        return True


def _same(published: PublishedEndpoint, endpoint: LocalEndpoint, node_address: str, enforced: EndpointPolicy) -> bool:
    return (
        published.enforcing == (bool(enforced.ingress_set), bool(enforced.egress_set))
        and published.endpoint_id == endpoint.endpoint_id
        and published.identity == endpoint.identity
        and published.labels == endpoint.labels
        and published.node_address == node_address
        and published.addresses == tuple(format_address(address) for address in endpoint.addresses)
    )
