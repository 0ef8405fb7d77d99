"""What is behind the addresses of services, for the policy model: choice 1 of `deviations.md`."""

from __future__ import annotations

from collections.abc import Iterator

from tests.oracle.parties import Cluster, Object, addresses, family_of, named_ports, namespace_of, packed

SERVICE = "kubernetes.io/service-name"


def translated(cluster: Cluster, flow: Object) -> list[Object]:
    """The flow as it is after a service's address: one for each backend, none when it leads nowhere, else itself."""
    address, asked = flow["to"].get("ip"), (flow.get("port"), flow["protocol"])
    services = [] if address is None else sorted(cluster.of("Service"), key=_place)
    for service in services:
        for port in service["spec"].get("ports") or []:
            if (port["port"], port.get("protocol") or "TCP") == asked and _among(
                address, _own(service) + _outer(service)
            ):
                ends = sorted(_behind(cluster, service, port, family_of(address)))
                return [{**flow, "to": {kind: end}, "port": number} for _, kind, end, number in dict.fromkeys(ends)]
    return [] if any(_among(address, _own(service)) for service in services) else [flow]


def _place(service: Object) -> tuple[str, str]:
    return namespace_of(service), service["metadata"]["name"]


def _own(service: Object) -> list[str]:
    spec = service["spec"]
    return [each for each in (spec.get("clusterIP"), *(spec.get("clusterIPs") or [])) if each and each != "None"]


def _outer(service: Object) -> list[str]:
    """Nobody handles these of services that have no address by design."""
    spec, status = service["spec"], service.get("status") or {}
    if spec.get("clusterIP") == "None" or spec.get("type") == "ExternalName":
        return []
    balancers = (status.get("loadBalancer") or {}).get("ingress") or []
    return [
        *(spec.get("externalIPs") or []),
        *(e["ip"] for e in balancers if e.get("ip") and e.get("ipMode") != "Proxy"),
    ]


def _among(address: str, several: list[str]) -> bool:
    return any(packed(address) == packed(each) for each in several)


def _behind(cluster: Cluster, service: Object, port: Object, family: int) -> Iterator[tuple[bytes, str, str, int]]:
    """Ends with their ports, for one port of a service; the address comes first, to sort by."""
    place, asked = _place(service), (port.get("name") or "", port.get("protocol") or "TCP")
    slices = [
        piece
        for piece in cluster.of("EndpointSlice")
        if (namespace_of(piece), (piece["metadata"].get("labels") or {}).get(SERVICE)) == place
    ]
    endpoints = [found for found in cluster.of("Endpoints") if _place(found) == place]
    for piece in slices or [subset for found in endpoints for subset in found.get("subsets") or []]:
        ready = [each["ip"] for each in piece.get("addresses") or []]
        for each in piece.get("endpoints") or [] if piece.get("addressType") != "FQDN" else []:
            if (each.get("conditions") or {}).get("ready") is not False:
                ready.append(each["addresses"][0])
        for spoken in piece.get("ports") or []:
            if (spoken.get("name") or "", spoken.get("protocol") or "TCP") == asked and spoken.get("port"):
                yield from ((packed(ip), "ip", ip, spoken["port"]) for ip in ready if family_of(ip) == family)
    selector, target = service["spec"].get("selector"), port.get("targetPort") or port["port"]
    for name, pod in cluster.pods.items() if selector and not slices and not endpoints else ():
        labels, held = pod["metadata"].get("labels") or {}, addresses(pod)
        own = [packed(ip) for ip in held if family_of(ip) == family] if held else [b""]
        named = [at for called, spoken, at in named_ports(pod) if (called, spoken) == (target, asked[1])]
        if namespace_of(pod) == place[0] and all(labels.get(key) == value for key, value in selector.items()):
            yield from (
                (at, "pod", name, n) for at in own for n in ([target] if isinstance(target, int) else named[:1])
            )
