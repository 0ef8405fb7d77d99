"""Which revision of policies is realized: the one the kernel has been read back with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from mycel.abi import EndpointValue, InterfaceKey
from mycel.agent.endpoints import Endpoints
from mycel.agent.planner import Part, Planner
from mycel.agent.policy_objects import PolicyObjects
from mycel.model.workload import EndpointId
from mycel.plan.rows import EndpointPolicy
from mycel.policy.engine import Engine

_AGAIN_S = 0.02


class Readback:
    """Looks after each plan, and lets the engine forget what no row leads to any more."""

    def __init__(
        self,
        engine: Engine,
        objects: PolicyObjects,
        endpoints: Endpoints,
        row: Callable[[InterfaceKey], EndpointValue | None],
    ) -> None:
        """`row`: what the kernel has of a device."""
        self._engine = engine
        self._objects = objects
        self._endpoints = endpoints
        self._row = row
        self._held: dict[EndpointId, tuple[int, EndpointPolicy]] = {}  # by device; seen in the kernel

    async def run(self, planner: Planner) -> None:
        """Until cancelled."""
        seen = 0
        while True:
            seen = await planner.planned.newer_than(seen)
            planned = planner.planned.value
            await planner.applied(planned.version)
            while not self._is_held(planned.endpoints or {}):
                if planner.planned.version > seen:
                    break  # the kernel is further already
                await asyncio.sleep(_AGAIN_S)  # an intruder's rows: the next round mends them
            else:
                self._objects.realize(planned.revision)
            if self._engine.forget_retired():
                planner.touch(Part.POLICY)

    def _is_held(self, wanted: Mapping[EndpointId, EndpointPolicy]) -> bool:
        """Whether the kernel has every endpoint's sets; what it was seen to have is not asked again."""
        held: dict[EndpointId, tuple[int, EndpointPolicy]] = {}
        for endpoint in self._endpoints.all().values():
            policy = wanted.get(endpoint.endpoint_id)
            if policy is None:
                continue  # being made or removed: not ready, so closed
            if self._held.get(endpoint.endpoint_id) != (endpoint.ifindex, policy):
                found = self._row(InterfaceKey(endpoint.ifindex))
                if found is None:
                    continue  # the same
                if (found.ingress_set, found.egress_set) != policy[:2]:
                    return False
            held[endpoint.endpoint_id] = endpoint.ifindex, policy
        self._held = held
        return True
