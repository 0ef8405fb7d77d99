"""Exec over WebSocket against a server that speaks the channel protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mycel.k8s import exec as exec_
from mycel.k8s.client import ApiClient, Endpoint
from mycel.k8s.errors import ApiError, NotFound, Unavailable

SUCCESS = b'\x03{"metadata":{},"status":"Success"}'
EXIT_3 = (
    b"\x03"
    + json.dumps(
        {
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
        }
    ).encode()
)


async def _shell(request: web.Request) -> web.StreamResponse:
    """`cat` echoes stdin, `fail` exits 3, `cut` breaks the line; pod `none` does not exist."""
    if request.match_info["pod"] == "none":
        return web.json_response({"message": 'pods "none" not found', "reason": "NotFound"}, status=404)
    socket = web.WebSocketResponse(protocols=exec_.PROTOCOLS)
    await socket.prepare(request)
    match request.query.getall("command"):
        case ["cat"]:
            async for message in socket:
                if message.data == b"\xff\x00":
                    break
                await socket.send_bytes(b"\x01" + message.data[1:])
            await socket.send_bytes(b"\x02" + request.query["container"].encode())
            await socket.send_bytes(SUCCESS)
        case ["fail", "now"]:
            await socket.send_bytes(EXIT_3)
        case _:
            await socket.send_bytes(b"\x01half")
    await socket.close()
    return socket


@pytest.fixture
async def client() -> AsyncIterator[ApiClient]:
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/ns/pods/{pod}/exec", _shell)
    async with TestServer(app) as server, ApiClient(Endpoint(server=str(server.make_url("")))) as client:
        yield client


async def test_input_output_and_success(client: ApiClient) -> None:
    """Both outputs are kept apart and the end of input is told."""
    result = await exec_.run(client, ["cat"], namespace="ns", pod="p", container="c", stdin=b"hello")
    assert result == exec_.ExecResult(0, b"hello", b"c")


async def test_exit_code(client: ApiClient) -> None:
    """A failing command is a result, not an exception."""
    result = await exec_.run(client, ["fail", "now"], namespace="ns", pod="p")
    assert result.exit_code == 3


async def test_broken_line(client: ApiClient) -> None:
    """A connection that ends without a status is a failure."""
    with pytest.raises(Unavailable, match="before the command did"):
        await exec_.run(client, ["cut"], namespace="ns", pod="p")


async def test_no_such_pod(client: ApiClient) -> None:
    """The API server's own words reach the caller."""
    with pytest.raises(NotFound, match='pods "none" not found'):
        await exec_.run(client, ["cat"], namespace="ns", pod="none")


def test_a_command_that_cannot_start() -> None:
    """A failure without an exit code is an error with the server's message."""
    with pytest.raises(ApiError, match="no such file"):
        exec_.exit_code(b'{"status":"Failure","reason":"InternalError","message":"no such file"}')
