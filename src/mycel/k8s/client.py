"""A thin asynchronous client of the Kubernetes REST API: one connection pool, bytes in, bytes or dicts out.

Every failure is a `k8s.errors.ApiError`. Watches and logs are byte streams (`stream`); reading watch events
and keeping a store is `informer`'s work, exec is `exec`'s.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp
import msgspec

from mycel.k8s.endpoint import ConfigError, Endpoint
from mycel.k8s.errors import ApiError, Unavailable, from_status
from mycel.k8s.resources import Resource

__all__ = ["ApiClient", "ConfigError", "Endpoint", "ObjectList", "Patch"]

Object = dict[str, Any]
Params = Mapping[str, str | int]
_PAGE = 500  # objects per list request, as kubectl asks for
_TOKEN_AGE_S = 30  # a projected token is renewed long before it expires


class Patch(StrEnum):
    """The kinds of PATCH, by their content types."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A whole collection (all pages) as of `resource_version`."""

    items: list[Object]
    resource_version: str


class ApiClient:
    """`async with ApiClient(endpoint) as client: …`; safe to share between tasks of one event loop."""

    def __init__(self, endpoint: Endpoint, *, user_agent: str = "mycel", timeout_s: float = 30) -> None:
        self.endpoint = endpoint
        self._user_agent = user_agent
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, 5))
        self._session: aiohttp.ClientSession | None = None
        self._token = endpoint.token
        self._token_read_at = float("-inf")

    async def __aenter__(self) -> ApiClient:
        self._session = aiohttp.ClientSession(
            base_url=self.endpoint.server,
            connector=aiohttp.TCPConnector(
                ssl=self.endpoint.ssl_context() or True,
                limit=0,  # every watch holds one
                keepalive_timeout=60,
                socket_factory=_keepalive_socket,
            ),
            headers={"User-Agent": self._user_agent, "Accept": "application/json"},
            timeout=self._timeout,
            auto_decompress=True,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every connection, also the watches'."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout_s: float | None = None,
    ) -> bytes:
        """One request; `body` is bytes or what JSON can say. Returns the answer's body; raises ApiError."""
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        headers = self.headers()
        if data is not None:
            headers["Content-Type"] = content_type
        timeout = self._timeout if timeout_s is None else aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self.session().request(
                method, path, params=params, data=data, headers=headers, timeout=timeout, **self._tls()
            ) as response:
                answer = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise _unavailable(method, path, exc) from exc
        if status == 401:
            self._token_read_at = float("-inf")  # it may have been renewed since
        if status >= 300:
            raise from_status(status, answer, request=f"{method} {path}")
        return answer

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        params: Params | None = None,
        method: str = "GET",
        read_timeout_s: float | None = None,
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """The body as it arrives: an iterator of chunks of any size. Raises ApiError, also in the middle."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=read_timeout_s)
        try:
            async with self.session().request(
                method, path, params=params, headers=self.headers(), timeout=timeout, **self._tls()
            ) as response:
                if response.status >= 300:
                    raise from_status(response.status, await response.read(), request=f"{method} {path}")
                yield response.content.iter_any()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise _unavailable(method, path, exc) from exc

    async def get(
        self, resource: Resource, name: str, *, namespace: str | None = None, subresource: str = ""
    ) -> Object:
        """One object. Raises NotFound."""
        return _object(await self.request("GET", resource.path(namespace, name, subresource=subresource)))

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> ObjectList:
        """All matching objects, page by page. Items carry apiVersion and kind, which lists leave out."""
        items: list[Object] = []
        params = selectors(label_selector, field_selector)
        while True:
            page = _object(await self.request("GET", resource.path(namespace), params={**params, "limit": _PAGE}))
            for item in page.get("items") or []:
                items.append({"apiVersion": resource.api_version, "kind": resource.kind} | item)
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return ObjectList(items, str(metadata.get("resourceVersion", "")))
            params["continue"] = metadata["continue"]

    async def create(
        self,
        resource: Resource,
        body: Object,
        *,
        namespace: str | None = None,
        name: str = "",
        subresource: str = "",
    ) -> Object:
        """POST to the collection, or to `name`'s subresource (binding, token …). Raises AlreadyExists."""
        namespace = namespace or _metadata(body).get("namespace")
        path = resource.path(namespace, name or None, subresource=subresource)
        return _object(await self.request("POST", path, body=_typed(resource, body, subresource)))

    async def replace(self, resource: Resource, body: Object, *, subresource: str = "") -> Object:
        """PUT the whole object; with metadata.resourceVersion a Conflict tells that it changed meanwhile."""
        metadata = _metadata(body)
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource=subresource)
        return _object(await self.request("PUT", path, body=_typed(resource, body, subresource)))

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Any,
        *,
        namespace: str | None = None,
        kind: Patch = Patch.MERGE,
        subresource: str = "",
        params: Params | None = None,
    ) -> Object:
        """PATCH in one of four dialects; JSON patches are lists, the others objects."""
        path = resource.path(namespace, name, subresource=subresource)
        return _object(await self.request("PATCH", path, params=params, body=body, content_type=kind.value))

    async def apply(
        self,
        resource: Resource,
        body: Object,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str = "",
    ) -> Object:
        """Server-side apply: creates what is missing, owns the fields it names."""
        metadata = _metadata(body)
        return await self.patch(
            resource,
            metadata["name"],
            _typed(resource, body, ""),
            namespace=metadata.get("namespace"),
            kind=Patch.APPLY,
            subresource=subresource,
            params={"fieldManager": field_manager, "force": "true" if force else "false"},
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        propagation: str | None = None,
        grace_period_s: int | None = None,
        uid: str | None = None,
    ) -> None:
        """Delete one object (`propagation`: Background, Foreground, Orphan); with `uid` only that one."""
        options: Object = {}
        if propagation:
            options["propagationPolicy"] = propagation
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if uid:
            options["preconditions"] = {"uid": uid}
        body = {"kind": "DeleteOptions", "apiVersion": "v1"} | options if options else None
        await self.request("DELETE", resource.path(namespace, name), body=body)

    def session(self) -> aiohttp.ClientSession:
        """The pool, for upgrades (`exec`)."""
        if self._session is None:
            raise RuntimeError("ApiClient is used outside its `async with`")
        return self._session

    def headers(self) -> dict[str, str]:
        """Authorization, with a token file read anew now and then."""
        file = self.endpoint.token_file
        if file is not None and time.monotonic() - self._token_read_at > _TOKEN_AGE_S:
            try:
                self._token = file.read_text().strip()
                self._token_read_at = time.monotonic()
            except OSError as exc:
                if self._token is None:
                    raise Unavailable(0, "", f"cannot read the token {file}: {exc.strerror}") from exc
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _tls(self) -> dict[str, Any]:
        name = self.endpoint.tls_server_name
        return {"server_hostname": name} if name else {}


def selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str | int]:
    """The query parameters of a list or watch."""
    params: dict[str, str | int] = {}
    if label_selector:
        params["labelSelector"] = label_selector
    if field_selector:
        params["fieldSelector"] = field_selector
    return params


def _object(data: bytes) -> Object:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        raise ApiError(200, "", f"the API server's answer is not a JSON object: {exc}") from exc


def _metadata(body: Object) -> Object:
    return body.get("metadata") or {}


def _typed(resource: Resource, body: Object, subresource: str) -> Object:
    """Objects read from lists and informers may lack apiVersion and kind; subresources bring their own."""
    if subresource and subresource not in ("status",):
        return body
    return {"apiVersion": resource.api_version, "kind": resource.kind} | body


def _unavailable(method: str, path: str, exc: BaseException) -> Unavailable:
    what = "timed out" if isinstance(exc, TimeoutError) else str(exc) or type(exc).__name__
    return Unavailable(0, "", f"{method} {path}: {what}")


def _keepalive_socket(address: tuple[Any, ...] | Iterable[Any]) -> socket.socket:
    """A peer that vanished is noticed within half a minute, also on a watch that only listens."""
    family, kind, protocol, *_ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return sock
