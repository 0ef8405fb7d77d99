"""Objects of ours, as a target of reconciling: written by server-side apply, gone when not desired.

What was written is known by its digest in an annotation, so that a field nobody wants any more goes too; what others
changed since is seen by comparing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.informer import Key
from mycel.k8s.resources import Resource
from mycel.kit.reconcile import Diff, TargetError

Object = dict[str, Any]
DIGEST = "mycel.dev/applied"
MANAGER = "cilium-operator"


def with_digest(body: Object) -> Object:
    """The object with the digest of what it says."""
    digest = hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()[:16]
    metadata = body["metadata"]
    return body | {"metadata": metadata | {"annotations": {**(metadata.get("annotations") or {}), DIGEST: digest}}}


def owned_by(body: Object, resource: Resource, owner: Object) -> Object:
    """The object as it goes when its owner does."""
    metadata = owner["metadata"]
    reference = {
        "apiVersion": resource.api_version, "kind": resource.kind, "name": metadata["name"], "uid": metadata["uid"]
    }  # fmt: skip
    return body | {"metadata": body["metadata"] | {"ownerReferences": [reference]}}


def holds(live: Any, wanted: Any) -> bool:
    """Whether an object says at least what is wanted; lists have the same length."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        said = cast("Object", live)
        return all(holds(said.get(key), value) for key, value in cast("Object", wanted).items())
    if isinstance(wanted, list) and isinstance(live, list):
        pairs = (cast("list[Any]", live), cast("list[Any]", wanted))
        return len(pairs[0]) == len(pairs[1]) and all(map(holds, *pairs))
    return live == wanted


class Owned:
    """Objects of one kind. `live` looks one up and `owned` lists those made here, both as last seen; `theirs` tells of
    a live object and what is wanted whether it is somebody else's.
    """

    def __init__(
        self,
        client: ApiClient,
        resource: Resource,
        name: str,
        *,
        desired: Callable[[], Mapping[Key, Object]],
        live: Callable[[Key], Object | None],
        owned: Callable[[], list[Key]],
        theirs: Callable[[Object, Object], bool] = lambda _live, _wanted: False,
    ) -> None:
        self.name = name
        self._client = client
        self._resource = resource
        self._desired = desired
        self._live = live
        self._owned = owned
        self._theirs = theirs

    async def read(self, *, fresh: bool) -> Mapping[Key, Object]:
        """What is as desired is desired; what is not is as it is."""
        desired = self._desired()
        found: dict[Key, Object] = {}
        for key in self._owned():
            item, wanted = self._live(key) or {}, desired.get(key)
            found[key] = wanted if wanted is not None and holds(item, wanted) else item
        return found

    async def apply(self, change: Diff[Key, Object]) -> None:
        """Apply and delete. Raises TargetError."""
        problems: list[str] = []
        for key, body in change.upserts.items():
            live = self._live(key)
            if live is not None and self._theirs(live, body):
                problems.append(f"{key.namespace}/{key.name} is there and belongs to somebody else")
                continue
            await self._try(key, self._client.apply(self._resource, body, field_manager=MANAGER), problems)
        for key in change.deletes:
            await self._try(key, self._client.delete(self._resource, key.name, namespace=key.namespace), problems)
        if problems:
            raise TargetError("; ".join(problems))

    async def _try(self, key: Key, call: Any, problems: list[str]) -> None:
        try:
            await call
        except NotFound:
            pass
        except ApiError as exc:
            problems.append(f"{key.namespace}/{key.name}: {exc}")
