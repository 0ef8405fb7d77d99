"""HTTP: listeners, authentication, and from each request to the handler that answers it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import ssl
import time
from typing import Any

from aiohttp import http_exceptions, web

from mycel.cluster.apiserver import codec, discovery, errors
from mycel.cluster.apiserver.answers import respond, respond_raw
from mycel.cluster.apiserver.authn import User, authenticate
from mycel.cluster.apiserver.errors import ApiFault
from mycel.cluster.apiserver.paths import parse_resource_path
from mycel.cluster.apiserver.pki import Pki
from mycel.cluster.apiserver.registry import Registry
from mycel.cluster.apiserver.rest import Call, Rest
from mycel.cluster.apiserver.settings import Listen, Settings
from mycel.cluster.apiserver.subresources import Subresources
from mycel.cluster.apiserver.tokens import ISSUER, Tokens
from mycel.cluster.apiserver.tunnel import Tunnels
from mycel.cluster.apiserver.webhooks import Webhooks
from mycel.cluster.apiserver.writes import Writes
from mycel.cluster.store import ResourceId, Store, StoreFailed

log = logging.getLogger("mycel.apiserver")
_OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_KEEPALIVE_S = 300.0
_EVENT_TTL_S = 3600.0
_EVENT_SWEEP_S = 60.0
_REVIEWS = frozenset({"authentication.k8s.io", "authorization.k8s.io"})
VERSION = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.4",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2025-04-22T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}


class Server:
    """The API server's HTTP side."""

    def __init__(
        self, store: Store, registry: Registry, writes: Writes, tokens: Tokens, pki: Pki, settings: Settings
    ) -> None:
        self._store = store
        self._registry = registry
        self._writes = writes
        self._tokens = tokens
        self._pki = pki
        self._settings = settings
        self._rest = Rest(store, writes, Webhooks(store, registry))
        self._subresources = Subresources(store, writes, self._rest, tokens, registry)
        self._tunnels = Tunnels(store, pki)
        self._runner: web.ServerRunner | None = None
        self._openapi_v2: tuple[int, bytes] | None = None
        self._requests: dict[tuple[str, int], int] = {}
        self.listening: list[Listen] = []

    # --- life ---

    async def start(self) -> None:
        """Listen; OSError when an address is taken."""
        server = web.Server(
            self._handle,
            request_factory=self._make_request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=_KEEPALIVE_S,
            max_line_size=65536,
            max_field_size=65536,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=2.0)
        await self._runner.setup()
        tls = self._tls()
        for listen in self._settings.listen:
            site = web.TCPSite(
                self._runner, listen.host, listen.port, ssl_context=tls, reuse_address=True, backlog=1024
            )
            await site.start()
            sockets = site._server.sockets  # type: ignore[union-attr]
            self.listening.append(Listen(listen.host, sockets[0].getsockname()[1]))

    async def stop(self) -> None:
        """End watches and tunnels, then the listeners; answers under way are finished."""
        self._rest.close()
        await self._tunnels.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _tls(self) -> ssl.SSLContext:
        pair = self._pki.pair("apiserver")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(pair.certificate, pair.key)
        context.load_verify_locations(self._pki.ca_certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])  # HTTP/2 would break upgrades
        return context

    @staticmethod
    def _make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=codec.BODY_LIMIT)

    # --- requests ---

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._answer(request)
        key = (request.method, response.status)
        self._requests[key] = self._requests.get(key, 0) + 1
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._route(request)
        except ApiFault as fault:
            return self._fault(fault)
        except StoreFailed as error:
            return self._fault(errors.unavailable(str(error)))
        except web.HTTPRequestEntityTooLarge:
            return self._fault(errors.too_large(codec.BODY_LIMIT))
        except (http_exceptions.HttpProcessingError, UnicodeDecodeError) as error:
            return self._fault(errors.bad_request(f"the request is malformed: {error}"))
        except RecursionError:
            return self._fault(errors.bad_request("the object is nested too deeply"))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            # The last line of defence: one broken request must not take the others down, and must be seen.
            log.exception("%s %s failed", request.method, request.path)
            return self._fault(ApiFault(500, "InternalError", "an error on the server; see its log"))

    @staticmethod
    def _fault(fault: ApiFault) -> web.Response:
        response = respond(fault.status(), status=fault.code)
        if fault.code in (429, 503):
            response.headers["Retry-After"] = "1"
        return response

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path in _OPEN_PATHS or path.startswith(("/livez/", "/readyz/", "/healthz/")):
            return self._open(path)
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        user = authenticate(certificate, request.headers.get("Authorization", ""), self._tokens)
        body = await request.read() if request.body_exists else b""
        target = parse_resource_path(request.rel_url.raw_path)
        if target is not None:
            if target.subresource == "" and target.name == "" and path.endswith("/"):
                raise errors.no_such_path(path)
            kind = self._registry.find(target.group, target.version, target.plural)
            if kind is not None:
                call = Call(request, target, kind, user, request.query, body)
                return await self._resource(call)
        return await self._other(request, user)

    async def _resource(self, call: Call) -> web.StreamResponse:
        target, kind = call.target, call.kind
        if (target.namespace and not kind.namespaced) or (target.name and kind.namespaced and not target.namespace):
            raise errors.no_such_path(call.request.path)
        if target.rest:
            raise errors.no_such_path(call.request.path)
        if target.subresource:
            return await self._subresource(call)
        if target.name:
            return await self._object(call)
        return await self._collection(call)

    async def _collection(self, call: Call) -> web.StreamResponse:
        kind = call.kind
        match call.request.method:
            case "GET" if "list" in kind.verbs:
                return await self._rest.list(call)
            case method if kind.namespaced and not call.target.namespace:
                raise errors.method_not_allowed(method)
            case "POST" if kind.group in _REVIEWS:
                return await self._subresources.review(call)
            case "POST" if kind.kind == "Binding":
                return await self._subresources.bind(call)
            case "POST" if "create" in kind.verbs:
                return await self._rest.create(call)
            case "DELETE" if "deletecollection" in kind.verbs:
                return await self._rest.delete_collection(call)
            case method:
                raise errors.method_not_allowed(method)

    async def _object(self, call: Call) -> web.StreamResponse:
        if "get" not in call.kind.verbs:
            raise errors.method_not_allowed(call.request.method)
        match call.request.method:
            case "GET" if call.query.get("watch", "").lower() in ("true", "1"):
                raise errors.bad_request("watch a collection with fieldSelector=metadata.name=NAME instead")
            case "GET":
                return self._rest.get(call)
            case "PUT":
                return await self._rest.update(call)
            case "PATCH":
                return await self._rest.patch(call)
            case "DELETE":
                return await self._rest.delete(call)
            case method:
                raise errors.method_not_allowed(method)

    async def _subresource(self, call: Call) -> web.StreamResponse:
        name, method = call.target.subresource, call.request.method
        if name not in call.kind.subresources:
            raise errors.no_such_path(call.request.path)
        match name, method:
            case "status", "GET" | "PUT" | "PATCH":
                return await self._object(call)
            case "scale", "GET" | "PUT" | "PATCH":
                return await self._subresources.scale(call)
            case "binding", "POST":
                return await self._subresources.bind(call)
            case "eviction", "POST":
                return await self._subresources.evict(call)
            case "finalize", "PUT":
                return await self._subresources.finalize(call)
            case "token", "POST":
                return await self._subresources.token(call)
            case "log", "GET":
                return await self._tunnels.logs(call)
            case (("exec" | "attach" | "portforward"), ("GET" | "POST")):
                return await self._tunnels.upgrade(call)
            case _:
                raise errors.method_not_allowed(method)

    # --- everything that is no resource ---

    def _open(self, path: str) -> web.Response:
        if path == "/version":
            return respond(VERSION)
        failure = self._store.failure
        if failure is not None and not path.startswith("/livez"):
            return web.Response(status=500, text=f"[-]store failed: {failure}\n")
        return web.Response(text="ok")

    async def _other(self, request: web.BaseRequest, user: User) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        if request.method != "GET":
            raise errors.no_such_path(path)
        registry = self._registry
        match path.strip("/").split("/"):
            case ["api"] | ["apis"]:
                return self._discovery(request, core=path == "/api")
            case ["api", version]:
                found = discovery.resource_list(registry, "", version)
            case ["apis", group]:
                found = discovery.group(registry, group)
            case ["apis", group, version]:
                found = discovery.resource_list(registry, group, version)
            case ["openapi", *rest]:
                return await self._openapi(request, rest)
            case ["metrics"]:
                return self._metrics()
            case [".well-known", "openid-configuration"]:
                found = {"issuer": ISSUER, "response_types_supported": ["id_token"]}
            case [""]:
                paths = [
                    "/api",
                    "/apis",
                    "/healthz",
                    "/livez",
                    "/metrics",
                    "/openapi/v2",
                    "/openapi/v3",
                    "/readyz",
                    "/version",
                ]
                found = {"paths": paths}
            case _:
                found = None
        if found is None:
            raise errors.no_such_path(path)
        return respond(found)

    def _discovery(self, request: web.BaseRequest, *, core: bool) -> web.Response:
        accept = request.headers.get("Accept", "")
        for version in ("v2", "v2beta1"):
            if "apidiscovery.k8s.io" in accept and f"v={version};" in accept.replace(" ", "") + ";":
                body = codec.encode_json(discovery.aggregated(self._registry, core=core, version=version))
                response = respond_raw(body)
                kind = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
                response.headers["Content-Type"] = kind
                return response
        if core:
            return respond(discovery.api_versions(str(self.listening[0])))
        return respond(discovery.group_list(self._registry))

    async def _openapi(self, request: web.BaseRequest, rest: list[str]) -> web.Response:
        from mycel.cluster.apiserver.schema import openapi, openapi_v2

        match rest:
            case ["v2"]:
                cached = self._openapi_v2
                if cached is None or cached[0] != self._registry.generation:
                    self._openapi_v2 = cached = (self._registry.generation, openapi_v2.document_v2(self._registry))
                return web.Response(body=cached[1], headers={"Content-Type": openapi_v2.CONTENT_TYPE})
            case ["v3"]:
                return respond(openapi.index(self._registry))
            case ["v3", "api", version]:
                document = openapi.document(self._registry, "", version)
            case ["v3", "apis", group, version]:
                document = openapi.document(self._registry, group, version)
            case _:
                document = None
        if document is None:
            raise errors.no_such_path(request.path)
        return respond(document)

    def _metrics(self) -> web.Response:
        lines = [
            "# HELP apiserver_request_total Requests answered.",
            "# TYPE apiserver_request_total counter",
            *(
                f'apiserver_request_total{{verb="{method}",code="{code}"}} {count}'
                for (method, code), count in sorted(self._requests.items())
            ),
            "# HELP apiserver_storage_objects Objects stored.",
            "# TYPE apiserver_storage_objects gauge",
            f"apiserver_storage_objects {self._store.count()}",
            "# HELP apiserver_storage_revision Newest revision.",
            "# TYPE apiserver_storage_revision counter",
            f"apiserver_storage_revision {self._store.revision}",
        ]
        return web.Response(text="\n".join(lines) + "\n")

    # --- housekeeping ---

    async def expire_events(self) -> None:
        """Delete Events after an hour, until cancelled."""
        resource = ResourceId("events")
        while True:
            await asyncio.sleep(_EVENT_SWEEP_S)
            limit = datetime.datetime.fromtimestamp(time.time() - _EVENT_TTL_S, datetime.UTC)
            oldest = limit.strftime("%Y-%m-%dT%H:%M:%SZ")
            for record in list(self._store.values(resource)):
                obj = record.obj
                last = obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"]["creationTimestamp"]
                if str(last) < oldest and self._store.head(resource, *record.key) is record:
                    with contextlib.suppress(StoreFailed):
                        self._store.delete(resource, {**obj, "metadata": dict(obj["metadata"])})
