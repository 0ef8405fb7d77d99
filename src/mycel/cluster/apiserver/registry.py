"""Which kinds the server has: the built-in ones (a table, kinds.py) and those that CRDs add while it runs.

The REST handlers are generic over a `Kind`; what differs between kinds is data here, or a function looked up by
resource id (defaults/, validation/, tables/).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mycel.cluster.store import ResourceId

Object = dict[str, Any]

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class CustomSchema:
    """What a CRD version says about its objects."""

    schema: dict[str, Any] | None
    columns: tuple[dict[str, Any], ...]
    scale: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Kind:
    """One served resource: a kind in one API version."""

    group: str
    version: str
    plural: str
    kind: str
    singular: str
    namespaced: bool
    struct: str | None = None
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[str, ...] = ()
    has_generation: bool = False
    list_kind: str = ""
    custom: CustomSchema | None = None
    # Objects are stored in one shape; a version that looks different converts. None: only apiVersion differs.
    to_storage: Callable[[Object], Object] | None = field(default=None, compare=False)
    from_storage: Callable[[Object], Object] | None = field(default=None, compare=False)
    storage: ResourceId | None = None
    storage_version: str = ""

    @property
    def resource(self) -> ResourceId:
        """Where objects of this kind are stored; the same for every version."""
        return self.storage or resource_id(self.plural, self.group)

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_as_is(self) -> bool:
        """Whether stored bytes can be sent unchanged."""
        return self.from_storage is None and self.storage_version in ("", self.version)

    def present(self, obj: Object) -> Object:
        """A stored object as this version shows it. Never changes `obj`."""
        if self.from_storage is not None:
            return self.from_storage(obj)
        if self.stored_as_is:
            return obj
        return {**obj, "apiVersion": self.api_version}

    def absorb(self, obj: Object) -> Object:
        """An object of this version as it is stored."""
        if self.to_storage is not None:
            return self.to_storage(obj)
        if not self.stored_as_is:
            obj["apiVersion"] = f"{self.group}/{self.storage_version}"
        return obj


def resource_id(plural: str, group: str) -> ResourceId:
    """`pods`, `deployments.apps`."""
    return ResourceId(f"{plural}.{group}" if group else plural)


class Registry:
    """All kinds by group, version and plural name. `generation` grows with every change."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._builtin = {(kind.group, kind.version, kind.plural): kind for kind in kinds}
        self._custom: dict[str, tuple[Kind, ...]] = {}
        self._all = dict(self._builtin)
        self.generation = 0

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind served at /apis/<group>/<version>/…/<plural>, or None."""
        return self._all.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Kind | None:
        """The kind of a manifest's apiVersion and kind, or None."""
        for candidate in self._all.values():
            if candidate.kind == kind and candidate.api_version == api_version:
                return candidate
        return None

    def kinds(self) -> Iterable[Kind]:
        """Every kind, built-in ones first."""
        return self._all.values()

    def group_versions(self) -> dict[str, list[str]]:
        """Versions by group, the preferred one first; the core group is ''."""
        found: dict[str, list[str]] = {}
        for kind in self._all.values():
            versions = found.setdefault(kind.group, [])
            if kind.version not in versions:
                versions.append(kind.version)
        return {group: sorted(versions, key=_version_rank) for group, versions in found.items()}

    def set_custom(self, crd_name: str, kinds: tuple[Kind, ...]) -> None:
        """Serve the kinds of one CRD; an empty tuple ends that. Built-in kinds cannot be replaced."""
        if self._custom.get(crd_name, ()) == kinds:
            return
        if kinds:
            self._custom[crd_name] = kinds
        else:
            self._custom.pop(crd_name, None)
        self._all = dict(self._builtin)
        for group in self._custom.values():
            for kind in group:
                self._all.setdefault((kind.group, kind.version, kind.plural), kind)
        self.generation += 1


def _version_rank(version: str) -> tuple[int, int, int, str]:
    """Kubernetes' order of versions: v2, v1, v1beta2, v1beta1, v1alpha1, then names."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), version)
