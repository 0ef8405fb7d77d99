"""What pods refer to: ConfigMaps, Secrets, Services, service-account tokens. Watches begin when the first pod
needs them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from typing import Any

from mycel.cluster.node import clock
from mycel.cluster.node.env import Lookup
from mycel.cluster.node.errors import VolumeError
from mycel.cluster.node.names import Object
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError
from mycel.k8s.informer import Informer, Key
from mycel.k8s.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, SERVICES, Resource

_SYNC_TIMEOUT_S = 20


class Objects:
    """Lookups over lazily started informers; `on_change(namespace)` is called when a ConfigMap or Secret there
    changes.
    """

    def __init__(self, client: ApiClient, on_change: Callable[[str], None]) -> None:
        self._client = client
        self._on_change = on_change
        self._informers: dict[Resource, Informer[Object]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._tokens: dict[tuple[str, str, int], tuple[str, float]] = {}

    async def services(self) -> Iterable[Object]:
        """All services of the cluster, as last seen."""
        return (await self._synced(SERVICES)).store.values()

    async def lookup(self, pod: Object) -> Lookup:
        """Functions for `env.build`; watches only what the pod refers to."""
        namespace = pod["metadata"]["namespace"]
        kinds = _referred(pod)
        configs = await self._synced(CONFIG_MAPS) if "configMap" in kinds else None
        secrets = await self._synced(SECRETS) if "secret" in kinds else None
        return Lookup(
            lambda name: _texts(configs.get(name, namespace)) if configs else None,
            lambda name: _binaries(secrets.get(name, namespace)) if secrets else None,
        )

    async def config_map(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """A ConfigMap's data and binaryData."""
        found = (await self._synced(CONFIG_MAPS)).get(name, namespace)
        return None if found is None else _texts_as_bytes(found) | _decoded(found.get("binaryData"))

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """A Secret's data."""
        return _binaries((await self._synced(SECRETS)).get(name, namespace))

    async def token(self, pod: Object, *, audience: str, lifetime_s: int) -> str:
        """A bound token of the pod's service account, renewed when four fifths of its life are over. Raises
        VolumeError.
        """
        key = (pod["metadata"]["uid"], audience, lifetime_s)
        kept = self._tokens.get(key)
        if kept and kept[1] > time.time():
            return kept[0]
        account = pod["spec"].get("serviceAccountName") or "default"
        metadata = pod["metadata"]
        body: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": lifetime_s,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            },
        }
        try:
            answer = await self._client.create(
                SERVICE_ACCOUNTS, body, namespace=metadata["namespace"], name=account, subresource="token"
            )
            status = answer["status"]
            expires = clock.parse(status["expirationTimestamp"]).astimezone(UTC).timestamp()
        except (ApiError, KeyError, ValueError) as exc:
            if kept:
                return kept[0]
            raise VolumeError(f'failed to fetch token of service account "{account}": {exc}') from exc
        now = time.time()
        self._tokens[key] = (status["token"], now + (expires - now) * 0.8)
        return status["token"]

    def renewal_at(self, uid: str) -> float | None:
        """When (seconds since the epoch) the first of the pod's tokens wants renewal."""
        return min((at for (owner, _, _), (_, at) in self._tokens.items() if owner == uid), default=None)

    def forget(self, uid: str) -> None:
        """The pod is gone; so are its tokens."""
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key]

    async def close(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _synced(self, resource: Resource) -> Informer[Object]:
        informer = self._informers.get(resource)
        if informer is None:
            informer = Informer[Any](self._client, resource, on_change=self._changed if resource != SERVICES else None)
            self._informers[resource] = informer
            self._tasks.append(asyncio.create_task(informer.run(), name=f"informer {resource}"))
        if not informer.synced:
            try:
                async with asyncio.timeout(_SYNC_TIMEOUT_S):
                    await informer.wait_synced()
            except TimeoutError as exc:
                raise VolumeError(f"{resource} could not be listed within {_SYNC_TIMEOUT_S} s") from exc
        return informer

    def _changed(self, key: Key, _old: Object | None, _new: Object | None) -> None:
        self._on_change(key.namespace)


def _referred(pod: Object) -> set[str]:
    """Which kinds the environment of the pod's containers refers to."""
    kinds: set[str] = set()
    for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]:
        for source in container.get("envFrom") or []:
            kinds.add("configMap" if "configMapRef" in source else "secret")
        for entry in container.get("env") or []:
            source = entry.get("valueFrom") or {}
            kinds |= {"configMap"} if "configMapKeyRef" in source else {"secret"} if "secretKeyRef" in source else set()
    return kinds


def _texts(found: Object | None) -> Mapping[str, str] | None:
    return None if found is None else found.get("data") or {}


def _texts_as_bytes(found: Object) -> dict[str, bytes]:
    return {key: value.encode() for key, value in (found.get("data") or {}).items()}


def _binaries(found: Object | None) -> Mapping[str, bytes] | None:
    return None if found is None else _decoded(found.get("data"))


def _decoded(data: Mapping[str, str] | None) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (data or {}).items()}
