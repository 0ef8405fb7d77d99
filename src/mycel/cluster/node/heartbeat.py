"""The node's own object: registration, status when something changed (or every five minutes), and a Lease every
ten seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from mycel.cluster.node import clock
from mycel.cluster.node.names import Object
from mycel.cluster.node.settings import NodeSettings
from mycel.k8s.client import ApiClient, Patch
from mycel.k8s.errors import AlreadyExists, ApiError, NotFound
from mycel.k8s.resources import LEASES, NODES

log = logging.getLogger(__name__)
_LEASE_S = 10
_LEASE_DURATION_S = 40
_STATUS_EVERY = timedelta(minutes=5)
_LEASE_NAMESPACE = "kube-node-lease"
KUBELET_PORT = 10250


def labels(settings: NodeSettings) -> dict[str, str]:
    """What every node carries, its role, and what the cluster file asked for."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    found = {
        "beta.kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "kubernetes.io/hostname": settings.name,
        "kubernetes.io/os": "linux",
    }
    if settings.role == "control-plane":
        found |= {
            "node-role.kubernetes.io/control-plane": "",
            "node.kubernetes.io/exclude-from-external-load-balancers": "",
        }
    return found | settings.labels


def node_object(settings: NodeSettings) -> Object:
    """The object a fresh node registers. The control plane keeps ordinary pods away when there are workers to take
    them.
    """
    taints: list[Object] = []
    if settings.role == "control-plane" and settings.taint_control_plane:
        taints.append({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"})
    return {
        "metadata": {"name": settings.name, "labels": labels(settings)},
        "spec": {"taints": taints} if taints else {},
    }


def status(settings: NodeSettings, before: Object, *, network_error: str, now: str) -> Object:
    """The node's status. Pure but for the machine's facts; transition times are kept where nothing changed."""
    capacity = {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 1024}Ki",
        "ephemeral-storage": f"{_disk_kib()}Ki",
        "pods": str(settings.max_pods),
    }
    return {
        "addresses": [
            {"type": "InternalIP", "address": settings.address},
            {"type": "Hostname", "address": settings.name},
        ],
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": _conditions(before, network_error=network_error, now=now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
        "nodeInfo": _node_info(),
    }


def _conditions(before: Object, *, network_error: str, now: str) -> list[Object]:
    wanted: list[Object] = [
        {
            "type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory",
            "message": "kubelet has sufficient memory available",
        },
        {
            "type": "DiskPressure", "status": "False", "reason": "KubeletHasNoDiskPressure",
            "message": "kubelet has no disk pressure",
        },
        {
            "type": "PIDPressure", "status": "False", "reason": "KubeletHasSufficientPID",
            "message": "kubelet has sufficient PID available",
        },
    ]  # fmt: skip
    if network_error:
        message = (
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
            f"message:Network plugin returns error: {network_error}"
        )
        wanted.append({"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": message})
    else:
        wanted.append(
            {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
            }
        )
    known = {entry["type"]: entry for entry in before.get("conditions") or []}
    result: list[Object] = []
    for condition in wanted:
        old = known.pop(condition["type"], None)
        since = old["lastTransitionTime"] if old and old["status"] == condition["status"] else now
        result.append({"lastHeartbeatTime": now, "lastTransitionTime": since, **condition})
    return list(known.values()) + result  # others' conditions (NetworkUnavailable) are theirs


def _node_info() -> Object:
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return {
        "machineID": _line("/etc/machine-id"),
        "systemUUID": _line("/etc/machine-id"),
        "bootID": _line("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": release.get("PRETTY_NAME", "Linux").strip('"'),
        "containerRuntimeVersion": f"mycel://{version('mycel')}",
        "kubeletVersion": "v1.32.4",
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
    }


class Heartbeat:
    """Registers the node and keeps its status and Lease fresh. `poke()` when readiness may have changed."""

    def __init__(self, client: ApiClient, settings: NodeSettings, network_error: Callable[[], str]) -> None:
        self._client = client
        self._settings = settings
        self._network_error = network_error
        self._poked = asyncio.Event()
        self._status_at = clock.now() - _STATUS_EVERY
        self._sent_error: str | None = None

    def poke(self) -> None:
        """Look now."""
        self._poked.set()

    async def run(self) -> None:
        """Until cancelled; an API server that is away is waited for."""
        await self._register()
        while True:
            self._poked.clear()
            error = self._network_error()
            try:
                if error != self._sent_error or clock.now() - self._status_at >= _STATUS_EVERY:
                    await self._send_status(error)
                await self._renew()
                delay_s = float(_LEASE_S)
            except ApiError as exc:
                log.info("heartbeat: %s", exc)
                delay_s = 1.0
            try:
                async with asyncio.timeout(delay_s):
                    await self._poked.wait()
            except TimeoutError:
                continue

    async def _register(self) -> None:
        delay_s = 0.1
        while True:
            try:
                body = node_object(self._settings)
                body["status"] = status(
                    self._settings, {}, network_error=self._network_error(), now=clock.stamp(clock.now())
                )
                await self._client.create(NODES, body)
                log.info("node %s registered", self._settings.name)
                return
            except AlreadyExists:
                return
            except ApiError as exc:
                log.info("cannot register yet: %s", exc)
                await asyncio.sleep(delay_s)
                delay_s = min(2.0, delay_s * 1.5)

    async def _send_status(self, error: str) -> None:
        try:
            before = await self._client.get(NODES, self._settings.name)
        except NotFound:
            await self._register()
            before = {}
        now = clock.now()
        body = {"status": status(self._settings, before.get("status") or {}, network_error=error, now=clock.stamp(now))}
        # Strategic: conditions merge by type, so those of the mesh are not overwritten by what was read a moment ago.
        await self._client.patch(NODES, self._settings.name, body, kind=Patch.STRATEGIC, subresource="status")
        self._sent_error, self._status_at = error, now

    async def _renew(self) -> None:
        now = clock.micro(clock.now())
        try:
            await self._client.patch(
                LEASES, self._settings.name, {"spec": {"renewTime": now}}, namespace=_LEASE_NAMESPACE
            )
        except NotFound:
            await self._client.create(
                LEASES,
                {
                    "metadata": {"name": self._settings.name, "namespace": _LEASE_NAMESPACE},
                    "spec": {
                        "holderIdentity": self._settings.name,
                        "leaseDurationSeconds": _LEASE_DURATION_S,
                        "renewTime": now,
                    },
                },
            )


def _line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _disk_kib() -> int:
    info = os.statvfs("/var/lib/kubelet") if Path("/var/lib/kubelet").exists() else os.statvfs("/")
    return info.f_blocks * info.f_frsize // 1024
