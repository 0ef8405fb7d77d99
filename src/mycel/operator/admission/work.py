"""Keeps admission going: every operator serves with the certificate of the Secret; the one that leads makes it, and
tells the API server whom to ask. Switched off, both go; and with what the chart owns, whoever takes that away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

from mycel.k8s.client import ApiClient
from mycel.k8s.informer import Informer, Key
from mycel.k8s.resources import CLUSTER_ROLES, SECRETS, SERVICES, VALIDATING_WEBHOOK_CONFIGURATIONS
from mycel.kit.latest import Latest
from mycel.kit.reconcile import Report
from mycel.operator.admission.certificates import Material, read_secret, renewed, secret
from mycel.operator.admission.configuration import configuration, server_names
from mycel.operator.admission.review import KINDS
from mycel.operator.admission.server import AdmissionServer
from mycel.operator.keep import keep
from mycel.operator.owned import Object, Owned, owned_by
from mycel.operator.settings import ADMISSION, ADMISSION_SECRET, OPERATOR_ROLE

_LOOK_AGAIN_S = 3600.0  # for what is about to end


class Admission:
    """`serve` runs on every operator, `lead` on the one that leads. Without a server it is switched off."""

    def __init__(self, client: ApiClient, report: Report, *, namespace: str, server: AdmissionServer | None) -> None:
        self._client = client
        self._report = report
        self._namespace = namespace
        self._server = server
        self._secrets: Informer[Object] = Informer(
            client, SECRETS, namespace=namespace, field_selector=f"metadata.name={ADMISSION_SECRET}"
        )
        # The owners: of the Secret one of its namespace, of the configuration one of none.
        self._services: Informer[Object] = Informer(
            client, SERVICES, namespace=namespace, field_selector=f"metadata.name={ADMISSION}"
        )
        self._roles: Informer[Object] = Informer(client, CLUSTER_ROLES, field_selector=f"metadata.name={OPERATOR_ROLE}")
        self._material: Latest[Material] = Latest()
        self._changed = asyncio.Event()
        self._secrets.subscribe(lambda _key, _old, _new: self._look())
        for each in (self._services, self._roles):
            each.subscribe(lambda _key, _old, _new: self._changed.set())

    async def serve(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._secrets.run(), name="informer of the admission server's Secret")
            if self._server is not None:
                group.create_task(self._server.run(self._material), name="admission server")
                await self._server.serving.wait()
                self._changed.set()

    async def lead(self) -> None:
        """Until cancelled."""
        configurations: Informer[Object] = Informer(
            self._client, VALIDATING_WEBHOOK_CONFIGURATIONS, field_selector=f"metadata.name={ADMISSION}"
        )
        secrets: Latest[Mapping[Key, Object]] = Latest()
        configured: Latest[Mapping[Key, Object]] = Latest()
        async with asyncio.TaskGroup() as group:
            for each in (configurations, self._services, self._roles):
                group.create_task(each.run(), name=f"informer of admission's {each.resource.kind}")
            informers = (configurations, self._services, self._roles, self._secrets)
            await asyncio.gather(*(each.wait_synced() for each in informers))
            for informer, desired in ((self._secrets, secrets), (configurations, configured)):
                keep(group, desired, self._target(informer, desired), self._report, seen_by=informer)
            while True:
                self._changed.clear()
                self._decide(secrets, configured)
                try:
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await self._changed.wait()
                except TimeoutError:
                    pass  # time has passed: something may be about to end

    def _decide(self, secrets: Latest[Mapping[Key, Object]], configured: Latest[Mapping[Key, Object]]) -> None:
        service = self._services.get(ADMISSION, self._namespace)
        role = self._roles.get(OPERATOR_ROLE)
        if self._server is None or service is None or role is None:
            secrets.set({})
            configured.set({})
            return
        held = self._held()
        good = renewed(held, server_names(self._namespace), datetime.now(UTC))
        body = owned_by(secret(self._namespace, good), SERVICES, service)
        secrets.set({Key(self._namespace, ADMISSION_SECRET): body})
        if held is not None and self._server.serving.is_set():
            body = configuration(self._namespace, held.authorities, KINDS)
            configured.set({Key("", ADMISSION): owned_by(body, CLUSTER_ROLES, role)})

    def _held(self) -> Material | None:
        found = self._secrets.get(ADMISSION_SECRET, self._namespace)
        return read_secret(found) if found else None

    def _look(self) -> None:
        if (held := self._held()) is not None:
            self._material.set(held)
        self._changed.set()

    def _target(self, informer: Informer[Object], desired: Latest[Mapping[Key, Object]]) -> Owned:
        return Owned(
            self._client,
            informer.resource,
            f"{informer.resource.kind} of admission",
            desired=lambda: desired.value,
            live=lambda key: informer.get(key.name, key.namespace),
            owned=lambda: list(informer.store),
        )
