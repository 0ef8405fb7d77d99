"""What the agent says of itself and its pods: CiliumEndpoints, the CiliumNode, and the node's readiness.

Nothing here is on a pod's start-up path: other nodes reach a new pod by its network prefix until its CiliumEndpoint
arrives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from mycel.agent.writing import WriteQueue
from mycel.k8s.client import ApiClient, Patch
from mycel.k8s.errors import AlreadyExists
from mycel.k8s.resources import CILIUM_ENDPOINTS, CILIUM_NODES, NODES
from mycel.model.address import Address, format_address, is_ipv4
from mycel.model.node import Node
from mycel.model.workload import LocalEndpoint, PodRef, PublishedEndpoint, Workload
from mycel.plan.rows import EndpointPolicy

log = logging.getLogger(__name__)
NOT_READY_TAINT = "node.cilium.io/agent-not-ready"


def endpoint_object(
    endpoint: LocalEndpoint, pod: Workload | None, *, node_address: str, enforced: EndpointPolicy
) -> dict[str, Any]:
    """The CiliumEndpoint of a wired pod."""
    directions = {"ingress": bool(enforced.ingress_set), "egress": bool(enforced.egress_set)}
    pairs: dict[str, str] = {}
    for address in endpoint.addresses:
        pairs["ipv4" if is_ipv4(address) else "ipv6"] = format_address(address)
    ports = [port._asdict() for port in pod.named_ports] if pod else []
    return {
        "metadata": {
            "name": endpoint.ref.name,
            "namespace": endpoint.ref.namespace,
            "labels": dict(pod.labels) if pod else {},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": endpoint.ref.name, "uid": endpoint.uid}],
        },
        "status": {
            "id": endpoint.endpoint_id,
            "identity": {"id": endpoint.identity, "labels": list(endpoint.labels)},
            "networking": {"addressing": [pairs], "node": node_address},
            "external-identifiers": external_identifiers(endpoint),
            "policy": {
                name: {"enforcing": on, "state": "enforcing" if on else "<status disabled>"}
                for name, on in directions.items()
            },
            "state": "ready" if endpoint.identity else "waiting-for-identity",
            "named-ports": [
                {"name": port["name"], "port": port["port"], "protocol": port["protocol"]} for port in ports
            ],
        },
    }


def external_identifiers(endpoint: LocalEndpoint) -> dict[str, str]:
    """How others call the endpoint."""
    return {
        "container-id": endpoint.container_id,
        "cni-attachment-id": f"{endpoint.container_id}:{endpoint.pod_interface}",
        "k8s-namespace": endpoint.ref.namespace,
        "k8s-pod-name": endpoint.ref.name,
        "pod-name": str(endpoint.ref),
    }


def node_object(
    node: Node, *, addresses: list[str], routers: list[str], ingress: Iterable[Address] = ()
) -> dict[str, Any]:
    """The CiliumNode of this node; the node object owns it."""
    kinds = [("InternalIP", text) for text in addresses] + [("CiliumInternalIP", text) for text in routers]
    return {
        "metadata": {
            "name": node.name,
            "labels": dict(node.labels),
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}],
        },
        "spec": {
            "addresses": [{"type": kind, "ip": text} for kind, text in kinds],
            "ipam": {"podCIDRs": list(node.pod_networks)},
            "ingress": {"ipv4" if is_ipv4(each) else "ipv6": format_address(each) for each in ingress},
        },
    }


class EndpointPublisher:
    """Keeps the CiliumEndpoints of this node's pods as the endpoints are."""

    def __init__(
        self,
        client: ApiClient,
        *,
        endpoint: Callable[[PodRef], LocalEndpoint | None],
        pod: Callable[[PodRef], Workload | None],
        published: Callable[[PodRef], PublishedEndpoint | None],
        node_address: Callable[[], str],
        enforced: Callable[[LocalEndpoint], EndpointPolicy],
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._pod = pod
        self._published = published
        self._node_address = node_address
        self._enforced = enforced
        self._queue: WriteQueue[PodRef] = WriteQueue(self._write, what="CiliumEndpoint")
        self.touch = self._queue.touch
        """A pod's endpoint, or what the API server has of it, changed."""
        self.run = self._queue.run

    async def _write(self, ref: PodRef) -> bool:
        endpoint, published = self._endpoint(ref), self._published(ref)
        here = self._node_address()
        if endpoint is None or not endpoint.identity:
            # Another node's object of the same name (a StatefulSet's pod that moved) is not ours to delete.
            if endpoint is None and published is not None and published.node_address == here:
                await self._client.delete(CILIUM_ENDPOINTS, ref.name, namespace=ref.namespace)
            return False
        enforced = self._enforced(endpoint)
        body = endpoint_object(endpoint, self._pod(ref), node_address=here, enforced=enforced)
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


async def publish_node(client: ApiClient, body: dict[str, Any]) -> None:
    """Create the CiliumNode, or bring its fields to ours. Raises ApiError."""
    try:
        await client.create(CILIUM_NODES, body)
    except AlreadyExists:
        await client.patch(CILIUM_NODES, body["metadata"]["name"], body, kind=Patch.MERGE)


async def announce_ready(client: ApiClient, node: Node) -> None:
    """Say that the node's network works: condition NetworkUnavailable=False, and no taint of ours.

    Raises ApiError.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "CiliumIsUp",
        "message": "Cilium is running on this node",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    await client.patch(
        NODES, node.name, {"status": {"conditions": [condition]}}, kind=Patch.STRATEGIC, subresource="status"
    )
    await remove_taint(client, node.name)


async def remove_taint(client: ApiClient, name: str) -> bool:
    """Take the agent-not-ready taint off; False when it was not there.

    Raises ApiError, Conflict among them.
    """
    current: Mapping[str, Any] = await client.get(NODES, name)
    taints = current.get("spec", {}).get("taints") or []
    kept = [taint for taint in taints if taint.get("key") != NOT_READY_TAINT]
    if len(kept) == len(taints):
        return False
    # With the version: a taint somebody sets meanwhile must not be lost.
    body = {"metadata": {"resourceVersion": current["metadata"]["resourceVersion"]}, "spec": {"taints": kept}}
    await client.patch(NODES, name, body, kind=Patch.MERGE)
    log.info("taint %s taken off node %s", NOT_READY_TAINT, name)
    return True
