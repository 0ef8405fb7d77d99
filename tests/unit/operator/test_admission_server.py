"""The admission server itself: real TLS on loopback."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from mycel.kit.config import SettingsError
from mycel.kit.latest import Latest
from mycel.operator.admission.certificates import Material, renewed
from mycel.operator.admission.review import Mesh
from mycel.operator.admission.server import AdmissionServer
from mycel.operator.settings import Listen, parse_settings

NAMES = ("cilium-admission.kube-system.svc",)
BROKEN = {
    "kind": "CiliumCIDRGroup",
    "metadata": {"name": "one", "uid": "1"},
    "spec": {"externalCIDRs": ["10.0.0.0/40"]},
}


def material() -> Material:
    return renewed(None, NAMES, datetime.now(UTC))


@asynccontextmanager
async def serving(held: Latest[Material], port: int = 0) -> AsyncIterator[AdmissionServer]:
    server = AdmissionServer("127.0.0.1", port, Mesh())
    task = asyncio.create_task(server.run(held))
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def post(server: AdmissionServer, trusted: Material, body: bytes) -> tuple[int, bytes]:
    """As an API server does."""
    context = ssl.create_default_context(cadata=trusted.authorities.decode())
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://127.0.0.1:{server.port}/validate", data=io.BytesIO(body), ssl=context, server_hostname=NAMES[0]
        ) as answer,
    ):
        return answer.status, await answer.read()


def review(new: Any, old: Any = None) -> bytes:
    return json.dumps({"kind": "AdmissionReview", "request": {"uid": "7", "object": new, "oldObject": old}}).encode()


async def test_reviews_are_answered() -> None:
    """With the object and the field; what goes, and what is not new, passes."""
    held = Latest(material())
    async with serving(held) as server:
        await server.serving.wait()
        status, body = await post(server, held.value, review(BROKEN))
        response = json.loads(body)["response"]
        assert (status, response["uid"], response["allowed"]) == (200, "7", False)
        assert (response["status"]["code"], response["status"]["reason"]) == (422, "Invalid")
        assert response["status"]["message"].startswith("CiliumCIDRGroup one: spec.externalCIDRs[0]: ")
        details = response["status"]["details"]
        assert (details["kind"], details["name"]) == ("CiliumCIDRGroup", "one")
        assert [each["field"] for each in details["causes"]] == ["spec.externalCIDRs[0]"]
        for new, old in ((None, BROKEN), (BROKEN, BROKEN)):
            status, body = await post(server, held.value, review(new, old))
            assert json.loads(body)["response"] == {"uid": "7", "allowed": True}
        assert server.metrics().splitlines() == [
            'cilium_operator_admission_reviews_total{verdict="allowed"} 2',
            'cilium_operator_admission_reviews_total{verdict="refused"} 1',
        ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"request": {"uid": "7", "object": [1]}}', 400),
        (b" " * (9 << 20), 413),
    ],
)
async def test_what_is_no_review_is_refused(body: bytes, status: int) -> None:
    """And nothing else happens."""
    held = Latest(material())
    async with serving(held) as server:
        await server.serving.wait()
        assert (await post(server, held.value, body))[0] == status
        assert (await post(server, held.value, review(None)))[0] == 200


async def test_who_sends_slowly_is_given_up_and_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than there is room for."""
    monkeypatch.setattr("mycel.operator.admission.server._BODY_S", 1.0)
    held = Latest(material())

    async def dawdle() -> bytes:
        context = ssl.create_default_context(cadata=held.value.authorities.decode())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname=NAMES[0])
        writer.write(b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        try:
            return await reader.readline()
        finally:
            writer.close()

    async with serving(held) as server:
        await server.serving.wait()
        slow = [asyncio.create_task(dawdle()) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert (await post(server, held.value, review(None)))[0] == 200
        assert {line.split()[1] for line in await asyncio.gather(*slow)} == {b"408"}


async def test_the_certificate_changes_while_it_serves() -> None:
    """And whoever does not trust the new one is not answered."""
    first, second = material(), material()
    held = Latest(first)
    async with serving(held) as server:
        await server.serving.wait()
        held.set(second)
        async with asyncio.timeout(60):
            while True:
                try:
                    assert (await post(server, second, review(None)))[0] == 200
                    break
                except aiohttp.ClientConnectorCertificateError:
                    await asyncio.sleep(0.01)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await post(server, first, review(None))


async def test_a_port_that_is_taken_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator has other things to do."""
    monkeypatch.setattr("mycel.operator.admission.server._PORT_TAKEN_S", 0.01)
    held = Latest(material())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with serving(held, taken.getsockname()[1]) as server:
            await asyncio.sleep(0.1)
            assert not server.serving.is_set()
            taken.close()
            async with asyncio.timeout(60):
                await server.serving.wait()
            assert (await post(server, held.value, review(None)))[0] == 200


def test_where_it_listens() -> None:
    """On the node's address; without one it cannot be switched on."""
    on = {"enable-admission": "true"}
    assert parse_settings({}, {}).admission is None
    assert parse_settings(on, {"K8S_NODE_IP": "172.18.0.2"}).admission == Listen("172.18.0.2", 9443)
    with pytest.raises(SettingsError, match="K8S_NODE_IP"):
        parse_settings(on, {})
    with pytest.raises(SettingsError, match="admission-port"):
        parse_settings(on | {"admission-port": "x"}, {"K8S_NODE_IP": "172.18.0.2"})
