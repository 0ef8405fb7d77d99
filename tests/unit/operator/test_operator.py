"""What the operator collects, defines and leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mycel.k8s.client import ApiClient, Endpoint
from mycel.model.workload import EndpointId, Identity, IdentityId, PodRef, PublishedEndpoint
from mycel.operator import crds
from mycel.operator.garbage import Ageing, departed_nodes, orphans, unused_identities
from mycel.operator.leader import Leader

WEB = PublishedEndpoint(PodRef("shop", "web"), EndpointId(1), IdentityId(300), (), (), "")


def test_ageing_needs_an_unbroken_grace() -> None:
    """What was used in between starts anew."""
    ageing = Ageing(10.0)
    assert ageing.due({"a", "b"}, 0.0) == set()
    assert ageing.due({"a"}, 9.0) == set()
    assert ageing.due({"a", "b"}, 10.0) == {"a"}
    assert ageing.due({"b"}, 19.0) == set()
    assert ageing.due({"b"}, 20.0) == {"b"}


def test_identities_nobody_names() -> None:
    """Used ones stay."""
    known = [Identity(IdentityId(300), ("k8s:a=b",)), Identity(IdentityId(301), ("k8s:a=c",))]
    assert set(unused_identities(known, [WEB])) == {301}


def test_endpoints_without_a_running_pod() -> None:
    """Gone and finished pods have none."""
    assert orphans([WEB], {}) == {WEB.ref}
    assert orphans([WEB], {WEB.ref: False}) == {WEB.ref}
    assert orphans([WEB], {WEB.ref: True}) == set()
    assert departed_nodes(["n1", "n2"], ["n1"]) == {"n2"}


def test_definitions_are_well_formed() -> None:
    """Every kind the mesh writes is among them; versions can be compared."""
    names = {each["metadata"]["name"] for each in crds.load()}
    assert {"ciliumendpoints.cilium.io", "ciliumidentities.cilium.io", "ciliumnodes.cilium.io"} <= names
    assert all(crds.schema_version(each) > (0,) for each in crds.load())
    assert crds.schema_version({"metadata": {"labels": {crds.VERSION_LABEL: "1.10.0"}}}) > (1, 9, 0)
    assert crds.schema_version({"metadata": {}}) == (0,)


class Leases:
    """One Lease with optimistic concurrency."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0

    def app(self) -> web.Application:
        app = web.Application()
        base = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
        app.add_routes([web.get(f"{base}/l", self.get), web.put(f"{base}/l", self.put), web.post(base, self.post)])
        return app

    async def get(self, _request: web.Request) -> web.Response:
        if self.lease is None:
            return web.json_response({"reason": "NotFound"}, status=404)
        return web.json_response(self.lease)

    async def put(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["metadata"]["resourceVersion"] != str(self.version):
            return web.json_response({"reason": "Conflict"}, status=409)
        return self._store(body)

    async def post(self, request: web.Request) -> web.Response:
        if self.lease is not None:
            return web.json_response({"reason": "AlreadyExists"}, status=409)
        return self._store(await request.json())

    def _store(self, body: dict[str, Any]) -> web.Response:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.lease = body
        return web.json_response(body)


@pytest.fixture
async def leases() -> AsyncIterator[tuple[Leases, ApiClient]]:
    fake = Leases()
    async with TestServer(fake.app()) as server, ApiClient(Endpoint(server=str(server.make_url("")))) as client:
        yield fake, client


async def test_one_leads_and_hands_over(leases: tuple[Leases, ApiClient]) -> None:
    """The second waits until the first lets go; the transition is counted."""
    fake, client = leases
    working: list[str] = []
    changed = asyncio.Event()

    def candidate(name: str) -> tuple[Leader, asyncio.Task[None]]:
        async def work() -> None:
            working.append(name)
            changed.set()
            await asyncio.Event().wait()

        leader = Leader(client, namespace="ns", name="l", identity=name, lease_s=60.0, renew_s=0.02)
        return leader, asyncio.create_task(leader.run(work))

    async with asyncio.timeout(120):
        first, first_task = candidate("one")
        await changed.wait()
        changed.clear()
        second, second_task = candidate("two")
        await asyncio.sleep(0.1)
        assert working == ["one"]
        assert first.leading and not second.leading
        first_task.cancel()
        await asyncio.gather(first_task, return_exceptions=True)
        await first.release()
        await changed.wait()
    assert working == ["one", "two"]
    assert fake.lease is not None
    assert (fake.lease["spec"]["holderIdentity"], fake.lease["spec"]["leaseTransitions"]) == ("two", 1)
    second_task.cancel()
    await asyncio.gather(second_task, return_exceptions=True)
