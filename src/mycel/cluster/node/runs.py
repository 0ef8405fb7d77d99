"""The runs of one pod's containers: starting them, watching them with probes, noticing their ends, stopping them.

`pods` decides when; every change is written to the pod's state first, so that a new node program finds what this
one made.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Protocol

from mycel.cluster.node import clock, decide, runtime
from mycel.cluster.node.containers import Starter
from mycel.cluster.node.errors import ConfigError, ImageError, NodeError, RunError, VolumeError
from mycel.cluster.node.events import Recorder
from mycel.cluster.node.hooks import run_hook
from mycel.cluster.node.names import ContainerId, Object, PodFiles, PodKey, PodUid
from mycel.cluster.node.probes import Kind, Probes, Target
from mycel.cluster.node.settings import NodeSettings
from mycel.cluster.node.state import ContainerState, Ended, PodState


class Owner(Protocol):
    """The pod whose containers these are."""

    pod: Object
    uid: PodUid
    key: PodKey
    files: PodFiles
    state: PodState
    deleted: bool
    changed: asyncio.Event

    @property
    def terminating(self) -> bool:
        """Whether the pod is on its way out."""
        ...

    def wake(self) -> None:
        """Look again."""
        ...

    def save(self) -> None:
        """Write the state down."""
        ...

    def every(self) -> list[Object]:
        """All containers, init ones first."""
        ...


class Runs:
    """Starts, watches and stops containers of one pod."""

    def __init__(
        self, owner: Owner, *, settings: NodeSettings, starter: Starter, recorder: Recorder, gate: asyncio.Semaphore
    ) -> None:
        self._owner = owner
        self._settings = settings
        self._starter = starter
        self._recorder = recorder
        self._gate = gate
        self._probes: dict[str, Probes] = {}
        self._unhealthy: dict[str, str] = {}

    async def start(self, container: Object) -> None:
        """One run of one container; failures become its waiting state, never the pod's."""
        name = container["name"]
        held = self._owner.state.container(name)
        old = held.container
        if old:
            await runtime.delete(ContainerId(old), self._owner.files.bundle(ContainerId(old)))
        fresh = self._starter.new_id()
        previous = held.ended
        held.message = ""
        try:
            image = self._starter.image(self._owner.pod, container)
            if not held.image_id:
                self._recorder.normal(
                    self._owner.pod,
                    "Pulled",
                    f'Container image "{container["image"]}" already present on machine',
                    container=name,
                )
            held.image_id = image.image_id
            if old:
                held.restarts += 1
            held.container, held.started, held.passed_startup, held.ready = fresh, "", False, False
            self._owner.save()  # before anything of it exists
            async with self._gate:
                await self._starter.create(self._owner.pod, container, self._owner.state, self._owner.files, fresh)
                self._recorder.normal(self._owner.pod, "Created", f"Created container: {name}", container=name)
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
        self._recorder.normal(self._owner.pod, "Started", f"Started container {name}", container=name)
        self._owner.save()
        self.watch(container, held)
        hook = (container.get("lifecycle") or {}).get("postStart")
        if hook:
            failure = await run_hook(hook, self._target(container, held), timeout_s=self.grace_s())
            if failure:
                self._recorder.warning(
                    self._owner.pod, "FailedPostStartHook", f"PostStartHook failed: {failure}", container=name
                )
                await self.stop(name, self.grace_s())
        self._starter.link_log(self._owner.pod, container, self._owner.files, held)

    def _cannot_start(self, container: Object, held: ContainerState, exc: NodeError) -> None:
        held.failures += 1
        repeated = held.failures > 1
        held.waiting = exc.reason
        if exc.reason == "ErrImagePull" and repeated:
            held.waiting = "ImagePullBackOff"
        held.message = str(exc)
        wait_s = decide.backoff_s(held.failures + 1)
        held.not_before = time.time() + wait_s
        self._recorder.warning(self._owner.pod, "Failed", str(exc), container=container["name"])
        if held.waiting == "ImagePullBackOff":
            self._recorder.normal(
                self._owner.pod,
                "BackOff",
                f'Back-off pulling image "{container["image"]}"',
                container=container["name"],
            )

    def _run_failed(self, container: Object, held: ContainerState, fresh: ContainerId, exc: RunError) -> None:
        now = clock.stamp(clock.now())
        held.started = ""
        self._recorder.warning(self._owner.pod, "Failed", f"Error: {exc}", container=container["name"])
        ended = Ended(fresh, exc.code, "StartError" if exc.code == 128 else "ContainerCannotRun", "", now, str(exc))
        self._ended(container, held, ended, ran_s=0)

    def watch(self, container: Object, held: ContainerState) -> None:
        name = container["name"]
        self.stop_probes(name)
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
        address = self._owner.state.addresses[0] if self._owner.state.addresses else self._settings.address
        return Target(ContainerId(held.container), address, ports)

    def _probed(self, container: Object, kind: Kind, good: bool, message: str) -> None:
        held = self._owner.state.container(container["name"])
        if kind is Kind.READINESS:
            held.ready = good
        elif kind is Kind.STARTUP and good:
            held.passed_startup = True
            held.ready = not container.get("readinessProbe")
        elif not good:
            self._unhealthy[container["name"]] = f"Container {container['name']} failed {kind} probe, will be restarted"
        del message
        self._owner.wake()

    def _probe_failed(self, container: Object, kind: Kind, message: str) -> None:
        text = f"{kind.capitalize()} probe failed: {message}"
        self._recorder.warning(self._owner.pod, "Unhealthy", text, container=container["name"])

    def stop_probes(self, name: str) -> None:
        probes = self._probes.pop(name, None)
        if probes is not None:
            probes.stop()

    async def _kill_unhealthy(self, name: str, message: str) -> None:
        del self._unhealthy[name]
        held = self._owner.state.container(name)
        if not held.running:
            return
        self._recorder.normal(self._owner.pod, "Killing", message, container=name)
        container = next(item for item in self._owner.every() if item["name"] == name)
        probe = container.get("livenessProbe") or container.get("startupProbe") or {}
        grace_s = float(probe.get("terminationGracePeriodSeconds") or self.grace_s())
        await self.stop(name, grace_s, quiet=True)

    def notice_ends(self) -> None:
        """Exit files of containers that were running."""
        for container in self._owner.every():
            held = self._owner.state.container(container["name"])
            if not held.running:
                continue
            container_id = ContainerId(held.container)
            found = runtime.exit_of(container_id)
            if found is None:
                if runtime.held(self._owner.files.bundle(container_id)):
                    continue
                # It went together with its conmon, unless that wrote the file since.
                found = runtime.exit_of(container_id) or runtime.Exit(137, clock.now())
            reason = "Completed" if found.code == 0 else "Error"
            if found.code == 137 and self._starter.out_of_memory(self._owner.uid, container_id):
                reason = "OOMKilled"
            message = self._starter.termination_message(container, self._owner.files, held)
            ended = Ended(held.container, found.code, reason, held.started, clock.stamp(found.at), message)
            ran_s = (found.at - clock.parse(held.started)).total_seconds()
            self._ended(container, held, ended, ran_s=ran_s)

    def _ended(self, container: Object, held: ContainerState, ended: Ended, *, ran_s: float) -> None:
        name = container["name"]
        self.stop_probes(name)
        held.ended, held.started, held.ready, held.passed_startup = ended, "", False, False
        held.waiting = ""
        held.failures = 1 if ran_s > decide.FORGIVE_S else held.failures + 1
        again = not self._owner.terminating and (
            decide.is_sidecar(container) or decide.should_restart(self._owner.pod, held)
        )
        is_done_init = (
            container in decide.init_containers(self._owner.pod)
            and ended.code == 0
            and not decide.is_sidecar(container)
        )
        if not again or is_done_init:
            return
        wait_s = decide.backoff_s(held.failures)
        held.not_before = time.time() + wait_s
        if wait_s > 0:
            held.last = ended
            full_name = f"{self._owner.key.name}_{self._owner.key.namespace}({self._owner.uid})"
            held.waiting = "CrashLoopBackOff"
            held.message = f"back-off {_span(wait_s)} restarting failed container={name} pod={full_name}"
            text = f"Back-off restarting failed container {name} in pod {full_name}"
            self._recorder.warning(self._owner.pod, "BackOff", text, container=name)

    async def stop(self, name: str, grace_s: float, *, quiet: bool = False) -> None:
        """preStop, SIGTERM, and after the grace period SIGKILL; returns when the container has ended."""
        held = self._owner.state.container(name)
        if not held.running:
            return
        container = next(item for item in self._owner.every() if item["name"] == name)
        if not quiet:
            self._recorder.normal(self._owner.pod, "Killing", f"Stopping container {name}", container=name)
        deadline = time.monotonic() + grace_s
        container_id = ContainerId(held.container)
        if name in self._probes:
            self._probes[name].stop(keep_readiness=True)
        hook = (container.get("lifecycle") or {}).get("preStop")
        if hook and not self._owner.deleted:
            failure = await run_hook(hook, self._target(container, held), timeout_s=grace_s)
            if failure:
                self._recorder.warning(
                    self._owner.pod, "FailedPreStopHook", f"PreStopHook failed: {failure}", container=name
                )
        bundle = self._owner.files.bundle(container_id)
        if runtime.exit_of(container_id) is None:
            await runtime.kill(container_id, bundle, 15)
        if not await self._wait_exit(container_id, max(2.0 if hook else 0.0, deadline - time.monotonic())):
            await runtime.kill(container_id, bundle, 9)
            await self._wait_exit(container_id, 10)
        self.stop_probes(name)
        self.notice_ends()

    async def _wait_exit(self, container: ContainerId, timeout_s: float) -> bool:
        """Until the container's exit file is there; a deletion that becomes forced ends the wait."""
        deadline = time.monotonic() + timeout_s
        while runtime.exit_of(container) is None:
            if not runtime.held(self._owner.files.bundle(container)):
                return True
            left = deadline - time.monotonic()
            if left <= 0 or self._owner.deleted:
                return False
            self._owner.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, 5.0)):
                    await self._owner.changed.wait()
        return True

    def grace_s(self) -> float:
        metadata, spec = self._owner.pod["metadata"], self._owner.pod["spec"]
        grace = metadata.get("deletionGracePeriodSeconds")
        if grace is None:
            grace = spec.get("terminationGracePeriodSeconds")
        return 30.0 if grace is None else max(1.0, float(grace))

    def lost(self) -> None:
        """The node was stopped under its containers: every run is over, init containers run again."""
        now = clock.stamp(clock.now())
        for container in self._owner.every():
            held = self._owner.state.container(container["name"])
            if held.running:
                held.last = Ended(held.container, 255, "Unknown", held.started, now)
            held.started, held.ended, held.waiting = "", None, "ContainerCreating"
            held.ready, held.passed_startup, held.failures, held.not_before = False, False, 0, 0.0

    async def stop_unhealthy(self) -> None:
        """End the containers whose liveness or startup probe gave up; the restart policy begins them again."""
        for name, message in list(self._unhealthy.items()):
            await self._kill_unhealthy(name, message)

    def stop_all_probes(self) -> None:
        """No further probes at all."""
        for name in list(self._probes):
            self.stop_probes(name)


def _span(seconds: float) -> str:
    """Go's way of writing a duration of whole seconds."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
