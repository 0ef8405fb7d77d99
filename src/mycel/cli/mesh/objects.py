"""Writing objects to a cluster: apply, delete, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from mycel.k8s.errors import NotFound
from mycel.k8s.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CRDS,
    DAEMON_SETS,
    DEPLOYMENTS,
    INGRESS_CLASSES,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)

if TYPE_CHECKING:
    from mycel.k8s.client import ApiClient

Object = dict[str, Any]
FIELD_MANAGER = "mycel-install"
_TOGETHER = 8  # requests at a time

RESOURCES = {
    resource.kind: resource
    for resource in (
        NAMESPACES,
        SERVICE_ACCOUNTS,
        SECRETS,
        CONFIG_MAPS,
        CRDS,
        CLUSTER_ROLES,
        CLUSTER_ROLE_BINDINGS,
        ROLES,
        ROLE_BINDINGS,
        SERVICES,
        INGRESS_CLASSES,
        DAEMON_SETS,
        DEPLOYMENTS,
    )
}


class Change(Enum):
    """What applying an object did."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


class Applied(NamedTuple):
    """One object and what became of it."""

    kind: str
    name: str
    change: Change


async def apply(client: ApiClient, item: Object) -> Applied:
    """Create it, or bring it to what we say and leave the rest of it alone. Raises ApiError."""
    resource = RESOURCES[item["kind"]]
    metadata = item["metadata"]
    try:
        before = await client.get(resource, metadata["name"], namespace=metadata.get("namespace"))
    except NotFound:
        before = None
    after = await client.apply(resource, item, field_manager=FIELD_MANAGER)
    if before is None:
        change = Change.CREATED
    elif _content(before) == _content(after):
        change = Change.UNCHANGED
    else:
        change = Change.CONFIGURED
    return Applied(item["kind"], metadata["name"], change)


def _content(item: Object) -> Object:
    """What people wrote of an object: neither its status nor what the server keeps beside it."""
    kept = {"resourceVersion", "generation", "managedFields"}
    metadata = {key: value for key, value in item["metadata"].items() if key not in kept}
    return {key: value for key, value in item.items() if key != "status"} | {"metadata": metadata}


async def apply_together(client: ApiClient, items: Iterable[Object]) -> list[Applied]:
    """Apply objects that do not depend on each other."""
    gate = asyncio.Semaphore(_TOGETHER)

    async def one(item: Object) -> Applied:
        async with gate:
            return await apply(client, item)

    return list(await asyncio.gather(*(one(item) for item in items)))


async def apply_in_order(client: ApiClient, items: Iterable[Object]) -> AsyncGenerator[Applied, None]:
    """Apply one after the other, telling each."""
    for item in items:
        yield await apply(client, item)


async def remove(client: ApiClient, resource: Resource, name: str, *, namespace: str = "") -> bool:
    """Delete with what it owns; False when it was not there."""
    try:
        await client.delete(resource, name, namespace=namespace or None, propagation="Background")
    except NotFound:
        return False
    return True
