"""The objects of this node as one part of a snapshot, and the services that go to their listeners.

An object that cannot be used keeps what it last said well; one that is new goes into effect when Envoy has taken all of
it. Endpoints are computed anew only for services that changed.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mycel.agent.secrets import Secrets
from mycel.agent.watches import Watches
from mycel.envoy.config.endpoints import Dialled, assignment, dialled, redirects, wanted
from mycel.envoy.config.model import OUTSIDE, ConfigRef, EnvoyConfig, ListenerKey, SecretUse
from mycel.envoy.config.read import read, ref_of
from mycel.envoy.delta import Outcome
from mycel.envoy.logs import Shown
from mycel.envoy.resources import ENDPOINTS, SECRET, Resource, Snapshot, TypeUrl, merged
from mycel.envoy.secrets import secret_resource
from mycel.kit.latest import Latest
from mycel.model.service import EndpointSlice, Service, ServiceRef
from mycel.plan.rows import Redirect
from mycel.policy.errors import PolicyInvalid
from mycel.policy.labels import LabelMap, kubernetes_labels
from mycel.policy.numbers import HashedNumbers
from mycel.service.balance import Frontend, FrontendKey

log = logging.getLogger(__name__)
FIRST_PORT, PORTS = 20000, 10000
_GATHER_S = 0.01
_PATIENCE_S = 10.0
_INGRESS_LABEL = "cilium.io/ingress"
Answers = Mapping[tuple[TypeUrl, str], Outcome]
"""What this node's Envoy last said of each resource."""


@dataclass(frozen=True, slots=True)
class Standing:
    """An object as it was last written, and the config in effect: its own, or the last good one."""

    ref: ConfigRef
    uid: str
    labels: Mapping[str, str]
    generation: int
    created: str
    config: EnvoyConfig | None
    problem: str


class Configs:
    """`snapshot` is for the proxy's driver, which tells `answered`; `redirects` is for the planner."""

    def __init__(
        self,
        watches: Watches,
        secrets: Secrets,
        *,
        node: str,
        ingress: str = "",
        only_ingress: bool = False,
        shown: Shown = (),
        touch_services: Callable[[], None] = lambda: None,
    ) -> None:
        """`touch_services` is told when redirects may be others."""
        self._watches = watches
        self._secrets = secrets
        self._node = node
        self._ingress = ingress
        self._only_ingress = only_ingress
        self._shown = shown
        self._touch_services = touch_services
        self._numbers: HashedNumbers[ListenerKey] = HashedNumbers(FIRST_PORT, PORTS)
        self._standing: dict[ConfigRef, Standing] = {}
        self._slices: dict[ServiceRef, dict[str, EndpointSlice]] = {}
        self._assigned: dict[str, tuple[Dialled, Resource]] = {}
        self._stale: set[ServiceRef] = set()
        self._answers: Answers = {}
        self._redirected: dict[FrontendKey, Redirect] = {}
        self._claims: Mapping[tuple[ServiceRef, int], list[EnvoyConfig]] = {}
        self._wake = asyncio.Event()
        self.snapshot: Latest[Snapshot] = Latest()
        self.changed: Callable[[ConfigRef], None] = lambda _ref: None
        """Told when an object stands differently."""
        secrets.changed = self._changed_all
        for informer in watches.envoy_configs:
            informer.subscribe(self._object)
            for key, item in informer.store.items():
                self._object(key, None, item)
        watches.services.subscribe(lambda key, _old, _new: self._service(ServiceRef(key.namespace, key.name)))
        watches.slices.subscribe(lambda _key, old, new: self._slice(old, new))
        for each in watches.slices.store.values():
            self._slice(None, each)
        watches.nodes.subscribe(lambda key, _old, _new: self._wake.set() if key.name == node else None)

    def adopt(self, redirected: Mapping[FrontendKey, Redirect]) -> None:
        """Go on with the redirects an earlier agent has written: those services are not opened meanwhile."""
        own = range(FIRST_PORT, FIRST_PORT + PORTS)
        self._redirected = {key: redirect for key, redirect in redirected.items() if redirect.port in own}

    def answered(self, answers: Answers) -> None:
        """What Envoy has said of every resource so far."""
        self._answers = answers
        self._changed_all()

    @property
    def configs(self) -> list[EnvoyConfig]:
        """Those in effect on this node, oldest first."""
        labels = self._labels()
        ordered = sorted(self._standing.values(), key=lambda each: (each.created, each.ref))
        return [each.config for each in ordered if each.config is not None and each.config.nodes.matches(labels)]

    def serves(self, config: EnvoyConfig) -> bool:
        """Whether an object is for this node."""
        return config.nodes.matches(self._labels())

    def _labels(self) -> LabelMap:
        node = self._watches.nodes.get(self._node)
        return kubernetes_labels(node.labels if node else {})

    def standing(self, ref: ConfigRef) -> Standing | None:
        """How an object was last written."""
        return self._standing.get(ref)

    def redirects(self, frontends: Mapping[FrontendKey, Frontend]) -> Mapping[FrontendKey, Redirect]:
        """Frontends whose connections go to listeners, and their ports."""
        configs = self.configs
        listening = {port: self.listens(config) for config in configs for port in config.listeners.values()}
        found, claims = redirects(configs, frontends, listening=listening, before=self._redirected)
        self._redirected = found
        if claims != self._claims:
            self._claims = claims
            for ref in self._standing:
                self.changed(ref)
        return found

    def listens(self, config: EnvoyConfig) -> bool:
        """Whether Envoy has taken everything of an object and has what it needs: a listener without its routes or any
        certificate is accepted, and does not listen.
        """
        return all(
            (found := self._answers.get(each)) is not None and found.version is not None and found.error is None
            for each in config.answered
        ) and self._has_secrets(config)

    def _has_secrets(self, config: EnvoyConfig) -> bool:
        """Of several certificates one will do: those that are missing cost the connections they are for."""
        made = self._made_of_secrets(config)
        there = {use: isinstance(each, Resource) for use, each in made.items()}
        own = [each for use, each in there.items() if not use.authority]
        return (not own or any(own)) and all(each for use, each in there.items() if use.authority)

    def _made_of_secrets(self, config: EnvoyConfig) -> dict[SecretUse, Resource | str]:
        return {use: secret_resource(use, self._secrets.found.get(use[:2])) for use in sorted(config.secrets)}

    def refusals(self, config: EnvoyConfig) -> list[str]:
        """What Envoy refuses of an object and of the Secrets it names, as they are now, in its words."""
        said = {(kind, name): config.resources[kind][name] for kind, name in config.answered}
        for use, made in self._made_of_secrets(config).items():
            if isinstance(made, Resource):
                said[SECRET, use.resource] = made
        return [
            f"{'Secret ' if kind == SECRET else ''}{name}: {found.error}"
            for (kind, name), resource in said.items()
            if (found := self._answers.get((kind, name))) is not None
            and found.error is not None
            and found.version == resource.version
        ]

    def taken(self, config: EnvoyConfig) -> bool:
        """Whether Envoy holds an object as it is now."""
        return all(
            (found := self._answers.get((kind, name))) is not None
            and found.error is None
            and found.version == config.resources[kind][name].version
            for kind, name in config.answered
        )

    def missing_secrets(self, config: EnvoyConfig) -> list[str]:
        """What is wrong with the Secrets an object names."""
        return [each for each in self._made_of_secrets(config).values() if isinstance(each, str)]

    def missing_services(self, config: EnvoyConfig) -> list[str]:
        """Services an object names and that are not there, and ports another object has already."""
        named = {each.service for each in config.services} | {each.service for each in config.clusters.values() if each}
        gone = [f"Service {ref} is not there" for ref in sorted(named) if self._of(ref) is None]
        lost = [
            f"Service {service} port {port} goes to {holders[0].ref}, which is older"
            for (service, port), holders in sorted(self._claims.items(), key=lambda item: item[0])
            if holders[0].ref != config.ref and any(each.ref == config.ref for each in holders)
        ]
        return gone + lost

    def empty_clusters(self, config: EnvoyConfig) -> list[str]:
        """Clusters that have no endpoints though they might, by the object's own names."""
        nothing: tuple[Dialled, None] = ((), None)
        return sorted(
            name
            for name, backends in config.clusters.items()
            if backends and not self._assigned.get(config.ref.qualify(name), nothing)[0]
        )

    async def run(self, realize: Callable[[], Awaitable[None]]) -> None:
        """Keep `snapshot` until cancelled. What goes stays until `realize` says that no service points there."""
        while True:
            self._wake.clear()
            wanted_now = self._snapshot()
            held: Snapshot = self.snapshot.value if self.snapshot.version else {}
            leaving = any(by_name.keys() - wanted_now.get(kind, {}).keys() for kind, by_name in held.items())
            if leaving:
                self.snapshot.set(merged(wanted_now, held))
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        await realize()
                except TimeoutError:
                    pass  # the kernel is behind; a row without a listener drops
            self.snapshot.set(wanted_now)
            await self._wake.wait()
            await asyncio.sleep(_GATHER_S)

    def _snapshot(self) -> Snapshot:
        configs = self.configs
        self._numbers.keep(
            ListenerKey(each.ref, name + side)
            for each in self._standing.values()
            if each.config
            for name in each.config.listeners
            for side in ("", OUTSIDE)
        )
        self._secrets.want({use[:2] for config in configs for use in config.secrets})
        secrets = {
            use.resource: made
            for config in configs
            for use, made in self._made_of_secrets(config).items()
            if isinstance(made, Resource)
        }
        own = (config.resources for config in configs)
        return merged(*own, {ENDPOINTS: self._endpoints(configs), SECRET: secrets})

    def _endpoints(self, configs: Iterable[EnvoyConfig]) -> dict[str, Resource]:
        stale, self._stale = self._stale, set()
        before, self._assigned = self._assigned, {}
        touched: set[str] = set()
        for name, backends in wanted(configs).items():
            held = before.get(name)
            if held is None or (backends and backends.service in stale):
                slices = self._slices.get(backends.service, {}).values() if backends else ()
                found = dialled(backends, self._of(backends.service), slices, self._node) if backends else ()
                if held is None or held[0] != found:
                    held = found, assignment(name, found)
                    touched.add(name)
            self._assigned[name] = held
        for config in configs:
            if any(config.ref.qualify(cluster) in touched for cluster in config.clusters):
                self.changed(config.ref)
        return {name: made for name, (_found, made) in self._assigned.items()}

    def _of(self, ref: ServiceRef) -> Service | None:
        return self._watches.services.get(ref.name, ref.namespace)

    def _object(self, _key: Any, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        item = new or old
        assert item is not None
        ref = ref_of(item)
        if new is None or (self._only_ingress and _INGRESS_LABEL not in (new["metadata"].get("labels") or {})):
            gone = self._standing.pop(ref, None)
        else:
            gone = None
            self._take(ref, new)
        self.changed(ref)
        if new is not None or gone is not None:
            self._wake.set()
            self._touch_services()

    def _take(self, ref: ConfigRef, item: dict[str, Any]) -> None:
        metadata = item["metadata"]
        uid, generation = str(metadata.get("uid", "")), int(metadata.get("generation") or 0)
        labels: Mapping[str, str] = metadata.get("labels") or {}
        before = self._standing.get(ref)
        if before is not None and (before.uid, before.generation, before.labels) == (uid, generation, labels):
            return  # only its status is another
        config, problem = before.config if before is not None and before.uid == uid else None, ""
        try:
            port = functools.partial(self._port, ref)
            config = read(item, port, ingress=self._ingress, shown=self._shown)
        except PolicyInvalid as exc:
            problem = str(exc)
        except OverflowError:
            problem = f"spec.resources: all {PORTS} ports of listeners are in use"
        except Exception as exc:
            log.exception("%s cannot be read", ref)
            problem = f"spec: cannot be read ({type(exc).__name__}): the agents' logs say more"
        created = str(metadata.get("creationTimestamp", ""))
        self._standing[ref] = Standing(ref, uid, labels, generation, created, config, problem)

    def _port(self, ref: ConfigRef, listener: str) -> int:
        return self._numbers.number(ListenerKey(ref, listener))

    def _service(self, ref: ServiceRef) -> None:
        self._stale.add(ref)
        self._wake.set()
        for standing in self._standing.values():
            if standing.config and any(each.service == ref for each in standing.config.services):
                self.changed(standing.ref)

    def _slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if old is not None:
            held = self._slices.get(old.ref, {})
            held.pop(old.name, None)
            if not held:
                self._slices.pop(old.ref, None)
            self._stale.add(old.ref)
        if new is not None:
            self._slices.setdefault(new.ref, {})[new.name] = new
            self._stale.add(new.ref)
        self._wake.set()

    def _changed_all(self) -> None:
        self._wake.set()
        self._touch_services()
        for ref in self._standing:
            self.changed(ref)
