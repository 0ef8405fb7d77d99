"""Watches Ingresses, their classes and services; writes Services, CiliumEnvoyConfigs, statuses and events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.informer import Codec, Informer, Key
from mycel.k8s.resources import CILIUM_ENVOY_CONFIGS, EVENTS, INGRESS_CLASSES, INGRESSES, SERVICES
from mycel.kit.latest import Latest
from mycel.kit.reconcile import Diff, Report, TargetError
from mycel.operator.ingress.model import (
    Ingress,
    IngressClass,
    ServicePorts,
    is_ours,
    parse_class,
    parse_ingress,
    service_ports,
)
from mycel.operator.ingress.owned import Object, Owned, owner, with_digest
from mycel.operator.ingress.translate import Problem, service_name, translate
from mycel.operator.keep import keep

log = logging.getLogger(__name__)
_GATHER_S = 0.02
_MOST_TOLD = 10_000
Addresses = tuple[tuple[str, str], ...]
"""(ip, hostname) of each address of a load balancer."""


class ServiceItem(NamedTuple):
    """A service: its ports for all, the whole of it where it belongs to an Ingress or could be taken for one's."""

    ports: ServicePorts
    whole: Object | None
    addresses: Addresses


def _service(item: Object) -> ServiceItem:
    named = item["metadata"]["name"].startswith("cilium-ingress-")
    ingress = ((item.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return ServiceItem(service_ports(item.get("spec") or {}), item if named or owner(item) else None, _plain(ingress))


def _plain(ingress: Any) -> Addresses:
    return tuple((each.get("ip", ""), each.get("hostname", "")) for each in ingress)


_INGRESSES: Codec[Ingress] = Codec(dict[str, Any], parse_ingress)
_CLASSES: Codec[IngressClass] = Codec(dict[str, Any], parse_class)
_SERVICES: Codec[ServiceItem] = Codec(dict[str, Any], _service)


class Ingresses:
    """Serves Ingresses of class cilium, for as long as it leads."""

    def __init__(self, client: ApiClient, report: Report, *, force_https: bool) -> None:
        self._client = client
        self._report = report
        self._force_https = force_https
        self._told: dict[tuple[str, Problem], None] = {}

    async def run(self) -> None:
        """Until cancelled."""
        self._ingresses = Informer(self._client, INGRESSES, _INGRESSES)
        self._classes = Informer(self._client, INGRESS_CLASSES, _CLASSES)
        self._services = Informer(self._client, SERVICES, _SERVICES)
        self._configs = Informer(self._client, CILIUM_ENVOY_CONFIGS)
        informers = (self._ingresses, self._classes, self._services, self._configs)
        changed = asyncio.Event()
        for informer in (self._ingresses, self._classes, self._services):
            informer.subscribe(lambda _key, _old, _new: changed.set())
        services: Latest[Mapping[Key, Object]] = Latest()
        configs: Latest[Mapping[Key, Object]] = Latest()
        addresses: Latest[Mapping[Key, Addresses]] = Latest()
        async with asyncio.TaskGroup() as group:
            for informer in informers:
                group.create_task(informer.run(), name=f"informer {informer.resource}")
            await asyncio.gather(*(informer.wait_synced() for informer in informers))
            keep(group, services, self._service_target(services), self._report, seen_by=self._services)
            keep(group, configs, self._config_target(configs), self._report, seen_by=self._configs)
            statuses = _Statuses(self._client, self._ingresses)
            keep(group, addresses, statuses, self._report, seen_by=self._ingresses)
            while True:
                changed.clear()
                await self._translate(services, configs, addresses)
                await changed.wait()
                await asyncio.sleep(_GATHER_S)

    async def _translate(
        self,
        services: Latest[Mapping[Key, Object]],
        configs: Latest[Mapping[Key, Object]],
        addresses: Latest[Mapping[Key, Addresses]],
    ) -> None:
        classes = {each.name: each for each in self._classes.store.values()}
        wanted: dict[Key, Object] = {}
        configured: dict[Key, Object] = {}
        statuses: dict[Key, Addresses] = {}
        by_namespace: dict[str, dict[str, ServicePorts]] = {}
        for key, item in self._services.store.items():
            by_namespace.setdefault(key.namespace, {})[key.name] = item.ports
        for key, ingress in self._ingresses.store.items():
            if not is_ours(ingress, classes):
                continue
            made = translate(ingress, by_namespace.get(key.namespace, {}), force_https=self._force_https)
            for body, among in ((made.service, wanted), (made.config, configured), (made.secure, configured)):
                if body is not None:
                    among[Key(key.namespace, body["metadata"]["name"])] = with_digest(body)
            live = self._services.get(service_name(ingress), key.namespace)
            statuses[key] = live.addresses if live is not None and made.service is not None else ()
            for problem in made.problems:
                await self._tell(ingress, problem)
        services.set(wanted)
        configs.set(configured)
        addresses.set(statuses)

    def _service_target(self, desired: Latest[Mapping[Key, Object]]) -> Owned:
        store = self._services.store

        def live(key: Key) -> Object | None:
            item = store.get(key)
            return item.whole if item else None

        return Owned(
            self._client,
            SERVICES,
            desired=lambda: desired.value,
            live=live,
            owned=lambda: [key for key, item in store.items() if item.whole and owner(item.whole)],
        )

    def _config_target(self, desired: Latest[Mapping[Key, Object]]) -> Owned:
        store = self._configs.store
        return Owned(
            self._client,
            CILIUM_ENVOY_CONFIGS,
            desired=lambda: desired.value,
            live=store.get,
            owned=lambda: [key for key, item in store.items() if owner(item)],
        )

    async def _tell(self, ingress: Ingress, problem: Problem) -> None:
        """Write a Warning, once for each Ingress and problem."""
        if (ingress.uid, problem) in self._told:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told[ingress.uid, problem] = None
        log.warning("ingress %s/%s: %s", ingress.namespace, ingress.name, problem.message)
        try:
            await self._client.create(EVENTS, _event(ingress, problem), namespace=ingress.namespace)
        except ApiError as exc:
            log.info("the event about ingress %s/%s is not written: %s", ingress.namespace, ingress.name, exc)


class _Statuses:
    """`status.loadBalancer` of Ingresses."""

    name = "statuses of Ingresses"

    def __init__(self, client: ApiClient, ingresses: Informer[Ingress]) -> None:
        self._client = client
        self._ingresses = ingresses

    async def read(self, *, fresh: bool) -> Mapping[Key, Addresses]:
        """What is said."""
        return {key: _plain(each.addresses) for key, each in self._ingresses.store.items()}

    async def apply(self, change: Diff[Key, Addresses]) -> None:
        """Patch the statuses; those of other classes are left alone. Raises TargetError."""
        for key, addresses in change.upserts.items():
            said = [{name: text for name, text in (("ip", ip), ("hostname", host)) if text} for ip, host in addresses]
            body = {"status": {"loadBalancer": {"ingress": said or None}}}
            try:
                await self._client.patch(INGRESSES, key.name, body, namespace=key.namespace, subresource="status")
            except NotFound:
                continue
            except ApiError as exc:
                raise TargetError(f"ingress {key.namespace}/{key.name}: {exc}") from exc


def _event(ingress: Ingress, problem: Problem) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"name": f"{ingress.name}.{time.time_ns():x}", "namespace": ingress.namespace},
        "involvedObject": {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "namespace": ingress.namespace,
            "name": ingress.name,
            "uid": ingress.uid,
        },
        "type": "Warning",
        "reason": problem.reason,
        "message": problem.message,
        "source": {"component": "cilium-operator"},
        "reportingComponent": "cilium-operator",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
