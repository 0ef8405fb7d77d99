"""Policy objects as the API server has them → policies in force on this node, and how each object stands.

An object that is no policy changes nothing: what was in force of it before stays, and its status says what is wrong.
The revision grows by one with every object that is taken in or goes.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from mycel.agent.named_secrets import NamedSecrets
from mycel.agent.policy_files import PolicyFiles
from mycel.agent.watches import Watches, follow
from mycel.k8s.informer import Key
from mycel.policy.engine import Engine, PolicyKeyRef
from mycel.policy.errors import PolicyInvalid
from mycel.policy.parse import parse_policy
from mycel.policy.rules import RuleRef

log = logging.getLogger(__name__)


class PolicyState(NamedTuple):
    """How one object stands on this node."""

    generation: int
    problem: str  # empty: it is valid
    revision: int  # from which on it is enforced
    taken_at: float  # loop time it was taken in


class PolicyObjects:
    """See the module."""

    def __init__(
        self,
        engine: Engine,
        watches: Watches,
        *,
        secrets: NamedSecrets,
        files: PolicyFiles,
        cluster: str,
        touch: Callable[[], None],
    ) -> None:
        """`secrets`: those the objects name, filled here. `touch` is called when other policies are in force."""
        self._engine = engine
        self._secrets = secrets
        self._files = files
        self._cluster = cluster
        self._touch = touch
        self.states: dict[PolicyKeyRef, PolicyState] = {}
        self.revision = 1
        self.realized_revision = 0
        """The one the kernel has been read back with."""
        self._unrealized: set[PolicyKeyRef] = set()
        self._hearers: list[Callable[[PolicyKeyRef], None]] = []
        for informer in (watches.network_policies, watches.cilium_policies, watches.clusterwide_policies):
            follow(informer, functools.partial(self._object_changed, informer.resource.kind))

    def subscribe(self, hearer: Callable[[PolicyKeyRef], None]) -> None:
        """Call `hearer` when an object's state may have another status."""
        self._hearers.append(hearer)

    def tell(self, key: PolicyKeyRef) -> None:
        """An object may stand differently."""
        for hearer in self._hearers:
            hearer(key)

    def realize(self, revision: int) -> None:
        """The kernel holds what was in force at a revision."""
        if revision <= self.realized_revision:
            return
        log.debug("policy revision %d is realized", revision)
        self.realized_revision = revision
        done = {key for key in self._unrealized if key not in self.states or self.states[key].revision <= revision}
        self._unrealized -= done
        for key in done:
            self.tell(key)

    def revision_of(self, ref: RuleRef) -> int:
        """From which revision on a rule's object is enforced; 0 when it is gone."""
        state = self.states.get(PolicyKeyRef(ref.kind, ref.namespace, ref.name))
        return state.revision if state else 0

    def listing(self) -> str:
        """The objects in force, as JSON text with the generation and revision of each."""
        shown = [
            {
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "generation": state.generation,
                "revision": state.revision,
                "valid": not state.problem,
                **({"problem": state.problem} if state.problem else {}),
            }
            for key, state in sorted(self.states.items())
        ]
        return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()

    def _object_changed(self, kind: str, _key: Key, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if old is not None and new is not None and _content(old) == _content(new):
            return
        self._policy_changed(kind, old, new)

    def _policy_changed(self, kind: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        manifest = new or old or {}
        metadata = manifest.get("metadata", {})
        key = PolicyKeyRef(kind, str(metadata.get("namespace", "")), str(metadata.get("name", "")))
        self.revision += 1
        if new is None:
            self._engine.set_policy(key, None)
            self.states.pop(key, None)
            self._files.remove(key)
            log.info("%s %s is gone", kind, "/".join(part for part in key[1:] if part))
        else:
            problem = ""
            try:
                self._engine.set_policy(key, parse_policy(manifest, cluster=self._cluster))
                self._files.remove(key)
            except PolicyInvalid as exc:
                problem = str(exc)
                log.warning("%s %s is not valid and not taken in: %s", kind, "/".join(filter(None, key[1:])), exc)
                self._keep(key, old, uid=str(metadata.get("uid", "")))
            generation = int(metadata.get("generation", 0))
            self.states[key] = PolicyState(generation, problem, self.revision, asyncio.get_running_loop().time())
        self._secrets.note(key, self._engine.policies.get(key, ()))
        self._unrealized.add(key)
        self._touch()
        self.tell(key)

    def _keep(self, key: PolicyKeyRef, old: Mapping[str, Any] | None, *, uid: str) -> None:
        """What was in force before an object became invalid stays, over a restart too."""
        before = self.states.get(key)
        if old is not None and before is not None and not before.problem:
            self._files.save(key, old)
        elif key not in self._engine.policies and (kept := self._files.load(key, uid)) is not None:
            try:
                self._engine.set_policy(key, parse_policy(kept, cluster=self._cluster))
            except PolicyInvalid as exc:
                log.error("the last valid version of %s %s cannot be used: %s", key.kind, key.name, exc)


def _content(manifest: Mapping[str, Any]) -> tuple[Any, Any]:
    return manifest.get("spec"), manifest.get("specs")
