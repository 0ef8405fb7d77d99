"""Pods that are closed because their policy needs more rows than a set holds: said in the log and as an event."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

from mycel.agent.endpoints import Endpoints
from mycel.agent.planner import Planner
from mycel.agent.policies import Policies
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError
from mycel.k8s.resources import EVENTS
from mycel.model.workload import EndpointId, LocalEndpoint

log = logging.getLogger(__name__)


async def tell_overflows(
    client: ApiClient, policies: Policies, planner: Planner, *, endpoints: Endpoints, node: str
) -> None:
    """Say once of each pod that it is closed, and that it is not any more. Until cancelled."""
    told: dict[EndpointId, str] = {}
    seen = 0
    while True:
        seen = await planner.planned.newer_than(seen)
        now = policies.overflows()
        for number, directions in now.items():
            endpoint = endpoints.all().get(number)
            if endpoint is None or told.get(number) == directions:
                continue
            message = (
                f"{directions} is closed: the pod's policy needs more rows than a set holds; "
                "let it select fewer peers or ports"
            )
            log.error("endpoint %d, pod %s: %s", number, endpoint.ref, message)
            try:
                await client.create(EVENTS, overflow_event(endpoint, message, node), namespace=endpoint.ref.namespace)
            except ApiError as exc:
                log.info("the event about pod %s is not written: %s", endpoint.ref, exc)
        for number in told.keys() - now.keys():
            log.info("endpoint %d: its policy fits again", number)
        told = now


def overflow_event(endpoint: LocalEndpoint, message: str, node: str) -> dict[str, Any]:
    """A v1 Event about a pod."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ref = {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": endpoint.ref.namespace,
        "name": endpoint.ref.name,
        "uid": endpoint.uid,
    }
    return {
        "metadata": {"name": f"{endpoint.ref.name}.{time.time_ns():x}", "namespace": endpoint.ref.namespace},
        "involvedObject": ref,
        "type": "Warning",
        "reason": "PolicyTooLarge",
        "message": message,
        "source": {"component": "cilium-agent", "host": node},
        "reportingComponent": "cilium-agent",
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
