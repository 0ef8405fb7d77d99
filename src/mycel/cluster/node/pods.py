"""One pod on this node: a task that brings what runs to what the pod says, again and again, until the pod is gone.

Wakes on every change (the pod, a container's end, a probe, a backoff that is over), asks `decide` for the next
step and does it. State is on disk before and after each step, so a new node program goes on where this one was
killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from mycel.cluster.node import clock, cni, decide, runtime, sandbox, state, status, volumes
from mycel.cluster.node.containers import Starter
from mycel.cluster.node.errors import CniError, NodeError
from mycel.cluster.node.events import Recorder
from mycel.cluster.node.names import ContainerId, Object, PodFiles, key_of, uid_of
from mycel.cluster.node.objects import Objects
from mycel.cluster.node.runs import Runs
from mycel.cluster.node.settings import NodeSettings
from mycel.cluster.node.state import PodState

log = logging.getLogger(__name__)
_RETRY_S = (0.5, 20.0)
_REFRESH_S = 60.0
_STALL_REPORT = 3  # attempts without a network before it becomes an event


class Gates:
    """How much of what may go on at once on this node."""

    def __init__(self, cpus: int) -> None:
        self.containers = asyncio.Semaphore(max(4, cpus * 3))
        self.networks = asyncio.Semaphore(max(4, cpus * 3))
        # Removing interfaces is waiting for the kernel, not work: many may wait together.
        self.removals = asyncio.Semaphore(16)


class Pod:
    """The worker of one pod."""

    def __init__(
        self,
        pod: Object,
        *,
        settings: NodeSettings,
        starter: Starter,
        objects: Objects,
        recorder: Recorder,
        gates: Gates,
        publish: Callable[[Pod], None],
        network_ready: Callable[[], bool],
    ) -> None:
        self.pod: Object = pod
        self.uid = uid_of(pod)
        self.key = key_of(pod)
        self.files = PodFiles.of(pod, pods=settings.pods, logs=settings.pod_logs)
        self._settings = settings
        self._starter = starter
        self._objects = objects
        self._recorder = recorder
        self._gates = gates
        self._publish = publish
        self._network_ready = network_ready
        self.state = state.load(self.files.state) or PodState(self.key.namespace, self.key.name, self.uid)
        self.changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._refresh_at = 0.0
        self._volumes_ready = False
        self._spec_changed = False
        self._told_no_network = False
        self.deleted = False  # the object is gone from the API
        self._runs = Runs(self, settings=settings, starter=starter, recorder=recorder, gate=gates.containers)
        self.done = asyncio.Event()  # nothing of the pod is left here

    # --- what others tell ---

    def update(self, pod: Object) -> None:
        """The pod object changed."""
        self._spec_changed = (
            self._spec_changed or pod["spec"] != self.pod["spec"] or pod["metadata"] != self.pod["metadata"]
        )
        self.pod = pod
        self.wake()

    def remove(self) -> None:
        """The pod object is gone: end everything without waiting."""
        self.deleted = True
        self.wake()

    def wake(self) -> None:
        """Look again."""
        self.changed.set()

    def network_changed(self) -> None:
        """The node's network came or went: try again at once."""
        self._retry_at = 0.0
        self.wake()

    def refresh_volumes(self) -> None:
        """Something the volumes may show has changed."""
        self._refresh_at = 0.0
        self.wake()

    def adopt(self) -> None:
        """Once after a start of the node program: take over what runs, notice what ended meanwhile."""
        spec = self.pod["spec"]
        own = {"network": not spec.get("hostNetwork"), "ipc": not spec.get("hostIPC")}
        if self.state.sandbox and not sandbox.intact(self.uid, self.files.base, **own):
            log.info("%s: its namespaces are gone (the node was stopped): begun anew", self.key)
            self._runs.lost()
            self.state.sandbox, self.state.addresses, self.state.initialized = "", (), False
        self._volumes_ready = bool(self.state.sandbox)
        for container in self.every():
            held = self.state.container(container["name"])
            if held.running:
                self._runs.watch(container, held)

    @property
    def terminating(self) -> bool:
        return self.deleted or bool(self.pod["metadata"].get("deletionTimestamp"))

    # --- the loop ---

    async def run(self) -> None:
        """Until the pod is gone."""
        while not self.done.is_set():
            self.changed.clear()
            try:
                wake_at = await self._step()
                self._failures = 0
            except NodeError as exc:
                wake_at = self._retry(exc)
            except OSError as exc:
                log.warning("%s: %s", self.key, exc)
                wake_at = self._retry(NodeError(str(exc)))
            self.save()
            self._publish(self)
            if self.done.is_set():
                return
            self._sleep_until(wake_at)
            await self.changed.wait()

    def _sleep_until(self, wake_at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wake_at is not None:
            delay_s = max(0.0, wake_at - time.time())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.wake)

    def _retry(self, exc: NodeError) -> float:
        self._failures += 1
        low, high = _RETRY_S
        self._retry_at = time.time() + min(high, low * 2 ** min(self._failures - 1, 10))
        if self._failures == 1 or self._failures % _STALL_REPORT == 0:
            self._recorder.warning(self.pod, exc.reason, str(exc))
            log.info("%s: %s: %s", self.key, exc.reason, exc)
        return self._retry_at

    async def _step(self) -> float | None:
        self._runs.notice_ends()
        if self.terminating or self.state.failed:
            await self._terminate()
            return None
        now = time.time()
        deadline = self._deadline()
        if deadline is not None and now >= deadline:
            self.state.failed, self.state.reason = True, "DeadlineExceeded"
            self.state.message = "Pod was active on the node longer than the specified deadline"
            self._recorder.normal(self.pod, "DeadlineExceeded", self.state.message)
            await self._terminate()
            return None
        if decide.phase(self.pod, self.state) in (decide.Phase.SUCCEEDED, decide.Phase.FAILED) and self._all_begun():
            await self._finish()
            return None
        if not self.state.start_time:
            self.state.start_time = clock.stamp(clock.now())
            self.save()
            self._publish(self)
        if self._retry_at > now and not self._volumes_ready:
            return self._retry_at
        if not self.state.sandbox and not self.pod["spec"].get("hostNetwork") and not self._network_ready():
            # Not an error of the pod: the manager wakes it as soon as a network is there.
            if not self._told_no_network:
                self._told_no_network = True
                text = "network is not ready: container runtime network not ready: cni plugin not initialized"
                self._recorder.warning(self.pod, "NetworkNotReady", text)
            return deadline
        if not self.state.sandbox:
            # Volumes may need the API, the network its plugin; neither waits for the other's disk or process.
            await self._make_sandbox()
        if not self._volumes_ready:
            await volumes.setup(self.pod, self.files, self._objects)
            self._volumes_ready = True
            self._refresh_at = now + _REFRESH_S
        elif now >= self._refresh_at or self._spec_changed:
            await volumes.refresh(self.pod, self.files, self._objects)
            self._refresh_at = now + _REFRESH_S
            self._spec_changed = False
        if not self.state.initialized and decide.initialized(self.pod, self.state):
            self.state.initialized = True
        await self._runs.stop_unhealthy()
        decision = decide.decide(self.pod, self.state, time.time())
        if decision.start:
            containers = {container["name"]: container for container in self.every()}
            await asyncio.gather(*(self._runs.start(containers[name]) for name in decision.start))
            self.wake()  # their start may allow more
        if decision.finished:
            for name in decision.stop_sidecars:
                await self._runs.stop(name, self._runs.grace_s())
            await self._finish()
            return None
        return min((at for at in (decision.wake_at, deadline, self._next_refresh()) if at is not None), default=None)

    def _next_refresh(self) -> float | None:
        """Tokens are renewed; other payloads are refreshed when their objects change."""
        return self._objects.renewal_at(self.uid)

    def _deadline(self) -> float | None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None or not self.state.start_time:
            return None
        return clock.parse(self.state.start_time).timestamp() + float(seconds)

    def every(self) -> list[Object]:
        """All containers, init ones first."""
        return [*decide.init_containers(self.pod), *self.pod["spec"]["containers"]]

    def _all_begun(self) -> bool:
        return all(not held.running for held in self.state.containers.values())

    # --- sandbox ---

    def _attachment(self) -> cni.Attachment:
        mappings = tuple(
            {
                "hostPort": port["hostPort"],
                "containerPort": port["containerPort"],
                "protocol": port.get("protocol", "TCP").lower(),
                **({"hostIP": port["hostIP"]} if port.get("hostIP") else {}),
            }
            for container in self.pod["spec"]["containers"]
            for port in container.get("ports") or []
            if port.get("hostPort")
        )
        netns = str(sandbox.netns_path(self.uid))
        return cni.Attachment(self.uid.replace("-", ""), netns, self.key, self.uid, mappings)

    async def _make_sandbox(self) -> None:
        spec = self.pod["spec"]
        own_network = not spec.get("hostNetwork")
        self.files.base.mkdir(parents=True, exist_ok=True, mode=0o750)
        self.files.logs.mkdir(parents=True, exist_ok=True)
        sysctls = {
            entry["name"]: str(entry["value"]) for entry in (spec.get("securityContext") or {}).get("sysctls") or []
        }
        async with self._gates.networks:
            await asyncio.get_running_loop().run_in_executor(
                None,
                lambda: sandbox.make(
                    self.uid,
                    self.files.base,
                    hostname=self._starter.hostname(self.pod),
                    network=own_network,
                    ipc=not spec.get("hostIPC"),
                    sysctls=sysctls,
                ),
            )
            if own_network:
                network = cni.load()
                if network is None:
                    raise CniError("cni plugin not initialized: no configuration in /etc/cni/net.d")
                result = await cni.add(network, self._attachment())
                self.state.addresses = result.addresses
        if not own_network:
            self.state.addresses = (self._settings.address,)
        self._starter.shared_memory(self.files)
        self.state.sandbox = self._attachment().container
        # The downward API must see the addresses before the API server has told them back to us.
        status_: Object = dict(self.pod.get("status") or {})
        status_ |= {"podIP": self.state.addresses[0], "hostIP": self._settings.address}
        status_["podIPs"] = [{"ip": address} for address in self.state.addresses]
        status_["hostIPs"] = [{"ip": self._settings.address}]
        self.pod = {**self.pod, "status": status_}
        self._starter.network_files(self.pod, self.state, self.files)
        self.save()

    async def _drop_sandbox(self) -> None:
        if not self.pod["spec"].get("hostNetwork"):
            async with self._gates.removals:
                await cni.delete(self._attachment())
        await asyncio.get_running_loop().run_in_executor(None, sandbox.remove, self.uid, self.files.base)
        self.state.sandbox = ""

    # --- the end ---

    async def _stop_all(self) -> None:
        grace_s = 0.0 if self.deleted else self._runs.grace_s()
        mains = [container["name"] for container in self.pod["spec"]["containers"]]
        others = [container["name"] for container in decide.init_containers(self.pod)]
        running = [name for name in mains if self.state.container(name).running]
        await asyncio.gather(*(self._runs.stop(name, grace_s) for name in running))
        for name in reversed(others):
            await self._runs.stop(name, grace_s)

    async def _finish(self) -> None:
        """Everything ran to its end: give the network back; containers stay for their logs."""
        self._runs.stop_all_probes()
        if self.state.sandbox:
            await self._drop_sandbox()

    async def _terminate(self) -> None:
        """Stop all containers and remove everything but the logs; the API object goes last (the manager's work)."""
        self._publish(self)
        await self._stop_all()
        self._publish(self)
        for held in self.state.containers.values():
            if held.container:
                container = ContainerId(held.container)
                await runtime.delete(container, self.files.bundle(container))
        if self.state.sandbox or sandbox.netns_path(self.uid).exists():
            await self._drop_sandbox()
        if self.state.failed and not self.terminating:
            return
        await asyncio.get_running_loop().run_in_executor(None, self._remove_files)
        self._objects.forget(self.uid)
        if self._timer is not None:
            self._timer.cancel()
        self.done.set()

    def _remove_files(self) -> None:
        volumes.teardown(self.files)
        self._starter.release(self.uid)
        shutil.rmtree(self.files.base, ignore_errors=True)
        shutil.rmtree(self.files.logs, ignore_errors=True)

    def save(self) -> None:
        """Write the state down; a full disk must not end the pod."""
        if not self.done.is_set():
            with contextlib.suppress(OSError):
                state.save(self.files.state, self.state)

    def status(self) -> Object:
        """For the API."""
        return status.compute(self.pod, self.state, host_ip=self._settings.address, now=clock.stamp(clock.now()))

    def container_log(self, name: str, *, previous: bool) -> Path | None:
        """The log of the present (or last) run, or of the run before it."""
        held = self.state.containers.get(name)
        if held is None or not held.container:
            return None
        number = held.restarts - 1 if previous else held.restarts
        return self.files.log(name, number) if number >= 0 else None
