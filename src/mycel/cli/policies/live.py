"""A cluster's objects as manifests, and a flow that was seen as a flow to be judged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mycel.cli.access import Target
from mycel.cli.errors import BadInput, Failure
from mycel.k8s.errors import NotFound
from mycel.k8s.resources import (
    CILIUM_CIDR_GROUPS,
    CILIUM_CLUSTERWIDE_NETWORK_POLICIES,
    CILIUM_NETWORK_POLICIES,
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    SERVICES,
    Resource,
)

if TYPE_CHECKING:
    from mycel.api import flow_pb2
    from mycel.cli.policies.requests import Request
    from mycel.k8s.client import ApiClient

_KINDS = (
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    ENDPOINT_SLICES,
    CILIUM_CIDR_GROUPS,
    NETWORK_POLICIES,
    CILIUM_NETWORK_POLICIES,
    CILIUM_CLUSTERWIDE_NETWORK_POLICIES,
)


async def cluster_objects(client: ApiClient, namespace: str) -> list[dict[str, Any]]:
    """Everything that policy depends on; objects that are not valid are not in force, and left out by the caller."""
    lists = await asyncio.gather(*(_list(client, each) for each in _KINDS), _settings(client, namespace))
    return [item for listed in lists for item in listed]


async def _list(client: ApiClient, resource: Resource) -> list[dict[str, Any]]:
    try:
        items = (await client.list(resource)).items
    except NotFound:
        return []  # the mesh, and with it the kind, is not there
    head = {"apiVersion": resource.api_version, "kind": resource.kind}
    return [head | item for item in items]


async def _settings(client: ApiClient, namespace: str) -> list[dict[str, Any]]:
    try:
        return [{"kind": "ConfigMap", **await client.get(CONFIG_MAPS, "cilium-config", namespace=namespace)}]
    except NotFound:
        return []


async def seen_flow(target: Target, uuid: str) -> flow_pb2.Flow:
    """A flow the agents still remember. Raises Failure when none does."""
    from mycel.api import flow_pb2, observer_pb2
    from mycel.cli.flow_sources import Source, flows

    request = observer_pb2.GetFlowsRequest(number=2**64 - 1, whitelist=[flow_pb2.FlowFilter(uuid=[uuid])])
    source = Source("", None, target.context, target.kubeconfig, target.namespace)
    async for response in flows(source, request):
        if response.HasField("flow"):
            return response.flow
    raise Failure(
        f"no agent remembers flow {uuid}",
        hint="mycel hubble observe -o json shows flows with their uuid; the oldest are forgotten first.",
    )


def as_flow(flow: flow_pb2.Flow) -> dict[str, Any]:
    """Ends, protocol and port of a connection; an answer is turned round. Raises BadInput for what is none."""
    source = _end(flow.source, flow.IP.source, flow.source_names)
    destination = _end(flow.destination, flow.IP.destination, flow.destination_names)
    protocol = flow.l4.WhichOneof("protocol")
    if not flow.HasField("IP") or protocol is None:
        raise BadInput(f"flow {flow.uuid} is no connection: {flow.Summary}")
    turned = flow.is_reply.value
    if turned:
        source, destination = destination, source
    made: dict[str, Any] = {
        "id": flow.uuid,
        "from": source,
        "to": destination,
        "family": 6 if ":" in flow.IP.source else 4,
    }
    layer = getattr(flow.l4, protocol)
    if protocol.startswith("ICMP"):
        return made | {"protocol": "ICMP", "type": layer.type}
    if protocol not in ("TCP", "UDP", "SCTP"):
        raise BadInput(f"flow {flow.uuid} is of protocol {protocol}, which has no ports")
    return made | {"protocol": protocol, "port": layer.source_port if turned else layer.destination_port}


def request_of(flow: flow_pb2.Flow) -> Request | None:
    """What a proxy saw; None for a packet."""
    from mycel.cli.policies.requests import Request
    from mycel.envoy.http_misses import HttpRequest

    match flow.l7.WhichOneof("record"):
        case "http":
            http = flow.l7.http
            return Request(f"{http.method} {http.url}", http=HttpRequest.of(http.method, http.url))
        case "dns":
            return Request(f"DNS query {flow.l7.dns.query}", query=flow.l7.dns.query)
        case _:
            return None


def seen_text(flow: flow_pb2.Flow) -> str:
    """What the flow itself says of its verdict."""
    from mycel.api import flow_pb2
    from mycel.observe.printer import event_type

    named = [*flow.egress_allowed_by, *flow.egress_denied_by, *flow.ingress_allowed_by, *flow.ingress_denied_by]
    rules = [_rule_text(each) for each in named]
    by = "".join(f"\ndecided then by {rule}" for rule in rules)
    return f"{event_type(flow)} {flow_pb2.Verdict.Name(flow.verdict)} ({flow.Summary}){by}"


def _rule_text(policy: flow_pb2.Policy) -> str:
    field = next((each.partition("=")[2] for each in policy.labels if each.startswith("mycel:rule=")), "")
    place = f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
    return f"{policy.kind} {place} {field}".strip()


def _end(endpoint: flow_pb2.Endpoint, address: str, names: Iterable[str]) -> dict[str, Any]:
    if endpoint.pod_name:
        return {"pod": f"{endpoint.namespace}/{endpoint.pod_name}"}
    return {"ip": address} | ({"names": known} if (known := list(names)) else {})
