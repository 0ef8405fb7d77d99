"""An endpoint as a CiliumEndpoint says it, and as others call it."""

from __future__ import annotations

from typing import Any

from mycel.model.address import format_address, is_ipv4
from mycel.model.workload import LocalEndpoint, Workload
from mycel.plan.rows import EndpointPolicy


def endpoint_object(
    endpoint: LocalEndpoint, pod: Workload | None, *, node_address: str, enforced: EndpointPolicy
) -> dict[str, Any]:
    """The CiliumEndpoint of a wired pod."""
    directions = {"ingress": bool(enforced.ingress_set), "egress": bool(enforced.egress_set)}
    pairs: dict[str, str] = {}
    for address in endpoint.addresses:
        pairs["ipv4" if is_ipv4(address) else "ipv6"] = format_address(address)
    ports = [port._asdict() for port in pod.named_ports] if pod else []
    return {
        "metadata": {
            "name": endpoint.ref.name,
            "namespace": endpoint.ref.namespace,
            "labels": dict(pod.labels) if pod else {},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": endpoint.ref.name, "uid": endpoint.uid}],
        },
        "status": {
            "id": endpoint.endpoint_id,
            "identity": {"id": endpoint.identity, "labels": list(endpoint.labels)},
            "networking": {"addressing": [pairs], "node": node_address},
            "external-identifiers": external_identifiers(endpoint),
            "policy": {
                name: {"enforcing": on, "state": "enforcing" if on else "<status disabled>"}
                for name, on in directions.items()
            },
            "state": "ready" if endpoint.identity else "waiting-for-identity",
            "named-ports": [
                {"name": port["name"], "port": port["port"], "protocol": port["protocol"]} for port in ports
            ],
        },
    }


def external_identifiers(endpoint: LocalEndpoint) -> dict[str, str]:
    """How others call the endpoint."""
    return {
        "container-id": endpoint.container_id,
        "cni-attachment-id": f"{endpoint.container_id}:{endpoint.pod_interface}",
        "k8s-namespace": endpoint.ref.namespace,
        "k8s-pod-name": endpoint.ref.name,
        "pod-name": str(endpoint.ref),
    }
