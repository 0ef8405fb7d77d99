"""One AdmissionReview over HTTPS, and where to send it."""

from __future__ import annotations

import base64
import functools
import ssl
from typing import Any, NamedTuple

import aiohttp
import msgspec

from mycel.cluster.store import ResourceId, Store

Object = dict[str, Any]
_ANSWER_LIMIT = 1 << 20
_DEFAULT_TIMEOUT_S = 10


class CallFailed(Exception):
    """There is no answer to go by."""


class Target(NamedTuple):
    """Where a webhook listens; `server_name` is the name its certificate is for, None: the URL's host."""

    url: str
    server_name: str | None = None


class Verdict(NamedTuple):
    """What a webhook says."""

    allowed: bool
    status: Object
    warnings: tuple[str, ...]


class _Response(msgspec.Struct):
    uid: str
    allowed: bool
    status: dict[str, Any] | None = None
    warnings: list[str] | None = None


class _Review(msgspec.Struct):
    kind: str
    response: _Response


def addresses(client: Object, store: Store) -> tuple[Target, ...]:
    """The URL, or the ready endpoints of the Service. Raises CallFailed when there is none."""
    if client.get("url"):
        return (Target(client["url"]),)
    wanted = client["service"]
    namespace, name, number = wanted["namespace"], wanted["name"], wanted.get("port", 443)
    service = store.head(ResourceId("services"), namespace, name)
    if service is None:
        raise CallFailed(f'service "{namespace}/{name}" not found')
    ports = [port for port in service.obj["spec"].get("ports") or () if port["port"] == number]
    if not ports:
        raise CallFailed(f'service "{namespace}/{name}" has no port {number}')
    port_name, path = ports[0].get("name") or "", wanted.get("path") or "/"
    found: list[Target] = []
    for record in store.list(ResourceId("endpointslices.discovery.k8s.io"), namespace):
        if (record.obj["metadata"].get("labels") or {}).get("kubernetes.io/service-name") != name:
            continue
        by_name = {port.get("name") or "": port.get("port") for port in record.obj.get("ports") or ()}
        port = by_name.get(port_name)
        for endpoint in record.obj.get("endpoints") or () if port else ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                host = endpoint["addresses"][0]
                host = f"[{host}]" if ":" in host else host
                found.append(Target(f"https://{host}:{port}{path}", f"{name}.{namespace}.svc"))
    if not found:
        raise CallFailed(f'no endpoints available for service "{name}"')
    return tuple(found)


async def call(webhook: Object, targets: tuple[Target, ...], review: Object) -> Verdict:
    """Ask the first target that can be connected to. Raises CallFailed."""
    context = _context(webhook["clientConfig"].get("caBundle"))
    limit = aiohttp.ClientTimeout(total=webhook.get("timeoutSeconds", _DEFAULT_TIMEOUT_S))
    failure = "nobody to ask"
    async with aiohttp.ClientSession(timeout=limit, auto_decompress=False) as session:
        for target in targets:
            try:
                async with session.post(
                    target.url,
                    data=msgspec.json.encode(review),
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                    ssl=context,
                    server_hostname=target.server_name,
                    allow_redirects=False,
                ) as response:
                    if response.status != 200:
                        raise CallFailed(f"{target.url} answered {response.status}")
                    body = await _body(response)
            except aiohttp.ClientConnectorError as error:
                failure = f"failed to call webhook: {error}"
                continue
            except TimeoutError as error:
                raise CallFailed(f"failed to call webhook: {target.url}: no answer within {limit.total} s") from error
            except (aiohttp.ClientError, UnicodeError) as error:  # UnicodeError: a host that is no name
                raise CallFailed(f"failed to call webhook: {error}") from error
            return _verdict(body, review["request"]["uid"])
    raise CallFailed(failure)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > _ANSWER_LIMIT:
            raise CallFailed(f"the answer is longer than {_ANSWER_LIMIT} bytes")
    return bytes(body)


def _verdict(body: bytes, uid: str) -> Verdict:
    try:
        response = msgspec.json.decode(body, type=_Review).response
    except (msgspec.DecodeError, RecursionError) as error:
        raise CallFailed(f"the answer is no AdmissionReview: {error}") from error
    if response.uid != uid:
        raise CallFailed("the answer is to another question: response.uid differs")
    return Verdict(response.allowed, response.status or {}, tuple(response.warnings or ()))


@functools.lru_cache(maxsize=64)
def _context(bundle: str | None) -> ssl.SSLContext:
    if not bundle:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
    except (ValueError, ssl.SSLError) as error:
        raise CallFailed(f"clientConfig.caBundle holds no certificates: {error}") from error
