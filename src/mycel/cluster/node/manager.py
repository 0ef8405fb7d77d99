"""All pods of this node: the API's list of them on one side, one worker each on the other, statuses going back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path

import msgspec

from mycel.cluster.node import cni, runtime, sandbox
from mycel.cluster.node.containers import Starter
from mycel.cluster.node.errors import CniError
from mycel.cluster.node.events import Recorder
from mycel.cluster.node.inotify import Watcher
from mycel.cluster.node.names import Object, PodKey, PodUid, uid_of
from mycel.cluster.node.objects import Objects
from mycel.cluster.node.pods import Gates, Pod
from mycel.cluster.node.settings import NodeSettings
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, Conflict, NotFound
from mycel.k8s.informer import Informer, Key
from mycel.k8s.resources import PODS
from mycel.kit.backoff import backoff_s

log = logging.getLogger(__name__)
_SENDERS = 8
_LOG_CHECK_S = 10.0
_LOG_LIMIT = 10 << 20
_FORGIVE_S = 300.0  # a worker that lived this long is not failing in a row


class Manager:
    """Starts, feeds and forgets pod workers. `network_error` is empty while pods can get a network."""

    def __init__(self, client: ApiClient, settings: NodeSettings, recorder: Recorder) -> None:
        self._client = client
        self._settings = settings
        self._recorder = recorder
        self._objects = Objects(client, self._object_changed)
        self._starter = Starter(settings, self._objects)
        self._gates = Gates(os.cpu_count() or 1)
        self._tasks: dict[PodUid, asyncio.Task[None]] = {}
        self._dirty: dict[PodUid, None] = {}
        self._dirty_event = asyncio.Event()
        self._sending: set[PodUid] = set()
        self._sent: dict[PodUid, Object] = {}
        self.pods: dict[PodUid, Pod] = {}
        self.network_error = "cni plugin not initialized"
        self.network_changed = asyncio.Event()
        self.informer: Informer[Object] = Informer(
            client, PODS, field_selector=f"spec.nodeName={settings.name}", on_change=self._pod_changed
        )

    async def run(self) -> None:
        """Until cancelled; workers are cancelled with it, their containers stay."""
        for folder in (self._settings.pods, self._settings.pod_logs, sandbox.NETNS):
            folder.mkdir(parents=True, exist_ok=True)
        watcher = Watcher()
        cni.CONFIG.mkdir(parents=True, exist_ok=True)
        watcher.watch(runtime.EXITS, self._container_ended)
        watcher.watch(cni.CONFIG, lambda _name: self.check_network())
        self.check_network()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.informer.run(), name="pods informer")
                group.create_task(self._collect_orphans(), name="orphans")
                group.create_task(self._rotate_logs(), name="log rotation")
                for number in range(_SENDERS):
                    group.create_task(self._send(), name=f"status sender {number}")
        finally:
            watcher.close()
            for task in self._tasks.values():
                task.cancel()
            await self._objects.close()

    def find(self, key: PodKey) -> Pod | None:
        """The pod of that name (the newer one while an old one of the same name still ends)."""
        found = [pod for pod in self.pods.values() if pod.key == key]
        return found[-1] if found else None

    def check_network(self) -> None:
        """Read the CNI configuration again and wake who waits for it."""
        before = self.network_error
        try:
            self.network_error = "" if cni.load() else "cni plugin not initialized"
        except CniError as exc:
            self.network_error = str(exc)
        if self.network_error != before:
            log.info("pod network: %s", self.network_error or "ready")
            self.network_changed.set()
            for pod in self.pods.values():
                pod.network_changed()

    # --- what the API says ---

    def _pod_changed(self, _key: Key, old: Object | None, new: Object | None) -> None:
        if old is not None and (new is None or uid_of(old) != uid_of(new)):
            gone = self.pods.get(uid_of(old))
            if gone is not None:
                gone.remove()
        if new is None:
            return
        known = self.pods.get(uid_of(new))
        if known is not None:
            known.update(new)
        elif not _over(new):
            self._begin(new)

    def _begin(self, pod: Object) -> Pod:
        worker = Pod(
            pod,
            settings=self._settings,
            starter=self._starter,
            objects=self._objects,
            recorder=self._recorder,
            gates=self._gates,
            publish=self._publish,
            network_ready=lambda: not self.network_error,
        )
        worker.files.base.mkdir(parents=True, exist_ok=True, mode=0o750)
        (worker.files.base / "pod.json").write_bytes(msgspec.json.encode(pod))
        worker.adopt()
        self.pods[worker.uid] = worker
        task = asyncio.create_task(self._live(worker), name=f"pod {worker.key}")
        self._tasks[worker.uid] = task
        return worker

    async def _live(self, worker: Pod) -> None:
        """A worker from birth to the removal of its API object. A bug in one pod must not end the others."""
        failures = 0
        try:
            while not worker.done.is_set():
                began_s = time.monotonic()
                try:
                    await worker.run()
                except asyncio.CancelledError:
                    raise
                except Exception as exc:  # the boundary of one pod: told, logged with its trace, tried again
                    log.exception("pod %s: unexpected", worker.key)
                    text = f"the node program failed over this pod and tries again: {type(exc).__name__}: {exc}"
                    self._recorder.warning(worker.pod, "FailedSync", text)
                    failures = 1 if time.monotonic() - began_s > _FORGIVE_S else failures + 1
                    await asyncio.sleep(backoff_s(failures, first_s=1.0, longest_s=60.0))
            await self._remove_object(worker)
        finally:
            self._sent.pop(worker.uid, None)
            self._dirty.pop(worker.uid, None)
            self.pods.pop(worker.uid, None)
            self._tasks.pop(worker.uid, None)

    async def _remove_object(self, worker: Pod) -> None:
        """The pod is gone from the node; now its object may go. Retried until the API server has heard it."""
        delay_s = 0.2
        while not worker.deleted:
            try:
                await self._client.delete(
                    PODS, worker.key.name, namespace=worker.key.namespace, grace_period_s=0, uid=worker.uid
                )
                return
            except (NotFound, Conflict):
                return
            except ApiError as exc:
                log.info("pod %s cannot be deleted yet: %s", worker.key, exc)
                await asyncio.sleep(delay_s)
                delay_s = min(10.0, delay_s * 2)

    async def _collect_orphans(self) -> None:
        """Pods on disk that the API no longer has: their containers must go. Only after a complete list."""
        await self.informer.wait_synced()
        for folder in self._settings.pods.iterdir():
            uid = PodUid(folder.name)
            if uid in self.pods:
                continue
            try:
                pod: Object = msgspec.json.decode((folder / "pod.json").read_bytes(), type=dict[str, object])
            except (FileNotFoundError, msgspec.MsgspecError):
                log.warning("%s is no pod's folder: left alone", folder)
                continue
            if _over(pod):
                continue
            log.info(
                "pod %s/%s is gone from the API: ending it",
                pod["metadata"]["namespace"],
                pod["metadata"]["name"],
            )
            self._begin(pod).remove()

    def _object_changed(self, namespace: str) -> None:
        for pod in self.pods.values():
            if pod.key.namespace == namespace and pod.state.sandbox:
                pod.refresh_volumes()

    # --- what the kernel says ---

    def _container_ended(self, name: str) -> None:
        for pod in self.pods.values():
            if any(held.container == name for held in pod.state.containers.values()):
                pod.wake()

    # --- what goes back ---

    def _publish(self, worker: Pod) -> None:
        self._dirty[worker.uid] = None
        self._dirty_event.set()

    async def _send(self) -> None:
        """Statuses, newest only: a pod that changes while its status is sent is sent again."""
        while True:
            await self._dirty_event.wait()
            uid = next((uid for uid in self._dirty if uid not in self._sending), None)
            if uid is None:
                self._dirty_event.clear()
                continue
            del self._dirty[uid]
            worker = self.pods.get(uid)
            if worker is None or worker.deleted:
                continue
            self._sending.add(uid)
            try:
                await self._send_one(worker)
            finally:
                self._sending.discard(uid)
                if uid in self._dirty:
                    self._dirty_event.set()

    async def _send_one(self, worker: Pod) -> None:
        status = worker.status()
        if _same(status, self._sent.get(worker.uid)):
            return
        if _same(status, worker.pod.get("status")):
            self._sent[worker.uid] = status
            return
        body = {"metadata": {"uid": worker.uid}, "status": status}
        try:
            await self._client.patch(PODS, worker.key.name, body, namespace=worker.key.namespace, subresource="status")
            self._sent[worker.uid] = status
        except (NotFound, Conflict):
            return
        except ApiError as exc:
            log.info("status of pod %s is not taken: %s", worker.key, exc)
            await asyncio.sleep(1)
            self._publish(worker)

    # --- housekeeping ---

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOG_CHECK_S)
            for pod in self.pods.values():
                for name, held in pod.state.containers.items():
                    if held.running:
                        path = pod.files.log(name, held.restarts)
                        with contextlib.suppress(OSError):
                            if path.stat().st_size > _LOG_LIMIT:
                                rotate(path)
                                runtime.reopen_log(pod.files.bundle(runtime.ContainerId(held.container)))


def rotate(path: Path) -> None:
    """`0.log` becomes `0.log.1`; the one before goes."""
    path.rename(path.with_name(path.name + ".1"))


def _over(pod: Object) -> bool:
    """Whether there is nothing to do for the pod: it ran to its end and nobody deletes it."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed") and not pod["metadata"].get("deletionTimestamp")


def _same(one: Object, other: Object | None) -> bool:
    """Equal but for the times of unchanged conditions."""
    if other is None:
        return False
    return all(_plain(one.get(key)) == _plain(other.get(key)) for key in one)


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {
            key: _plain(item)
            for key, item in value.items()
            if key not in ("lastTransitionTime", "lastProbeTime") and item is not None
        }
    return value
