"""What people are told of their Ingresses: `status.loadBalancer`, and events about what is wrong."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, NotFound
from mycel.k8s.informer import Informer, Key
from mycel.k8s.resources import EVENTS, INGRESSES
from mycel.kit.reconcile import Diff, TargetError
from mycel.operator.ingress.model import Ingress
from mycel.operator.ingress.translate import Problem

log = logging.getLogger(__name__)
Addresses = tuple[tuple[str, str], ...]
"""(ip, hostname) of each address of a load balancer."""


def plain(ingress: Iterable[Mapping[str, Any]]) -> Addresses:
    """The addresses of a `status.loadBalancer.ingress`."""
    return tuple((each.get("ip", ""), each.get("hostname", "")) for each in ingress)


class Statuses:
    """`status.loadBalancer` of Ingresses, as a target."""

    name = "statuses of Ingresses"

    def __init__(self, client: ApiClient, ingresses: Informer[Ingress]) -> None:
        self._client = client
        self._ingresses = ingresses

    async def read(self, *, fresh: bool) -> Mapping[Key, Addresses]:
        """What is said."""
        return {key: plain(each.addresses) for key, each in self._ingresses.store.items()}

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


class Warnings:
    """Events about problems: each once, and again when it was gone in between."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._told: Mapping[str, frozenset[Problem]] = {}

    async def tell(self, problems: Iterable[tuple[Ingress, tuple[Problem, ...]]]) -> None:
        """Write what was not told yet. `problems`: of every Ingress."""
        told, now = self._told, list(problems)
        self._told = {ingress.uid: frozenset(found) for ingress, found in now if found}
        for ingress, found in now:
            for problem in found:
                if problem not in told.get(ingress.uid, frozenset()):
                    await self._write(ingress, problem)

    async def _write(self, ingress: Ingress, problem: Problem) -> None:
        log.warning("ingress %s/%s: %s", ingress.namespace, ingress.name, problem.message)
        try:
            await self._client.create(EVENTS, event(ingress, problem), namespace=ingress.namespace)
        except ApiError as exc:
            log.info("the event about ingress %s/%s is not written: %s", ingress.namespace, ingress.name, exc)


def event(ingress: Ingress, problem: Problem) -> dict[str, Any]:
    """A v1 Event about an Ingress."""
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
