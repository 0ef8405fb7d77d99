"""The one loop all controllers run in: wake, read, decide, apply, and again later if need be.

A controller is data: which kinds wake which objects, and a pure function from the world to a decision. Order
is kept per object by the work queue; failures come back after a pause.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mycel.cluster.controllers.apply import Applier
from mycel.cluster.controllers.objects import Key, Obj, controller_ref, key, namespace
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision
from mycel.k8s.errors import ApiError, Conflict
from mycel.k8s.resources import Resource
from mycel.kit.workqueue import WorkQueue

log = logging.getLogger(__name__)

Trigger = Callable[[World, Obj | None, Obj | None], Iterable[Key]]
"""Which of the controller's objects a change (old, new) of some kind concerns."""


@dataclass(frozen=True, slots=True)
class Controller:
    """One kind of decision, and what wakes it."""

    name: str
    decide: Callable[[World, Key, float], Decision]
    triggers: Mapping[Resource, Trigger]
    workers: int = 4


def itself(_world: World, old: Obj | None, new: Obj | None) -> Iterable[Key]:
    """Trigger: the changed object's own key."""
    obj = new if new is not None else old
    return () if obj is None else (key(obj),)


def its_controller(kind: str) -> Trigger:
    """Trigger: the owner of that kind that manages (or just managed) the changed object."""

    def wake(_world: World, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        found: set[Key] = set()
        for obj in (old, new):
            ref = controller_ref(obj) if obj is not None else None
            if obj is not None and ref is not None and ref.get("kind") == kind:
                found.add((namespace(obj), ref["name"]))
        return found

    return wake


async def run_controller(controller: Controller, world: World, applier: Applier) -> None:
    """Run one controller until cancelled; the caches are synced already."""
    queue: WorkQueue[Key] = WorkQueue()
    for resource, trigger in controller.triggers.items():
        _connect(world, resource, trigger, queue)
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(controller.workers):
                group.create_task(_work(controller, world, applier, queue), name=f"{controller.name}-{number}")
    finally:
        queue.close()


def _connect(world: World, resource: Resource, trigger: Trigger, queue: WorkQueue[Key]) -> None:
    def hear(old: Obj | None, new: Obj | None) -> None:
        for woken in trigger(world, old, new):
            queue.add(woken)

    cache = world[resource]
    cache.subscribe(hear)
    for obj in list(cache.objects.values()):
        hear(None, obj)


async def _work(controller: Controller, world: World, applier: Applier, queue: WorkQueue[Key]) -> None:
    while True:
        woken = await queue.get()
        try:
            decision = controller.decide(world, woken, time.time())
            await applier.apply(decision)
        except Conflict as exc:
            log.debug("%s %s: %s; looking again", controller.name, "/".join(woken), exc)
            queue.retry(woken)
        except ApiError as exc:
            pause_s = queue.retry(woken)
            log.info("%s %s: %s; again in %.1f s", controller.name, "/".join(woken), exc, pause_s)
        except Exception:
            # The border between controllers: one object that a rule cannot digest must not end the API
            # server that shares this process. It is logged in full and tried again more and more slowly.
            pause_s = queue.retry(woken)
            log.exception("%s %s failed; again in %.1f s", controller.name, "/".join(woken), pause_s)
        else:
            queue.forget(woken)
            if decision.again_s is not None:
                queue.add_after(woken, decision.again_s)
        finally:
            queue.done(woken)
