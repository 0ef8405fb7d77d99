"""Credentials and errors of the client."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mycel.k8s.client import ApiClient, ConfigError, Endpoint, Patch
from mycel.k8s.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Unauthorized,
    Unavailable,
)
from mycel.k8s.resources import CILIUM_NODES, NODES, PODS


def kubeconfig(path: Path, name: str, *, server: str = "https://10.0.0.1:6443", **user: Any) -> Path:
    """A kubeconfig with one context."""
    path.write_text(
        json.dumps(
            {
                "current-context": name,
                "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "shop"}}],
                "clusters": [{"name": name, "cluster": {"server": server}}],
                "users": [{"name": name, "user": user}],
            }
        )
    )
    return path


def test_kubeconfig(tmp_path: Path) -> None:
    """Data and files, relative to the kubeconfig."""
    (tmp_path / "key.pem").write_text("KEY")
    certificate = base64.b64encode(b"CERT").decode()
    path = kubeconfig(tmp_path / "config", "a", **{"client-certificate-data": certificate, "client-key": "key.pem"})
    found = Endpoint.from_kubeconfig(path)
    assert (found.server, found.namespace, found.context) == ("https://10.0.0.1:6443", "shop", "a")
    assert (found.certificate_pem, found.key_pem) == ("CERT", "KEY")
    assert "CERT" not in repr(found) and "KEY" not in repr(found)


def test_several_files_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first current-context wins; a named context may be in any."""
    paths = [kubeconfig(tmp_path / name, name, token=name) for name in ("a", "b")]
    monkeypatch.setenv("KUBECONFIG", ":".join(map(str, [tmp_path / "missing", *paths])))
    assert Endpoint.from_kubeconfig().token == "a"
    assert Endpoint.from_kubeconfig(context="b").token == "b"
    with pytest.raises(ConfigError, match=r"context c is not in .*\(there is: a, b\)"):
        Endpoint.from_kubeconfig(context="c")


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "cannot read"), ("{}", "no current-context"), ("a: &a [*a]", "no current-context|cannot read")],
)
def test_unusable_kubeconfigs_are_named(tmp_path: Path, text: str, says: str) -> None:
    """With the file, never a traceback."""
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        Endpoint.from_kubeconfig(path)
    with pytest.raises(ConfigError, match="no kubeconfig at"):
        Endpoint.from_kubeconfig(tmp_path / "missing")


def test_paths() -> None:
    """Core and named groups, both scopes, subresources."""
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("ns", "p", subresource="exec") == "/api/v1/namespaces/ns/pods/p/exec"
    assert NODES.path(name="n", subresource="status") == "/api/v1/nodes/n/status"
    assert CILIUM_NODES.path("ignored", "n") == "/apis/cilium.io/v2/ciliumnodes/n"
    with pytest.raises(ValueError, match="namespace is missing"):
        PODS.path(name="p")


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Unavailable),
        (503, "", Unavailable),
        (418, "", ApiError),
    ],
)
async def test_errors(status: int, reason: str, error: type[ApiError]) -> None:
    """Each status is one exception, with the server's own words."""

    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "reason": reason, "message": "no, because"}, status=status)

    app = web.Application()
    app.router.add_get("/{tail:.*}", refuse)
    async with TestServer(app) as server, ApiClient(Endpoint(server=str(server.make_url("")))) as client:
        with pytest.raises(error, match="no, because") as caught:
            await client.get(NODES, "n")
        assert type(caught.value) is error


async def test_nobody_listens() -> None:
    """A refused connection is Unavailable, as an API server that restarts."""
    async with ApiClient(Endpoint(server="http://127.0.0.1:1")) as client:
        with pytest.raises(Unavailable, match="GET /api/v1/nodes/n"):
            await client.get(NODES, "n")


async def test_what_is_sent(tmp_path: Path) -> None:
    """Types of patches, a token read anew after 401, apiVersion and kind filled in."""
    token = tmp_path / "token"
    token.write_text("one")
    seen: list[tuple[str, str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        kind = request.headers.get("Content-Type", "")
        seen.append((request.method, kind, request.headers["Authorization"]))
        if request.headers["Authorization"] != "Bearer two":
            token.write_text("two")
            return web.json_response({}, status=401)
        return web.json_response(await request.json())

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    async with (
        TestServer(app) as server,
        ApiClient(Endpoint(server=str(server.make_url("")), token_file=token)) as client,
    ):
        with pytest.raises(Unauthorized):
            await client.patch(NODES, "n", {})
        assert await client.patch(NODES, "n", {"a": 1}, kind=Patch.STRATEGIC) == {"a": 1}
        created = await client.create(PODS, {"metadata": {"name": "p", "namespace": "ns"}})
        assert (created["apiVersion"], created["kind"]) == ("v1", "Pod")
    assert seen == [
        ("PATCH", "application/merge-patch+json", "Bearer one"),
        ("PATCH", "application/strategic-merge-patch+json", "Bearer two"),
        ("POST", "application/json", "Bearer two"),
    ]
