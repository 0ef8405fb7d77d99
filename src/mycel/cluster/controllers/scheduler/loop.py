"""The scheduler's loop: gather what waits, place it all into one snapshot, bind side by side.

A pod that fits nowhere waits until a node or a placed pod changes; nothing polls. Between the binding
request and the watch event that shows it, a pod is `assumed` on its node, so the next pass counts it there.
"""

from __future__ import annotations

import asyncio
import logging
import time

from mycel.cluster.controllers.apply import Applier
from mycel.cluster.controllers.objects import (
    Key,
    Obj,
    condition,
    created_s,
    evolve,
    is_deleting,
    is_finished,
    key,
    labels,
    name,
    namespace,
    spec,
    status,
    uid,
    with_condition,
)
from mycel.cluster.controllers.scheduler.choose import choose
from mycel.cluster.controllers.scheduler.snapshot import take
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, Note, Verb, Write, update
from mycel.k8s.errors import ApiError
from mycel.k8s.resources import NODES, PODS

log = logging.getLogger(__name__)

NAME = "default-scheduler"
_GATHER_S = 0.005  # a burst of new pods is placed in few passes
_RETRY_S = 0.2  # pods that fit nowhere are looked at again at most this often
_BATCH = 25  # pods placed before other tasks of the process get their turn


class Scheduler:
    """Binds the pods that name no node. Start `run()` once the caches are synced."""

    def __init__(self, world: World, applier: Applier) -> None:
        self._world = world
        self._applier = applier
        self._waiting: dict[str, Key] = {}
        self._parked: dict[str, Key] = {}
        self._assumed: dict[str, tuple[Obj, str]] = {}
        self._wake = asyncio.Event()
        self._retry_timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Schedule until cancelled."""
        self._world[PODS].subscribe(self._hear_pod)
        self._world[NODES].subscribe(self._hear_node)
        for pod in self._world[PODS].objects.values():
            self._hear_pod(None, pod)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._wake.wait()
                    await asyncio.sleep(_GATHER_S)
                    self._wake.clear()
                    await self._pass(group)
        finally:
            if self._retry_timer is not None:
                self._retry_timer.cancel()

    async def _pass(self, group: asyncio.TaskGroup) -> None:
        waiting, self._waiting = self._waiting, {}
        pods = [pod for where in waiting.values() if (pod := self._world[PODS].get(where)) is not None]
        pods = [pod for pod in pods if _is_ours(pod) and uid(pod) not in self._assumed]
        snapshot = take(self._world, self._assumed)
        for number, pod in enumerate(sorted(pods, key=_order)):
            if number % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
            choice = choose(pod, snapshot)
            if choice.node is None:
                self._parked[uid(pod)] = key(pod)
                group.create_task(self._report(pod, choice.message), name=f"unschedulable {name(pod)}")
                continue
            snapshot.nodes[choice.node].place(pod)
            self._assumed[uid(pod)] = (pod, choice.node)
            group.create_task(self._bind(pod, choice.node), name=f"bind {name(pod)}")

    async def _bind(self, pod: Obj, node: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name(pod), "namespace": namespace(pod), "uid": uid(pod)},
            "target": target,
        }
        where = f"{namespace(pod)}/{name(pod)}"
        try:
            await self._applier.write(Write(Verb.POST, PODS, namespace(pod), name(pod), body, "binding"))
        except ApiError as exc:
            log.info("binding %s to %s: %s; trying again", where, node, exc)
            self._assumed.pop(uid(pod), None)
            self._park(pod)
            return
        if self._world[PODS].get(key(pod)) is None:
            self._assumed.pop(uid(pod), None)
        scheduled = _said(pod, "Scheduled", f"Successfully assigned {where} to {node}")
        await self._applier.apply(Decision(notes=(scheduled,)))

    async def _report(self, pod: Obj, message: str) -> None:
        """Say in the pod's status, and in an Event, why it waits."""
        found = condition(pod, "PodScheduled")
        if found is not None and found.get("message") == message:
            return
        fresh = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        conditions = with_condition(status(pod).get("conditions"), fresh, time.time())
        waiting = evolve(pod, "status", "conditions", value=conditions)
        failed = _said(pod, "FailedScheduling", message, warning=True)
        try:
            await self._applier.apply(Decision(update(PODS, pod, waiting, subresource="status"), (failed,)))
        except ApiError as exc:
            log.info("reporting that %s cannot be scheduled: %s", name(pod), exc)

    def _hear_pod(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None and _is_ours(new):
            if old is None or spec(old).get("schedulingGates") or spec(old) != spec(new):
                self._parked.pop(uid(new), None)
                self._waiting[uid(new)] = key(new)
                self._wake.set()
            return
        gone = new if new is not None else old
        if gone is None:
            return
        self._parked.pop(uid(gone), None)
        self._assumed.pop(uid(gone), None)
        moved = new is None or old is None or spec(old).get("nodeName") != spec(new).get("nodeName")
        if moved or is_finished(gone) or labels(old or {}) != labels(gone):
            self._retry_parked()

    def _hear_node(self, old: Obj | None, new: Obj | None) -> None:
        if old is None or new is None or _relevant(old) != _relevant(new):
            self._retry_parked()

    def _park(self, pod: Obj) -> None:
        self._parked[uid(pod)] = key(pod)
        self._retry_parked()

    def _retry_parked(self) -> None:
        if self._parked and self._retry_timer is None:
            loop = asyncio.get_running_loop()
            self._retry_timer = loop.call_later(_RETRY_S, self._unpark)

    def _unpark(self) -> None:
        self._retry_timer = None
        self._waiting.update(self._parked)
        self._parked.clear()
        self._wake.set()


def _said(pod: Obj, reason: str, message: str, *, warning: bool = False) -> Note:
    return Note(PODS, namespace(pod), name(pod), uid(pod), reason, message, warning, component=NAME)


def _is_ours(pod: Obj) -> bool:
    """A pod that waits for this scheduler."""
    found = spec(pod)
    return (
        not found.get("nodeName")
        and (found.get("schedulerName") or NAME) == NAME
        and not found.get("schedulingGates")
        and not is_deleting(pod)
        and not is_finished(pod)
    )


def _order(pod: Obj) -> tuple[float, float, str]:
    """Higher priority first, then older."""
    return -(spec(pod).get("priority") or 0), created_s(pod), name(pod)


def _relevant(node: Obj) -> tuple[object, ...]:
    found = spec(node)
    capacity = status(node).get("allocatable") or status(node).get("capacity")
    return labels(node), found.get("taints"), found.get("unschedulable"), capacity
