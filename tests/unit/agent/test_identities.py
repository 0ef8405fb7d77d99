"""Identities are found, created once, and settled by the API server when agents race."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mycel.agent.identities import Identities
from mycel.identity.numbering import candidates
from mycel.k8s import parse
from mycel.k8s.client import ApiClient, Endpoint
from mycel.k8s.informer import Informer
from mycel.k8s.resources import CILIUM_IDENTITIES
from mycel.model.workload import IdentityId

WEB = ("k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop")
FIRST, SECOND = (number for _, number in zip(range(2), candidates(WEB, {}), strict=False))


class Store:
    """CiliumIdentities by name; creating is compare-and-swap."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.posts = 0

    def app(self) -> web.Application:
        app = web.Application()
        path = CILIUM_IDENTITIES.path()
        app.add_routes([web.post(path, self.post), web.get(path + "/{name}", self.get)])
        return app

    async def post(self, request: web.Request) -> web.Response:
        self.posts += 1
        body = await request.json()
        if body["metadata"]["name"] in self.objects:
            return web.json_response({"reason": "AlreadyExists"}, status=409)
        self.objects[body["metadata"]["name"]] = body
        return web.json_response(body)

    async def get(self, request: web.Request) -> web.Response:
        found = self.objects.get(request.match_info["name"])
        return web.json_response(found) if found else web.json_response({"reason": "NotFound"}, status=404)


@pytest.fixture
async def setting() -> AsyncIterator[tuple[Store, ApiClient]]:
    store = Store()
    async with TestServer(store.app()) as server, ApiClient(Endpoint(server=str(server.make_url("")))) as client:
        yield store, client


def agent(client: ApiClient) -> Identities:
    """An agent whose informer has not seen anything yet."""
    return Identities(client, Informer(client, CILIUM_IDENTITIES, parse.IDENTITIES_CODEC))


async def test_many_pods_of_one_template_make_one_object(setting: tuple[Store, ApiClient]) -> None:
    """Asked at once, created once."""
    store, client = setting
    identities = agent(client)
    assert set(await asyncio.gather(*(identities.resolve(WEB) for _ in range(20)))) == {FIRST}
    assert store.posts == 1
    assert store.objects[str(FIRST)]["security-labels"] == {
        "k8s:app": "web",
        "k8s:io.kubernetes.pod.namespace": "shop",
    }
    assert identities.labels(FIRST) == WEB


async def test_agents_that_race_agree(setting: tuple[Store, ApiClient]) -> None:
    """Each creates; one wins; the others adopt its object."""
    store, client = setting
    numbers = await asyncio.gather(*(agent(client).resolve(WEB) for _ in range(5)))
    assert set(numbers) == {FIRST}
    assert list(store.objects) == [str(FIRST)]


async def test_a_number_of_other_labels_is_passed_over(setting: tuple[Store, ApiClient]) -> None:
    """Never reused while its object exists."""
    store, client = setting
    store.objects[str(FIRST)] = {"metadata": {"name": str(FIRST)}, "security-labels": {"k8s:app": "other"}}
    assert await agent(client).resolve(WEB) == SECOND


async def test_restore_keeps_the_number_when_it_can(setting: tuple[Store, ApiClient]) -> None:
    """Deleted objects come back under their number, unless it means something else by now."""
    store, client = setting
    number = IdentityId(4000)
    assert await agent(client).restore(number, WEB) == number
    assert str(number) in store.objects
    store.objects = {"4000": {"metadata": {"name": "4000"}, "security-labels": {"k8s:app": "other"}}}
    assert await agent(client).restore(number, WEB) == FIRST
