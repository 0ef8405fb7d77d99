"""Fills a `Directory` from the Kubernetes API: services, EndpointSlices, namespaces, and pods where they are verified.

Imported only when a Corefile has the plugin kubernetes: the client costs more start-up time than all the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from mycel.cluster.images.coredns.config import Kubernetes
from mycel.cluster.images.coredns.directory import Directory, Endpoint, Port, Service, Slice, parse_addresses
from mycel.k8s.client import ApiClient
from mycel.k8s.client import Endpoint as ApiEndpoint
from mycel.k8s.informer import Codec, Informer, Key
from mycel.k8s.resources import ENDPOINT_SLICES, NAMESPACES, PODS, SERVICES

_SERVICE_LABEL = "kubernetes.io/service-name"


class _Struct(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    pass


class _Meta(_Struct, frozen=True, gc=False):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None


class _Port(_Struct, frozen=True, gc=False):
    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class _ServiceSpec(_Struct, frozen=True, gc=False):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] | None = msgspec.field(name="clusterIPs", default=None)
    external_name: str | None = None
    ports: tuple[_Port, ...] | None = None


class _Service(_Struct, frozen=True, gc=False):
    metadata: _Meta
    spec: _ServiceSpec = _ServiceSpec()


class _Conditions(_Struct, frozen=True, gc=False):
    ready: bool | None = None


class _Reference(_Struct, frozen=True, gc=False):
    kind: str = ""
    name: str = ""


class _Endpoint(_Struct, frozen=True, gc=False):
    addresses: tuple[str, ...] = ()
    conditions: _Conditions = _Conditions()
    hostname: str | None = None
    target_ref: _Reference | None = None


class _Slice(_Struct, frozen=True, gc=False):
    metadata: _Meta
    address_type: str = "IPv4"
    ports: tuple[_Port, ...] | None = None
    endpoints: tuple[_Endpoint, ...] | None = None


class _Space(_Struct, frozen=True, gc=False):
    metadata: _Meta


class _PodIp(_Struct, frozen=True, gc=False):
    ip: str = ""


class _PodStatus(_Struct, frozen=True, gc=False):
    phase: str = ""
    pod_ips: tuple[_PodIp, ...] | None = msgspec.field(name="podIPs", default=None)


class _Pod(_Struct, frozen=True, gc=False):
    metadata: _Meta
    status: _PodStatus = _PodStatus()


async def watch(settings: Kubernetes, directory: Directory, synced: asyncio.Event) -> None:
    """Keep `directory` up to date until cancelled; `synced` is set once all of it is there."""
    endpoint = _endpoint(settings)
    async with ApiClient(endpoint, user_agent="coredns") as client, asyncio.TaskGroup() as group:
        informers = [
            Informer(client, SERVICES, Codec(_Service, _service), on_change=_service_listener(directory)),
            Informer(client, ENDPOINT_SLICES, Codec(_Slice, _slice), on_change=_slice_listener(directory)),
            Informer(
                client,
                NAMESPACES,
                Codec(_Space, lambda found: found.metadata.name),
                on_change=lambda key, _old, new: directory.put_namespace(key[1], there=new is not None),
            ),
        ]
        if settings.pods == "verified":
            informers.append(
                Informer(
                    client,
                    PODS,
                    Codec(_Pod, _pod_addresses),
                    on_change=lambda key, old, new: directory.put_pod(key[0], old or (), new or ()),
                )
            )
        for informer in informers:
            group.create_task(informer.run(), name=f"watch {informer.resource}")
        await asyncio.gather(*(informer.wait_synced() for informer in informers))
        directory.synced = True
        synced.set()


def _endpoint(settings: Kubernetes) -> ApiEndpoint:
    if settings.kubeconfig:
        return ApiEndpoint.from_kubeconfig(*settings.kubeconfig)
    if settings.endpoint:
        return ApiEndpoint(server=settings.endpoint)
    return ApiEndpoint.in_cluster()


def _service_listener(directory: Directory) -> Callable[[Key, Service | None, Service | None], None]:
    """Listener that keeps the services."""

    def hear(key: Key, _old: Service | None, new: Service | None) -> None:
        directory.put_service((key[0], key[1]), new)

    return hear


def _slice_listener(directory: Directory) -> Callable[[Key, Slice | None, Slice | None], None]:
    """Listener that keeps the slices of services."""

    def hear(key: Key, _old: Slice | None, new: Slice | None) -> None:
        directory.put_slice((key[0], key[1]), new if new is not None and new.service[1] else None)

    return hear


def _service(found: _Service) -> Service:
    spec = found.spec
    if spec.type == "ExternalName":
        return Service((), (), spec.external_name or "")
    addresses = parse_addresses(spec.cluster_ips or (spec.cluster_ip,))
    return Service(addresses, _ports(spec.ports))


def _ports(ports: tuple[_Port, ...] | None) -> tuple[Port, ...]:
    return tuple(Port(one.name or "", one.protocol or "TCP", one.port or 0) for one in ports or ())


def _slice(found: _Slice) -> Slice:
    service = (found.metadata.labels or {}).get(_SERVICE_LABEL, "")
    endpoints = tuple(
        Endpoint(
            one.hostname or "",
            one.target_ref.name if one.target_ref and one.target_ref.kind == "Pod" else "",
            parse_addresses(one.addresses),
        )
        for one in found.endpoints or ()
        if one.conditions.ready is not False and found.address_type in ("IPv4", "IPv6")
    )
    return Slice((found.metadata.namespace, service), _ports(found.ports), endpoints)


def _pod_addresses(found: _Pod) -> tuple[str, ...]:
    if found.status.phase in ("Succeeded", "Failed"):
        return ()
    return tuple(str(address) for address in parse_addresses(one.ip for one in found.status.pod_ips or ()))
