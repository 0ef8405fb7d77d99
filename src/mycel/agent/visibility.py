"""What a proxy is to look at of the pods of this node, as annotations of pods and namespaces ask."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from mycel.agent.watches import Watches
from mycel.k8s.informer import Key
from mycel.model.workload import Namespace, PodRef, Workload
from mycel.policy.visibility import ANNOTATION, Visible, parse_visibility

log = logging.getLogger(__name__)


class Visibility:
    """A pod's own annotation counts in place of its namespace's, also an empty one."""

    def __init__(self, watches: Watches, changed: Callable[[], None]) -> None:
        """`changed` is called when another thing is asked for."""
        self._watches = watches
        self._tell = changed
        watches.pods.subscribe(self._changed)
        watches.namespaces.subscribe(self._changed)

    def of(self, ref: PodRef) -> tuple[Visible, ...]:
        """What is asked for of a pod; an annotation that cannot be read asks for nothing, and is logged."""
        pod = self._watches.pods.get(ref.name, ref.namespace)
        if pod is not None and pod.visibility is not None:
            return _read(pod.visibility, f"pod {ref.namespace}/{ref.name}")
        space = self._watches.namespaces.get(ref.namespace)
        return _read(space.visibility, f"namespace {ref.namespace}") if space and space.visibility else ()

    def _changed(self, _key: Key, old: Workload | Namespace | None, new: Workload | Namespace | None) -> None:
        if (old.visibility if old else None) != (new.visibility if new else None):
            self._tell()


@functools.lru_cache(maxsize=4096)
def _read(text: str, place: str) -> tuple[Visible, ...]:
    try:
        return parse_visibility(text)
    except ValueError as exc:
        log.warning("annotation %s of %s is not used: %s", ANNOTATION, place, exc)
        return ()
