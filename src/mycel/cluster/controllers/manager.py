"""Wires the controllers: one client, one informer per kind, one task per controller, the scheduler."""

from __future__ import annotations

import asyncio
import logging

from mycel.cluster.controllers import (
    daemonset,
    deployment,
    endpoints,
    evictions,
    nodes,
    replicaset,
    serviceaccounts,
    statefulset,
)
from mycel.cluster.controllers.apply import Applier
from mycel.cluster.controllers.garbage import GarbageCollector
from mycel.cluster.controllers.loop import Controller, run_controller
from mycel.cluster.controllers.namespaces import NamespaceController
from mycel.cluster.controllers.recorder import Recorder
from mycel.cluster.controllers.scheduler.loop import Scheduler
from mycel.cluster.controllers.settings import ClusterSettings, ControllerSettings
from mycel.cluster.controllers.world import World
from mycel.k8s.client import ApiClient, Endpoint
from mycel.k8s.informer import Informer
from mycel.k8s.resources import CRDS, NAMESPACES

log = logging.getLogger(__name__)


def controllers(settings: ControllerSettings, ca_pem: str) -> tuple[Controller, ...]:
    """All controllers of a cluster."""
    return (
        nodes.controller(settings),
        serviceaccounts.controller(ca_pem),
        deployment.CONTROLLER,
        replicaset.CONTROLLER,
        daemonset.CONTROLLER,
        statefulset.CONTROLLER,
        endpoints.CONTROLLER,
        evictions.controller(settings),
    )


async def run(endpoint: Endpoint, cluster: ClusterSettings) -> None:
    """Run every controller and the scheduler against the API server at `endpoint` until cancelled."""
    settings = cluster if isinstance(cluster, ControllerSettings) else ControllerSettings(pod_subnet=cluster.pod_subnet)
    wired = controllers(settings, settings.ca_pem or endpoint.ca_pem or "")
    triggers = (resource for one in wired for resource in one.triggers)
    world = World(dict.fromkeys([*triggers, NAMESPACES, CRDS]))
    async with ApiClient(endpoint, user_agent="mycel-controllers") as client, asyncio.TaskGroup() as group:
        notes = Recorder(client)
        group.create_task(notes.run(), name="events")
        await _fill(client, world, group)
        applier = Applier(client, world, notes)
        for controller in wired:
            group.create_task(run_controller(controller, world, applier), name=controller.name)
        group.create_task(Scheduler(world, applier).run(), name="scheduler")
        spaces = NamespaceController(client, world, applier)
        collector = GarbageCollector(client, world, on_removed=spaces.hear_removed)
        group.create_task(collector.run(), name="garbage collector")
        group.create_task(spaces.run(collector), name="namespaces")


async def _fill(client: ApiClient, world: World, group: asyncio.TaskGroup) -> None:
    """Start one informer per kind and wait until every cache holds what there is."""
    informers = [Informer(client, resource, on_change=world[resource].hear) for resource in world.resources]
    for informer in informers:
        group.create_task(informer.run(), name=f"watch {informer.resource}")
    await asyncio.gather(*(informer.wait_synced() for informer in informers))
    log.info("the caches of %d kinds are filled, controllers start", len(informers))
