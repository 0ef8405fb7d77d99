"""What a fresh cluster needs inside: waiting for its API, its nodes, and the manifests of cluster DNS."""

from __future__ import annotations

import asyncio
import time
from importlib import resources
from typing import Any

import yaml

from mycel.cluster.lifecycle.errors import LifecycleError
from mycel.cluster.lifecycle.paths import ClusterPaths
from mycel.cluster.lifecycle.record import ClusterRecord
from mycel.k8s.client import ApiClient, Endpoint
from mycel.k8s.errors import AlreadyExists, ApiError, Unavailable
from mycel.k8s.resources import NODES, Resource

_FIELD_MANAGER = "mycel-cluster"
_PLURALS = {
    "Namespace": ("namespaces", False),
    "ServiceAccount": ("serviceaccounts", True),
    "ConfigMap": ("configmaps", True),
    "Service": ("services", True),
    "Deployment": ("deployments", True),
    "ClusterRole": ("clusterroles", False),
    "ClusterRoleBinding": ("clusterrolebindings", False),
    "Role": ("roles", True),
    "RoleBinding": ("rolebindings", True),
    "PriorityClass": ("priorityclasses", False),
}


def wait_api(paths: ClusterPaths, *, timeout_s: float) -> None:
    """Until the API server is ready. Raises LifecycleError with the place of its log."""
    asyncio.run(_wait_api(paths, timeout_s))


def wait_nodes(paths: ClusterPaths, names: set[str], *, timeout_s: float) -> None:
    """Until every node program has registered its node. Raises LifecycleError."""
    asyncio.run(_wait_nodes(paths, names, timeout_s))


def install(paths: ClusterPaths, cluster: ClusterRecord) -> None:
    """Create cluster DNS and what belongs to it; what exists stays as it is."""
    asyncio.run(_install(paths, cluster))


def manifests(cluster: ClusterRecord) -> list[dict[str, Any]]:
    """The objects of `manifests/*.yaml` with this cluster's addresses filled in."""
    folder = resources.files("mycel.cluster") / "manifests"
    objects: list[dict[str, Any]] = []
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yaml"):
            text = entry.read_text().replace("${KUBE_DNS}", cluster.kube_dns)
            objects += [item for item in yaml.load_all(text, Loader=yaml.CSafeLoader) if item]
    return objects


def resource_of(manifest: dict[str, Any]) -> Resource:
    """Where an object of our own manifests lives."""
    plural, namespaced = _PLURALS[manifest["kind"]]
    group, _, version = str(manifest["apiVersion"]).rpartition("/")
    return Resource(group, version, plural, manifest["kind"], namespaced)


def _client(paths: ClusterPaths) -> ApiClient:
    return ApiClient(Endpoint.from_kubeconfig(paths.kubeconfig), user_agent=_FIELD_MANAGER, timeout_s=10)


async def _wait_api(paths: ClusterPaths, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    async with _client(paths) as client:
        while True:
            try:
                await client.request("GET", "/readyz")
            except ApiError as exc:
                if time.monotonic() > deadline:
                    raise LifecycleError(
                        f"the API server is not ready after {timeout_s:.0f} s ({exc}): see {paths.logs}/apiserver.log"
                    ) from exc
                await asyncio.sleep(0.05)
            else:
                return


async def _wait_nodes(paths: ClusterPaths, names: set[str], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    async with _client(paths) as client:
        while True:
            there = {item["metadata"]["name"] for item in (await client.list(NODES)).items}
            if names <= there:
                return
            if time.monotonic() > deadline:
                missing = sorted(names - there)
                raise LifecycleError(f"nodes {', '.join(missing)} did not join: see {paths.logs}/{missing[0]}.log")
            await asyncio.sleep(0.1)


async def _install(paths: ClusterPaths, cluster: ClusterRecord) -> None:
    async with _client(paths) as client:
        for manifest in manifests(cluster):
            for attempt in range(20):
                try:
                    await client.create(resource_of(manifest), manifest)
                except AlreadyExists:
                    break
                except Unavailable:
                    if attempt == 19:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    break
