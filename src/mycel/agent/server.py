"""The agent's socket: CNI requests, and what `cilium` commands ask for. HTTP with JSON, mode 0600.

A second, small server on loopback answers the kubelet's probes and, for scrapers on the node, metrics.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from mycel.agent.endpoints import AddFailed, AddRequest, Endpoints
from mycel.kit.readiness import Readiness
from mycel.kit.sockets import owner_only
from mycel.model.address import format_address, is_ipv4
from mycel.model.workload import LocalEndpoint, PodRef

log = logging.getLogger(__name__)
_BODY_LIMIT = 1 << 20

View = Callable[[web.Request], Awaitable[Any]]


class _Attachment(msgspec.Struct, frozen=True, rename="kebab"):
    """What the plugin sends."""

    container_id: str
    interface: str
    netns: str = ""
    namespace: str = ""
    pod: str = ""
    uid: str = ""


class _Keep(msgspec.Struct, frozen=True):
    """What GC sends: attachments the runtime still knows."""

    keep: list[dict[str, str]] = []


class CniHandlers:
    """POST and DELETE of endpoints."""

    def __init__(self, endpoints: Endpoints, *, routers: dict[bool, str], ready: Readiness) -> None:
        self._endpoints = endpoints
        self._routers = routers  # by whether it is IPv4
        self._ready = ready

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        return [
            web.post("/v1/endpoint", self.add),
            web.delete("/v1/endpoint", self.delete),
            web.post("/v1/endpoint/check", self.check),
            web.put("/v1/attachments", self.collect),
        ]

    async def add(self, request: web.Request) -> web.Response:
        """CNI ADD."""
        asked = await _decode(request, _Attachment)
        if not self._ready.ready:
            return _refuse(503, "the agent is starting: it waits for " + ", ".join(self._ready.waiting_for()))
        try:
            made = await self._endpoints.add(
                AddRequest(
                    asked.container_id, asked.netns, asked.interface, PodRef(asked.namespace, asked.pod), asked.uid
                )
            )
        except AddFailed as exc:
            log.info("CNI ADD failed: %s", exc)
            return _refuse(500, str(exc))
        return web.json_response(self._answer(made))

    async def delete(self, request: web.Request) -> web.Response:
        """CNI DEL: succeeds whether there is something or not."""
        asked = await _decode(request, _Attachment)
        removed = await self._endpoints.delete(asked.container_id, asked.interface)
        return web.json_response({"removed": removed})

    async def check(self, request: web.Request) -> web.Response:
        """CNI CHECK."""
        asked = await _decode(request, _Attachment)
        found = self._endpoints.check(asked.container_id, asked.interface)
        if found is None or not found.identity:
            return _refuse(404, f"interface {asked.interface} of container {asked.container_id} is not wired")
        return web.json_response(self._answer(found))

    async def collect(self, request: web.Request) -> web.Response:
        """CNI GC: remove what the runtime does not know any more."""
        asked = await _decode(request, _Keep)
        kept = {(each.get("containerID", ""), each.get("ifname", "")) for each in asked.keep}
        gone = [each for each in self._endpoints.all().values() if (each.container_id, each.pod_interface) not in kept]
        for each in gone:
            await self._endpoints.delete(each.container_id, each.pod_interface)
        return web.json_response({"removed": len(gone)})

    def _answer(self, made: LocalEndpoint) -> dict[str, Any]:
        return {
            "id": made.endpoint_id,
            "host-interface": made.interface,
            "host-mac": made.node_mac.hex(":"),
            "mac": made.mac.hex(":"),
            "addresses": [
                {
                    "address": format_address(address) + ("/32" if is_ipv4(address) else "/128"),
                    "gateway": self._routers[is_ipv4(address)],
                }
                for address in made.addresses
            ],
        }


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


async def _decode(request: web.Request, shape: type[Any]) -> Any:
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except msgspec.MsgspecError as exc:
        raise web.HTTPBadRequest(
            text=msgspec.json.encode({"message": str(exc)}).decode(), content_type="application/json"
        ) from exc


def build(cni: CniHandlers, views: dict[str, View], *, texts: dict[str, View]) -> web.Application:
    """The socket's application: CNI, GET of each view as JSON, of each text as it is."""
    app = web.Application(client_max_size=_BODY_LIMIT)
    app.add_routes(cni.routes())
    for path, view in views.items():
        app.router.add_get(path, _json(view))
    for path, view in texts.items():
        app.router.add_get(path, _text(view))
    return app


def _json(view: View) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            answer = await view(request)
        except LookupError as exc:
            return _refuse(404, str(exc.args[0]) if exc.args else "not found")
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    return handle


def _text(view: View) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=await view(request))

    return handle


async def serve_socket(app: web.Application, path: Path) -> web.AppRunner:
    """Answer on a unix socket of mode 0600. The runner's `cleanup()` ends it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    with owner_only():
        await web.UnixSite(runner, str(path)).start()
    return runner


async def serve_probes(ready: Readiness, metrics: View, *, port: int) -> web.AppRunner:
    """/healthz (ready), /livez (alive) and /metrics on 127.0.0.1."""

    async def healthz(_request: web.Request) -> web.Response:
        if ready.ready:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="waiting for " + ", ".join(ready.waiting_for()) + "\n")

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/livez", livez)
    app.router.add_get("/metrics", _text(metrics))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    return runner


async def replay_deletes(endpoints: Endpoints, folder: Path) -> int:
    """Do the DELs that the plugin left while no agent answered; returns how many."""
    done = 0
    for path in await asyncio.to_thread(_waiting, folder):
        try:
            asked = msgspec.json.decode(path.read_bytes(), type=_Attachment)
        except (msgspec.MsgspecError, OSError) as exc:
            log.error("delayed CNI DEL %s cannot be read: %s", path, exc)
        else:
            await endpoints.delete(asked.container_id, asked.interface)
            done += 1
        path.unlink(missing_ok=True)
        await asyncio.sleep(0)
    return done


def _waiting(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json")) if folder.is_dir() else []
