"""What the agent says of its node: the CiliumNode, and that the node's network works."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from mycel.agent.watches import Watches
from mycel.k8s.client import ApiClient, Patch
from mycel.k8s.errors import AlreadyExists, ApiError
from mycel.k8s.resources import CILIUM_NODES, NODES
from mycel.kit.backoff import backoff_s
from mycel.model.address import Address, format_address, is_ipv4
from mycel.model.node import Node

log = logging.getLogger(__name__)
NOT_READY_TAINT = "node.cilium.io/agent-not-ready"


async def announce_node(
    client: ApiClient, watches: Watches, name: str, *, routers: Iterable[Address], ingress: Iterable[Address]
) -> None:
    """Publish the CiliumNode and the node's readiness, again whenever the node's own facts change."""
    told_routers = [format_address(router) for router in routers]
    changed = asyncio.Event()
    watches.nodes.subscribe(lambda key, _old, _new: changed.set() if key.name == name else None)
    told: object = None
    failures = 0
    while True:
        changed.clear()
        node = watches.nodes.get(name)
        facts = (node.labels, node.internal_addresses, node.taints, node.uid) if node else None
        if node is not None and facts != told:
            try:
                body = node_object(node, addresses=list(node.internal_addresses), routers=told_routers, ingress=ingress)
                await publish_node(client, body)
                await announce_ready(client, node)
            except ApiError as exc:
                failures += 1
                log.info("node %s is not announced yet: %s", name, exc)
                await asyncio.sleep(backoff_s(failures, jitter=0.2))
                continue
            told, failures = facts, 0
        await changed.wait()


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
