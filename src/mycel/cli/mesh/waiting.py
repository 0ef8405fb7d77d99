"""Waiting until the mesh works: look, tell what is missing, look again."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

from mycel.cli.errors import BadInput, Failure
from mycel.cli.mesh.agents import read_report
from mycel.cli.mesh.health import Report, dns_waits
from mycel.cli.progress import step
from mycel.k8s.resources import ENDPOINT_SLICES, SERVICES

if TYPE_CHECKING:
    from mycel.k8s.client import ApiClient

_PAUSE_S = 1.0
_DNS_NAMESPACE, _DNS_SELECTOR = "kube-system", "k8s-app=kube-dns"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Go's durations: 90s, 5m, 1h30m. Seconds. Raises BadInput."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadInput(f"{text!r} is not a duration", hint="Write it as 30s, 5m or 1h30m.")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


async def wait_until_healthy(client: ApiClient, namespace: str, *, timeout_s: float, dns: bool = False) -> Report:
    """Return the first healthy report. Raises Failure with what is still missing after `timeout_s`.

    With `dns` the cluster's DNS, if it has one, has to answer too: what is started next will ask it.
    """
    deadline = time.monotonic() + timeout_s
    with step("Waiting for the mesh") as doing:
        while True:
            report = await read_report(client, namespace)
            missing = report.problems()
            if not missing and (not dns or await dns_answers(client)):
                return report
            doing.update(report.progress() + ("" if missing else ", cluster DNS not ready"))
            missing = missing or ["cluster DNS (service kube-system/kube-dns) has no ready pod"]
            if time.monotonic() >= deadline:
                raise Failure(
                    f"the mesh is not healthy after {timeout_s:.0f} s: {'; '.join(missing[:3])}",
                    hint=f"kubectl -n {namespace} get pods -o wide shows which pod is stuck.",
                )
            await asyncio.sleep(_PAUSE_S)


async def dns_answers(client: ApiClient) -> bool:
    """Whether the cluster's DNS has a ready pod; True for a cluster without one. Raises ApiError."""
    label = "kubernetes.io/service-name="
    services = (await client.list(SERVICES, namespace=_DNS_NAMESPACE, label_selector=_DNS_SELECTOR)).items
    slices = [
        item
        for service in services
        for item in (
            await client.list(
                ENDPOINT_SLICES, namespace=_DNS_NAMESPACE, label_selector=label + service["metadata"]["name"]
            )
        ).items
    ]
    return not dns_waits(services, slices)
