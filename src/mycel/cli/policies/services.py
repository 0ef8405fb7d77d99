"""Services as ends of connections: policies are about the pods behind them, on the ports of those."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mycel.cli.errors import BadInput
from mycel.model.workload import PodRef
from mycel.policy.world import World

Json = Mapping[str, Any]


class Behind(NamedTuple):
    """A service that was dialled, and the connections it becomes."""

    service: str  # shop/db
    dialled: str  # shop/db:80/TCP
    flows: list[dict[str, Any]]


def behind(world: World, objects: Iterable[Json], flow: dict[str, Any]) -> Behind | None:
    """What a flow to a service becomes; None when its destination is none. Raises BadInput for one without target."""
    to = flow["to"]
    for service in (each for each in objects if each.get("kind") == "Service"):
        metadata, spec = service["metadata"], service.get("spec") or {}
        place = f"{metadata.get('namespace', 'default')}/{metadata['name']}"
        if _is_named(world, to, place) or to.get("ip") in _addresses(service):
            port = _port(place, spec, flow)
            dialled = f"{place}:{flow.get('port')}/{flow.get('protocol')}"
            found = [flow | {"to": end, "port": number} for end, number in _targets(world, place, spec, port)]
            if not found:
                raise BadInput(f"service {place} leads nowhere: there is no pod behind it")
            return Behind(place, dialled, found)
    return None


def _is_named(world: World, to: Json, place: str) -> bool:
    """A pod of the name goes first."""
    return to.get("pod") == place and PodRef(*place.split("/", 1)) not in world.pods


def _addresses(service: Json) -> set[str]:
    spec, status = service.get("spec") or {}, service.get("status") or {}
    found = {spec.get("clusterIP"), *(spec.get("clusterIPs") or ()), *(spec.get("externalIPs") or ())}
    found |= {each.get("ip") for each in (status.get("loadBalancer") or {}).get("ingress") or ()}
    return {each for each in found if each and each != "None"}


def _port(place: str, spec: Json, flow: Json) -> Json:
    ports = spec.get("ports") or ()
    for port in ports:
        if (port.get("port"), port.get("protocol", "TCP")) == (flow.get("port"), flow.get("protocol")):
            return port
    has = ", ".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports) or "none"
    raise BadInput(f"service {place} has no port {flow.get('port')}/{flow.get('protocol')}: it has {has}")


def _targets(world: World, place: str, spec: Json, port: Json) -> Iterable[tuple[dict[str, Any], int]]:
    namespace, _, name = place.partition("/")
    target = port.get("targetPort") or port["port"]
    selector = {str(key): str(value) for key, value in (spec.get("selector") or {}).items()}
    if not selector:
        for address in world.resolution.addresses.get((namespace, name), ()):
            yield {"ip": _text(address)}, target if isinstance(target, int) else port["port"]
        return
    for pod in world.pods.values():
        if pod.ref.namespace != namespace or pod.party is None:
            continue
        labels = {key: {value for _, value in found} for key, found in pod.party.labels.items()}
        if not all(value in labels.get(key, ()) for key, value in selector.items()):
            continue
        if isinstance(target, int):
            yield {"pod": str(pod.ref)}, target
        else:
            named = (each.port for each in pod.party.named_ports if each.name == target.lower())
            yield from (({"pod": str(pod.ref)}, number) for number in named)


def _text(address: Any) -> str:
    from mycel.model.address import format_address

    return format_address(address)
