"""Which kinds the API server has just now, custom ones included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from mycel.k8s.client import ApiClient
from mycel.k8s.resources import Resource

_NEEDED = {"list", "watch", "delete"}


class Kinds(NamedTuple):
    """Everything that can be listed, watched and deleted."""

    resources: frozenset[Resource]
    collections: frozenset[Resource]
    """Those whose objects can be deleted all at once."""

    def find(self, api_version: str, kind: str) -> Resource | None:
        """The resource an ownerReference speaks of; another served version of the group will do."""
        group = api_version.rpartition("/")[0]
        return next((one for one in self.resources if (one.group, one.kind) == (group, kind)), None)


class _ApiResource(msgspec.Struct, frozen=True):
    name: str
    kind: str
    namespaced: bool
    verbs: tuple[str, ...] = ()


class _ResourceList(msgspec.Struct, frozen=True):
    resources: tuple[_ApiResource, ...] = ()


class _Version(msgspec.Struct, frozen=True):
    version: str


class _Group(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    preferred_version: _Version


class _GroupList(msgspec.Struct, frozen=True):
    groups: tuple[_Group, ...] = ()


async def discover(client: ApiClient) -> Kinds:
    """Ask for every group's preferred version. Raises ApiError."""
    groups = msgspec.json.decode(await client.request("GET", "/apis"), type=_GroupList).groups
    places = [("", "v1"), *((one.name, one.preferred_version.version) for one in groups)]
    resources: set[Resource] = set()
    collections: set[Resource] = set()
    for group, version in places:
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        listed = msgspec.json.decode(await client.request("GET", path), type=_ResourceList)
        for resource, verbs in _usable(group, version, listed.resources):
            resources.add(resource)
            if "deletecollection" in verbs:
                collections.add(resource)
    return Kinds(frozenset(resources), frozenset(collections))


def _usable(group: str, version: str, listed: Iterable[_ApiResource]) -> Iterable[tuple[Resource, frozenset[str]]]:
    for one in listed:
        if "/" not in one.name and set(one.verbs) >= _NEEDED:
            yield Resource(group, version, one.name, one.kind, one.namespaced), frozenset(one.verbs)
