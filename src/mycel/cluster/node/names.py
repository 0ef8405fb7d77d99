"""Names of pods and containers as they go through this program, and where their files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, NewType

PodUid = NewType("PodUid", str)
ContainerId = NewType("ContainerId", str)
Object = dict[str, Any]


class PodKey(NamedTuple):
    """A pod's place in the API."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def key_of(pod: Object) -> PodKey:
    """The place of a pod object."""
    return PodKey(pod["metadata"]["namespace"], pod["metadata"]["name"])


def uid_of(pod: Object) -> PodUid:
    """The pod's uid; for a mirror of a static source its hash would stand here."""
    return PodUid(pod["metadata"]["uid"])


class PodFiles(NamedTuple):
    """One pod's folders."""

    base: Path
    logs: Path

    @classmethod
    def of(cls, pod: Object, *, pods: Path, logs: Path) -> PodFiles:
        """From the configured roots, in kubelet's layout."""
        key = key_of(pod)
        uid = uid_of(pod)
        return cls(pods / uid, logs / f"{key.namespace}_{key.name}_{uid}")

    @property
    def state(self) -> Path:
        return self.base / "state.json"

    def volume(self, kind: str, name: str) -> Path:
        """Where a volume's content is."""
        return self.base / "volumes" / f"kubernetes.io~{kind}" / name

    def container(self, name: str) -> Path:
        """One container's own files."""
        return self.base / "containers" / name

    def bundle(self, container: ContainerId) -> Path:
        """The OCI bundle of one run of a container."""
        return self.base / "bundles" / container

    def log(self, container: str, restarts: int) -> Path:
        """The log of one run."""
        return self.logs / container / f"{restarts}.log"
