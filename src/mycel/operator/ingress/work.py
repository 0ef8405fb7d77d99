"""Watches Ingresses, their classes and services; writes Services, CiliumEnvoyConfigs, statuses and events."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from mycel.k8s.client import ApiClient
from mycel.k8s.informer import Codec, Informer, Key
from mycel.k8s.resources import CILIUM_ENVOY_CONFIGS, INGRESS_CLASSES, INGRESSES, SERVICES, Resource
from mycel.kit.latest import Latest
from mycel.kit.reconcile import Report
from mycel.operator.ingress.model import (
    Ingress,
    IngressClass,
    ServicePorts,
    is_ours,
    parse_class,
    parse_ingress,
    service_ports,
)
from mycel.operator.ingress.owned import made_here, others, owner
from mycel.operator.ingress.telling import Addresses, Statuses, Warnings, plain
from mycel.operator.ingress.translate import Problem, Translation, service_name, translate
from mycel.operator.keep import keep
from mycel.operator.owned import Object, Owned, with_digest

_GATHER_S = 0.02


class ServiceItem(NamedTuple):
    """A service: its ports for all, the whole of it where it belongs to an Ingress or could be taken for one's."""

    ports: ServicePorts
    whole: Object | None
    addresses: Addresses


def parse_service(item: Object) -> ServiceItem:
    """v1 Service."""
    named = item["metadata"]["name"].startswith("cilium-ingress-")
    ingress = ((item.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return ServiceItem(service_ports(item.get("spec") or {}), item if named or owner(item) else None, plain(ingress))


_INGRESSES: Codec[Ingress] = Codec(dict[str, Any], parse_ingress)
_CLASSES: Codec[IngressClass] = Codec(dict[str, Any], parse_class)
_SERVICES: Codec[ServiceItem] = Codec(dict[str, Any], parse_service)


class Ingresses:
    """Serves Ingresses of class cilium, for as long as it leads."""

    def __init__(self, client: ApiClient, report: Report, *, force_https: bool) -> None:
        self._client = client
        self._report = report
        self._force_https = force_https
        self._ingresses = Informer(client, INGRESSES, _INGRESSES)
        self._classes = Informer(client, INGRESS_CLASSES, _CLASSES)
        self._services = Informer(client, SERVICES, _SERVICES)
        self._configs = Informer(client, CILIUM_ENVOY_CONFIGS)
        self._wanted: Latest[Mapping[Key, Object]] = Latest()  # services
        self._configured: Latest[Mapping[Key, Object]] = Latest()
        self._addresses: Latest[Mapping[Key, Addresses]] = Latest()
        self._warnings = Warnings(client)
        self._given: dict[str, Addresses] = {}  # by the Ingress's uid

    async def run(self) -> None:
        """Until cancelled; once."""
        informers = (self._ingresses, self._classes, self._services, self._configs)
        changed = asyncio.Event()
        for informer in (self._ingresses, self._classes, self._services):
            informer.subscribe(lambda _key, _old, _new: changed.set())
        async with asyncio.TaskGroup() as group:
            for informer in informers:
                group.create_task(informer.run(), name=f"informer {informer.resource}")
            await asyncio.gather(*(informer.wait_synced() for informer in informers))
            keep(group, self._wanted, self._service_target(), self._report, seen_by=self._services)
            keep(group, self._configured, self._config_target(), self._report, seen_by=self._configs)
            statuses = Statuses(self._client, self._ingresses)
            keep(group, self._addresses, statuses, self._report, seen_by=self._ingresses)
            while True:
                changed.clear()
                await self._serve()
                await changed.wait()
                await asyncio.sleep(_GATHER_S)

    async def _serve(self) -> None:
        """Find out what every Ingress becomes."""
        classes = {each.name: each for each in self._classes.store.values()}
        services: dict[str, dict[str, ServicePorts]] = {}
        for key, item in self._services.store.items():
            services.setdefault(key.namespace, {})[key.name] = item.ports
        made = {
            key: (ingress, self._translate(ingress, services.get(key.namespace, {})))
            for key, ingress in self._ingresses.store.items()
            if is_ours(ingress, classes)
        }
        found = [translation for _, translation in made.values()]
        self._wanted.set(_by_key(each.service for each in found))
        self._configured.set(_by_key(body for each in found for body in (each.config, each.secure)))
        addresses = {key: self._addresses_of(*each) for key, each in made.items()}
        left = self._left(made.keys())
        self._given = {self._ingresses.store[key].uid: given for key, given in (addresses | left).items() if given}
        self._addresses.set(addresses | dict.fromkeys(left, ()))
        await self._warnings.tell((ingress, translation.problems) for ingress, translation in made.values())

    def _translate(self, ingress: Ingress, services: Mapping[str, ServicePorts]) -> Translation:
        made = translate(ingress, services, force_https=self._force_https)
        live = self._services.get(service_name(ingress), ingress.namespace)
        if made.service is None or live is None or live.whole is None or owner(live.whole) == ingress.uid:
            return made
        text = f"service {ingress.namespace}/{service_name(ingress)} is there and is somebody else's: nobody answers"
        return Translation(None, None, None, (*made.problems, Problem("NameTaken", text)))

    def _addresses_of(self, ingress: Ingress, made: Translation) -> Addresses:
        live = self._services.get(service_name(ingress), ingress.namespace)
        return live.addresses if live is not None and made.service is not None else ()

    def _left(self, served: Collection[Key]) -> dict[Key, Addresses]:
        """Ingresses that are of another class now and still show the address they had here: it is no longer theirs."""
        return {
            key: given
            for key, ingress in self._ingresses.store.items()
            if key not in served and (given := self._given.get(ingress.uid) or self._of_service(ingress))
            if plain(ingress.addresses) == given
        }

    def _of_service(self, ingress: Ingress) -> Addresses:
        """What a service that was made of the Ingress has: that of an earlier leader, too."""
        live = self._services.get(service_name(ingress), ingress.namespace)
        whole = live.whole if live else None
        return live.addresses if live and whole and made_here(whole) and owner(whole) == ingress.uid else ()

    def _service_target(self) -> Owned:
        store = self._services.store

        def live(key: Key) -> Object | None:
            item = store.get(key)
            return item.whole if item else None

        def owned() -> list[Key]:
            return [key for key, item in store.items() if item.whole and made_here(item.whole)]

        return self._owned(SERVICES, self._wanted, live=live, owned=owned)

    def _config_target(self) -> Owned:
        store = self._configs.store

        def owned() -> list[Key]:
            return [key for key, item in store.items() if made_here(item)]

        return self._owned(CILIUM_ENVOY_CONFIGS, self._configured, live=store.get, owned=owned)

    def _owned(self, resource: Resource, desired: Latest[Mapping[Key, Object]], **seen: Any) -> Owned:
        name = f"{resource.kind}s of Ingresses"
        return Owned(self._client, resource, name, desired=lambda: desired.value, theirs=others, **seen)


def _by_key(bodies: Iterable[Object | None]) -> dict[Key, Object]:
    metadata = ((body["metadata"], body) for body in bodies if body is not None)
    return {Key(each["namespace"], each["name"]): with_digest(body) for each, body in metadata}
