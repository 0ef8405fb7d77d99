"""One pod on this node: a task that brings what runs to what the pod says, again and again, until the pod is gone.

Wakes on every change (the pod, a container's end, a probe, a backoff that is over), asks `decide` for the next step and does it.
State is on disk before and after each step, so a new node program goes on where this one was killed.
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
from mycel.cluster.node.errors import CniError, ConfigError, ImageError, NodeError, RunError, VolumeError
from mycel.cluster.node.events import Recorder
from mycel.cluster.node.hooks import run_hook
from mycel.cluster.node.names import ContainerId, Object, PodFiles, key_of, uid_of
from mycel.cluster.node.objects import Objects
from mycel.cluster.node.probes import Kind, Probes, Target
from mycel.cluster.node.settings import NodeSettings
from mycel.cluster.node.state import ContainerState, Ended, PodState

log = logging.getLogger(__name__)
_RETRY_S = (0.5, 20.0)
_REFRESH_S = 60.0
_STALL_REPORT = 3  # attempts without a network before it becomes an event


class Gates:
    """How much of what may go on at once on this node."""

    def __init__(self, cpus: int) -> None:
        self.containers = asyncio.Semaphore(max(4, cpus * 3))
        self.networks = asyncio.Semaphore(max(4, cpus * 3))


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
        self._probes: dict[str, Probes] = {}
        self._unhealthy: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._refresh_at = 0.0
        self._volumes_ready = False
        self._spec_changed = False
        self._told_no_network = False
        self.deleted = False  # the object is gone from the API
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
        self._wake.set()

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
        if self.state.sandbox:
            self._volumes_ready = True
        for container in self._every():
            held = self.state.container(container["name"])
            if held.running:
                self._watch(container, held)

    @property
    def terminating(self) -> bool:
        return self.deleted or bool(self.pod["metadata"].get("deletionTimestamp"))

    # --- the loop ---

    async def run(self) -> None:
        """Until the pod is gone."""
        while not self.done.is_set():
            self._wake.clear()
            try:
                wake_at = await self._step()
                self._failures = 0
            except NodeError as exc:
                wake_at = self._retry(exc)
            except OSError as exc:
                log.warning("%s: %s", self.key, exc)
                wake_at = self._retry(NodeError(str(exc)))
            self._save()
            self._publish(self)
            if self.done.is_set():
                return
            self._sleep_until(wake_at)
            await self._wake.wait()

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
        self._notice_ends()
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
            self._save()
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
        for name, message in list(self._unhealthy.items()):
            await self._kill_unhealthy(name, message)
        decision = decide.decide(self.pod, self.state, time.time())
        if decision.start:
            containers = {container["name"]: container for container in self._every()}
            await asyncio.gather(*(self._start(containers[name]) for name in decision.start))
            self.wake()  # their start may allow more
        if decision.finished:
            for name in decision.stop_sidecars:
                await self._stop_container(name, self._grace_s())
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

    def _every(self) -> list[Object]:
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
        self._save()

    async def _drop_sandbox(self) -> None:
        if not self.pod["spec"].get("hostNetwork"):
            async with self._gates.networks:
                await cni.delete(self._attachment())
        await asyncio.get_running_loop().run_in_executor(None, sandbox.remove, self.uid, self.files.base)
        self.state.sandbox = ""

    # --- containers ---

    async def _start(self, container: Object) -> None:
        """One run of one container; failures become its waiting state, never the pod's."""
        name = container["name"]
        held = self.state.container(name)
        old = held.container
        if old:
            await runtime.delete(ContainerId(old), self.files.bundle(ContainerId(old)))
        fresh = self._starter.new_id()
        previous = held.ended
        held.message = ""
        try:
            image = self._starter.image(self.pod, container)
            if not held.image_id:
                self._recorder.normal(
                    self.pod,
                    "Pulled",
                    f'Container image "{container["image"]}" already present on machine',
                    container=name,
                )
            held.image_id = image.image_id
            if old:
                held.restarts += 1
            held.container, held.started, held.passed_startup, held.ready = fresh, "", False, False
            self._save()  # before anything of it exists
            async with self._gates.containers:
                await self._starter.create(self.pod, container, self.state, self.files, fresh)
                self._recorder.normal(self.pod, "Created", f"Created container: {name}", container=name)
                await runtime.start(fresh)
        except (ImageError, ConfigError, VolumeError) as exc:
            held.container = old
            self._cannot_start(container, held, exc)
            return
        except RunError as exc:
            self._run_failed(container, held, fresh, exc)
            return
        if previous is not None:
            held.last = previous
        held.ended = None
        held.waiting, held.started = "", clock.stamp(clock.now())
        self._recorder.normal(self.pod, "Started", f"Started container {name}", container=name)
        self._save()
        self._watch(container, held)
        hook = (container.get("lifecycle") or {}).get("postStart")
        if hook:
            failure = await run_hook(hook, self._target(container, held), timeout_s=self._grace_s())
            if failure:
                self._recorder.warning(
                    self.pod, "FailedPostStartHook", f"PostStartHook failed: {failure}", container=name
                )
                await self._stop_container(name, self._grace_s())
        self._starter.link_log(self.pod, container, self.files, held)

    def _cannot_start(self, container: Object, held: ContainerState, exc: NodeError) -> None:
        held.failures += 1
        repeated = held.failures > 1
        held.waiting = exc.reason
        if exc.reason == "ErrImagePull" and repeated:
            held.waiting = "ImagePullBackOff"
        held.message = str(exc)
        wait_s = decide.backoff_s(held.failures + 1)
        held.not_before = time.time() + wait_s
        self._recorder.warning(self.pod, "Failed", str(exc), container=container["name"])
        if held.waiting == "ImagePullBackOff":
            self._recorder.normal(
                self.pod,
                "BackOff",
                f'Back-off pulling image "{container["image"]}"',
                container=container["name"],
            )

    def _run_failed(self, container: Object, held: ContainerState, fresh: ContainerId, exc: RunError) -> None:
        now = clock.stamp(clock.now())
        held.started = ""
        self._recorder.warning(self.pod, "Failed", f"Error: {exc}", container=container["name"])
        ended = Ended(fresh, exc.code, "StartError" if exc.code == 128 else "ContainerCannotRun", "", now, str(exc))
        self._ended(container, held, ended, ran_s=0)

    def _watch(self, container: Object, held: ContainerState) -> None:
        name = container["name"]
        self._stop_probes(name)
        if not container.get("readinessProbe"):
            held.ready = held.passed_startup or not container.get("startupProbe")
        self._probes[name] = Probes(
            container,
            self._target(container, held),
            changed=lambda kind, good, message: self._probed(container, kind, good, message),
            failed=lambda kind, message: self._probe_failed(container, kind, message),
            passed_startup=held.passed_startup,
        )

    def _target(self, container: Object, held: ContainerState) -> Target:
        ports = {port["name"]: port["containerPort"] for port in container.get("ports") or [] if port.get("name")}
        address = self.state.addresses[0] if self.state.addresses else self._settings.address
        return Target(ContainerId(held.container), address, ports)

    def _probed(self, container: Object, kind: Kind, good: bool, message: str) -> None:
        held = self.state.container(container["name"])
        if kind is Kind.READINESS:
            held.ready = good
        elif kind is Kind.STARTUP and good:
            held.passed_startup = True
            held.ready = not container.get("readinessProbe")
        elif not good:
            self._unhealthy[container["name"]] = f"Container {container['name']} failed {kind} probe, will be restarted"
        del message
        self.wake()

    def _probe_failed(self, container: Object, kind: Kind, message: str) -> None:
        text = f"{kind.capitalize()} probe failed: {message}"
        self._recorder.warning(self.pod, "Unhealthy", text, container=container["name"])

    def _stop_probes(self, name: str) -> None:
        probes = self._probes.pop(name, None)
        if probes is not None:
            probes.stop()

    async def _kill_unhealthy(self, name: str, message: str) -> None:
        del self._unhealthy[name]
        held = self.state.container(name)
        if not held.running:
            return
        self._recorder.normal(self.pod, "Killing", message, container=name)
        container = next(item for item in self._every() if item["name"] == name)
        probe = container.get("livenessProbe") or container.get("startupProbe") or {}
        grace_s = float(probe.get("terminationGracePeriodSeconds") or self._grace_s())
        await self._stop_container(name, grace_s, quiet=True)

    def _notice_ends(self) -> None:
        """Exit files of containers that were running."""
        for container in self._every():
            held = self.state.container(container["name"])
            if not held.running:
                continue
            container_id = ContainerId(held.container)
            found = runtime.exit_of(container_id)
            if found is None:
                if runtime.alive(self.files.bundle(container_id)):
                    continue
                found = runtime.Exit(137, clock.now())  # it went together with its conmon
            reason = (
                "Completed"
                if found.code == 0
                else "OOMKilled"
                if (self.files.bundle(container_id) / "oom").exists()
                else "Error"
            )
            message = self._starter.termination_message(container, self.files, held)
            ended = Ended(held.container, found.code, reason, held.started, clock.stamp(found.at), message)
            ran_s = (found.at - clock.parse(held.started)).total_seconds()
            self._ended(container, held, ended, ran_s=ran_s)

    def _ended(self, container: Object, held: ContainerState, ended: Ended, *, ran_s: float) -> None:
        name = container["name"]
        self._stop_probes(name)
        held.ended, held.started, held.ready, held.passed_startup = ended, "", False, False
        held.waiting = ""
        held.failures = 1 if ran_s > decide.FORGIVE_S else held.failures + 1
        again = not self.terminating and (decide.is_sidecar(container) or decide.should_restart(self.pod, held))
        is_done_init = (
            container in decide.init_containers(self.pod) and ended.code == 0 and not decide.is_sidecar(container)
        )
        if not again or is_done_init:
            return
        wait_s = decide.backoff_s(held.failures)
        held.not_before = time.time() + wait_s
        if wait_s > 0:
            held.last = ended
            held.waiting = "CrashLoopBackOff"
            held.message = (
                f"back-off {_span(wait_s)} restarting failed container={name} "
                f"pod={self.key.name}_{self.key.namespace}({self.uid})"
            )
            text = (
                f"Back-off restarting failed container {name} in pod {self.key.name}_{self.key.namespace}({self.uid})"
            )
            self._recorder.warning(self.pod, "BackOff", text, container=name)

    # --- the end ---

    def _grace_s(self) -> float:
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        grace = metadata.get("deletionGracePeriodSeconds")
        if grace is None:
            grace = spec.get("terminationGracePeriodSeconds")
        return 30.0 if grace is None else max(1.0, float(grace))

    async def _stop_container(self, name: str, grace_s: float, *, quiet: bool = False) -> None:
        """preStop, SIGTERM, and after the grace period SIGKILL; returns when the container has ended."""
        held = self.state.container(name)
        if not held.running:
            return
        container = next(item for item in self._every() if item["name"] == name)
        if not quiet:
            self._recorder.normal(self.pod, "Killing", f"Stopping container {name}", container=name)
        deadline = time.monotonic() + grace_s
        container_id = ContainerId(held.container)
        if name in self._probes:
            self._probes[name].stop(keep_readiness=True)
        hook = (container.get("lifecycle") or {}).get("preStop")
        if hook and not self.deleted:
            failure = await run_hook(hook, self._target(container, held), timeout_s=grace_s)
            if failure:
                self._recorder.warning(self.pod, "FailedPreStopHook", f"PreStopHook failed: {failure}", container=name)
        if runtime.exit_of(container_id) is None:
            await runtime.kill(container_id, 15)
        if not await self._wait_exit(container_id, max(2.0 if hook else 0.0, deadline - time.monotonic())):
            await runtime.kill(container_id, 9)
            await self._wait_exit(container_id, 10)
        self._stop_probes(name)
        self._notice_ends()

    async def _wait_exit(self, container: ContainerId, timeout_s: float) -> bool:
        """Until the container's exit file is there; a deletion that becomes forced ends the wait."""
        deadline = time.monotonic() + timeout_s
        while runtime.exit_of(container) is None:
            if not runtime.alive(self.files.bundle(container)):
                # conmon writes the file just after the process is reaped
                await asyncio.sleep(0.05)
                return True
            left = deadline - time.monotonic()
            if left <= 0 or self.deleted:
                return False
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(left, 5.0))
        return True

    async def _stop_all(self) -> None:
        grace_s = 0.0 if self.deleted else self._grace_s()
        mains = [container["name"] for container in self.pod["spec"]["containers"]]
        others = [container["name"] for container in decide.init_containers(self.pod)]
        running = [name for name in mains if self.state.container(name).running]
        await asyncio.gather(*(self._stop_container(name, grace_s) for name in running))
        for name in reversed(others):
            await self._stop_container(name, grace_s)

    async def _finish(self) -> None:
        """Everything ran to its end: give the network back; containers stay for their logs."""
        for name in list(self._probes):
            self._stop_probes(name)
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

    def _save(self) -> None:
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


def _span(seconds: float) -> str:
    """Go's way of writing a duration of whole seconds."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
