"""Objects every cluster has from its first moment: namespaces, the `kubernetes` Service, priority classes."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from mycel.cluster.apiserver import errors
from mycel.cluster.apiserver.authn import User
from mycel.cluster.apiserver.options import WriteOptions
from mycel.cluster.apiserver.registry import Registry
from mycel.cluster.apiserver.settings import Settings
from mycel.cluster.apiserver.writes import Writes
from mycel.cluster.store import Store

Object = dict[str, Any]


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _priority(name: str, value: int, description: str) -> Object:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "preemptionPolicy": "PreemptLowerPriority",
        "description": description,
    }


def base_objects(settings: Settings) -> list[Object]:
    """The objects, in the order they are made."""
    labels = {"component": "apiserver", "provider": "kubernetes"}
    address = str(settings.service_subnet[1])
    public = [listen for listen in settings.listen if not listen.host.startswith("127.")] or list(settings.listen)
    port = public[0].port
    ports = [{"name": "https", "protocol": "TCP", "port": port}]
    slice_labels = {"kubernetes.io/service-name": "kubernetes"}
    return [
        *(_namespace(name) for name in ("default", "kube-system", "kube-public", "kube-node-lease")),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {
                "clusterIP": address,
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": [{"addresses": [{"ip": listen.host} for listen in public], "ports": ports}],
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": slice_labels},
            "addressType": "IPv6" if ":" in public[0].host else "IPv4",
            "endpoints": [{"addresses": [listen.host], "conditions": {"ready": True}} for listen in public],
            "ports": ports,
        },
        _priority("system-cluster-critical", 2000000000, "Pods the cluster cannot do without."),
        _priority("system-node-critical", 2000001000, "Pods a node cannot do without."),
    ]


async def ensure_base_objects(store: Store, writes: Writes, registry: Registry, settings: Settings) -> None:
    """Create what is missing; set where the API server is reached, which may have changed."""
    options = WriteOptions(User("system:apiserver", ("system:masters",)), manager="kube-apiserver")
    waiting: list[asyncio.Future[None]] = []
    for obj in base_objects(settings):
        kind = registry.by_kind(obj["apiVersion"], obj["kind"])
        assert kind is not None, "base objects are of built-in kinds"
        meta = obj["metadata"]
        namespace = meta.get("namespace", "")
        if store.head(kind.resource, namespace, meta["name"]) is None:
            try:
                written = writes.create(kind, namespace, obj, options)
            except errors.ApiFault as fault:
                if fault.code not in (403, 422):  # a terminating namespace, or another service subnet than at first
                    raise
                continue
        elif meta["name"] == "kubernetes":
            parts = {name: obj[name] for name in ("subsets", "endpoints", "ports", "spec") if name in obj}

            def refresh(old: Object, parts: Object = parts) -> Object:
                spec = {**old.get("spec", {}), **parts["spec"]} if "spec" in parts else None
                return {**old, **copy.deepcopy(parts), **({"spec": spec} if spec else {})}

            written = writes.change(kind, namespace, meta["name"], refresh, options=options)
        else:
            continue
        if written.done is not None:
            waiting.append(written.done)
    if waiting:
        await asyncio.gather(*waiting)
