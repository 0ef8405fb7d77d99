"""Commands in containers, over WebSocket: what kubectl exec does, for our own programs.

The API server speaks `v5.channel.k8s.io` (or v4): binary messages, the first byte names the channel: 0 stdin,
1 stdout, 2 stderr, 3 the final metav1.Status, 255 (v5) closes the channel named by the next byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple
from urllib.parse import urlencode

import aiohttp
import msgspec

from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, Unavailable, from_status
from mycel.k8s.resources import PODS

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_MESSAGE_LIMIT = 16 << 20


class Channel(IntEnum):
    """The first byte of a message."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    STATUS = 3
    RESIZE = 4
    CLOSE = 255


class Output(NamedTuple):
    """A piece of what the command wrote."""

    channel: Channel
    data: bytes


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class _Cause(msgspec.Struct, gc=False, frozen=True):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct, gc=False, frozen=True):
    causes: list[_Cause] | None = None


class _ExecStatus(msgspec.Struct, gc=False, frozen=True):
    status: str = ""
    message: str = ""
    reason: str = ""
    details: _Details | None = None


def exit_code(status: bytes) -> int:
    """The exit code a final Status tells. Raises ApiError when the command could not run at all."""
    try:
        said = msgspec.json.decode(status, type=_ExecStatus)
    except msgspec.MsgspecError as exc:
        raise ApiError(0, "", f"the exec status cannot be read: {exc}") from exc
    if said.status == "Success":
        return 0
    for cause in (said.details.causes if said.details else None) or []:
        if cause.reason == "ExitCode":
            return int(cause.message)
    raise ApiError(0, said.reason, said.message or "the command could not be started")


class ExecSession:
    """A running command: write to it, read what it writes, then ask for `exit_code`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._status: bytes | None = None

    async def write(self, data: bytes) -> None:
        """Send bytes to stdin."""
        await self._socket.send_bytes(bytes([Channel.STDIN]) + data)

    async def close_stdin(self) -> None:
        """End of input; with v4, which cannot say it, nothing happens."""
        if self._socket.protocol == PROTOCOLS[0]:
            await self._socket.send_bytes(bytes([Channel.CLOSE, Channel.STDIN]))

    async def resize(self, width: int, height: int) -> None:
        """Tell the size of the terminal in characters."""
        await self._socket.send_bytes(bytes([Channel.RESIZE]) + msgspec.json.encode({"Width": width, "Height": height}))

    async def read(self) -> Output | None:
        """The next piece of output; None when the command has ended.

        Raises Unavailable when the line broke.
        """
        while True:
            message = await self._socket.receive()
            if message.type == aiohttp.WSMsgType.BINARY:
                data: bytes = message.data
                match data[0] if data else None:
                    case Channel.STDOUT | Channel.STDERR as channel:
                        if len(data) > 1:
                            return Output(Channel(channel), data[1:])
                    case Channel.STATUS:
                        self._status = data[1:]
                        return None
                    case _:
                        pass
            elif message.type != aiohttp.WSMsgType.TEXT:
                raise Unavailable(0, "", "the exec connection ended before the command did")

    def exit_code(self) -> int:
        """How the command ended; only after `read` answered None. Raises ApiError when it could not run."""
        if self._status is None:
            raise RuntimeError("the command has not ended")
        return exit_code(self._status)


@asynccontextmanager
async def open_exec(
    client: ApiClient,
    command: Sequence[str],
    *,
    namespace: str,
    pod: str,
    container: str = "",
    stdin: bool = False,
    tty: bool = False,
) -> AsyncGenerator[ExecSession]:
    """Start `command` in a container; leaving the context hangs up. Raises ApiError."""
    query: list[tuple[str, str]] = [("command", word) for word in command]
    query += [("stdout", "true"), ("stderr", "false" if tty else "true")]
    query += [(name, "true") for name, wanted in (("stdin", stdin), ("tty", tty)) if wanted]
    if container:
        query.append(("container", container))
    path = f"{PODS.path(namespace, pod, subresource='exec')}?{urlencode(query)}"
    try:
        socket = await client.session().ws_connect(
            path,
            protocols=PROTOCOLS,
            headers=client.headers(),
            max_msg_size=_MESSAGE_LIMIT,
            server_hostname=client.endpoint.tls_server_name,
        )
    except aiohttp.WSServerHandshakeError as exc:
        # The reason is in a body that the handshake does not keep; a plain GET of the same path tells it.
        raise await _reason(client, path, exc) from exc
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise Unavailable(0, "", f"exec in {namespace}/{pod}: {exc or type(exc).__name__}") from exc
    try:
        yield ExecSession(socket)
    finally:
        await socket.close()


async def run(
    client: ApiClient,
    command: Sequence[str],
    *,
    namespace: str,
    pod: str,
    container: str = "",
    stdin: bytes | None = None,
    timeout_s: float = 30,
) -> ExecResult:
    """Run a command to its end. Raises ApiError, TimeoutError."""
    kept: dict[Channel, list[bytes]] = {Channel.STDOUT: [], Channel.STDERR: []}
    async with (
        asyncio.timeout(timeout_s),
        open_exec(
            client, command, namespace=namespace, pod=pod, container=container, stdin=stdin is not None
        ) as session,
    ):
        if stdin is not None:
            await session.write(stdin)
            await session.close_stdin()
        while (piece := await session.read()) is not None:
            kept[piece.channel].append(piece.data)
        return ExecResult(session.exit_code(), b"".join(kept[Channel.STDOUT]), b"".join(kept[Channel.STDERR]))


async def _reason(client: ApiClient, path: str, exc: aiohttp.WSServerHandshakeError) -> ApiError:
    try:
        await client.request("GET", path)
    except ApiError as said:
        return said
    return from_status(exc.status, b"", request=f"exec {path}")
