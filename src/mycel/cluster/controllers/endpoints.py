"""Who serves a Service: EndpointSlices and Endpoints from its selector's pods, or slices mirrored from
Endpoints. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from mycel.cluster.controllers.loop import Controller, itself
from mycel.cluster.controllers.objects import (
    Key,
    Obj,
    condition_is,
    container_ports,
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
)
from mycel.cluster.controllers.selectors import matches_map
from mycel.cluster.controllers.slices import Member, Port, Ports, group_members, reconcile_slices
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, Write, create, delete, update
from mycel.k8s.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
FROM_PODS = "endpointslice-controller.k8s.io"
MIRRORED = "endpointslicemirroring-controller.k8s.io"
_HEADLESS = "service.kubernetes.io/headless"
_ZONE = "topology.kubernetes.io/zone"
_MAX_SUBSET = 1000


def decide(world: World, where: Key, _now_s: float) -> Decision:
    """One pass over one Service (also one that is gone, whose mirrored leftovers go too)."""
    service = world[SERVICES].get(where)
    slices = [
        one
        for one in world[ENDPOINT_SLICES].within(where[0])
        if labels(one).get(SERVICE_LABEL) == where[1] and not is_deleting(one)
    ]
    ours = [one for one in slices if labels(one).get(MANAGED_BY) == FROM_PODS]
    mirrored = [one for one in slices if labels(one).get(MANAGED_BY) == MIRRORED]
    if service is None or is_deleting(service) or spec(service).get("type") == "ExternalName":
        return Decision(tuple(delete(ENDPOINT_SLICES, one) for one in (*ours, *mirrored)))
    existing = world[ENDPOINTS].get(where)
    if not spec(service).get("selector"):
        stale = [delete(ENDPOINT_SLICES, one) for one in ours]
        return Decision((*stale, *_mirror(service, existing, mirrored)))
    pods = [pod for pod in world[PODS].within(where[0]) if matches_map(spec(service)["selector"], labels(pod))]
    nodes = world[NODES]
    writes: list[Write] = [delete(ENDPOINT_SLICES, one) for one in mirrored]
    for family in _families(service):
        grouped = group_members(_members(service, pods, family, nodes.objects))
        current = [one for one in ours if one.get("addressType") == family]
        if not grouped and not current:
            grouped = {_declared_ports(service): ()}
        template = _slice_template(service, family, FROM_PODS)
        writes += reconcile_slices(template, current, grouped, keep_one=True)
    writes += _endpoints(service, existing, pods, nodes.objects)
    return Decision(tuple(writes))


def _families(service: Obj) -> list[str]:
    return list(spec(service).get("ipFamilies") or ["IPv4"])


def _members(
    service: Obj, pods: Iterable[Obj], family: str, nodes: Mapping[Key, Obj]
) -> Iterable[tuple[Ports, Member]]:
    """Each pod that has an address of the family, with the ports it serves there."""
    for pod in pods:
        address = _address(pod, family)
        if address is None or is_finished(pod):
            continue
        ports = _resolved_ports(service, pod)
        yield ports, _member(service, pod, address, nodes)


def _member(service: Obj, pod: Obj, address: str, nodes: Mapping[Key, Obj]) -> Member:
    serving = condition_is(pod, "Ready")
    terminating = is_deleting(pod)
    ready = (serving and not terminating) or bool(spec(service).get("publishNotReadyAddresses"))
    entry: Obj = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "name": name(pod), "namespace": namespace(pod), "uid": uid(pod)},
    }
    node = spec(pod).get("nodeName")
    if node:
        entry["nodeName"] = node
        found = nodes.get(("", node))
        if found is not None and labels(found).get(_ZONE):
            entry["zone"] = labels(found)[_ZONE]
    if spec(pod).get("hostname") and spec(pod).get("subdomain") == name(service):
        entry["hostname"] = spec(pod)["hostname"]
    return Member(uid(pod) or address, entry)


def _address(pod: Obj, family: str) -> str | None:
    version = 6 if family == "IPv6" else 4
    found = status(pod)
    addresses = [one.get("ip") for one in found.get("podIPs") or ()] or [found.get("podIP")]
    return next((ip for ip in addresses if ip and ipaddress.ip_address(ip).version == version), None)


def _declared_ports(service: Obj) -> Ports:
    """The service's ports while no pod says what a named one means."""
    return tuple(
        Port(one.get("name") or "", one.get("protocol") or "TCP", number, one.get("appProtocol"))
        for one in spec(service).get("ports") or ()
        if isinstance(number := one.get("targetPort", one.get("port")), int)
    )


def _resolved_ports(service: Obj, pod: Obj) -> Ports:
    """The service's ports on this pod; a named target port the pod does not have is left out."""
    found: list[Port] = []
    for one in spec(service).get("ports") or ():
        protocol = one.get("protocol") or "TCP"
        target = one.get("targetPort", one.get("port"))
        if isinstance(target, str):
            target = next(
                (
                    port["containerPort"]
                    for port in container_ports(spec(pod))
                    if port.get("name") == target and (port.get("protocol") or "TCP") == protocol
                ),
                None,
            )
        if isinstance(target, int):
            found.append(Port(one.get("name") or "", protocol, target or one["port"], one.get("appProtocol")))
    return tuple(found)


def _slice_template(service: Obj, family: str, manager: str) -> Obj:
    copied = {k: v for k, v in labels(service).items() if k not in (SERVICE_LABEL, MANAGED_BY, _HEADLESS)}
    own = {SERVICE_LABEL: name(service), MANAGED_BY: manager}
    if spec(service).get("clusterIP") == "None":
        own[_HEADLESS] = ""
    reference = {"apiVersion": "v1", "kind": "Service", "name": name(service), "uid": uid(service)}
    return {
        "metadata": {
            "generateName": name(service)[:200] + "-",
            "namespace": namespace(service),
            "labels": {**copied, **own},
            "ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": True}],
        },
        "addressType": family,
    }


def _endpoints(service: Obj, existing: Obj | None, pods: list[Obj], nodes: Mapping[Key, Obj]) -> Iterable[Write]:
    """The older Endpoints object: ready and not ready addresses by equal sets of ports."""
    family = _families(service)[0]
    subsets: dict[Ports, dict[str, list[Obj]]] = {}
    for ports, member in _members(service, pods, family, nodes):
        entry = member.entry
        if entry["conditions"]["terminating"] and not spec(service).get("publishNotReadyAddresses"):
            continue
        address = {"ip": entry["addresses"][0], "targetRef": entry["targetRef"]}
        address.update({k: entry[k] for k in ("nodeName", "hostname") if k in entry})
        kind = "addresses" if entry["conditions"]["ready"] else "notReadyAddresses"
        subsets.setdefault(ports, {}).setdefault(kind, []).append(address)
    built: list[Obj] = []
    for ports, sides in sorted(subsets.items(), key=lambda item: repr(item[0])):
        subset: Obj = {
            kind: sorted(found, key=lambda one: ipaddress.ip_address(one["ip"]))[:_MAX_SUBSET]
            for kind, found in sides.items()
        }
        if ports:
            subset["ports"] = [port.entry() for port in ports]
        built.append(subset)
    copied = dict(labels(service))
    if spec(service).get("clusterIP") == "None":
        copied[_HEADLESS] = ""
    if existing is None:
        metadata: Obj = {"name": name(service), "namespace": namespace(service), "labels": copied}
        return [create(ENDPOINTS, {"metadata": metadata, "subsets": built})]
    fresh = evolve(evolve(existing, "metadata", "labels", value=copied or None), "subsets", value=built or None)
    return update(ENDPOINTS, existing, fresh)


def _mirror(service: Obj, endpoints: Obj | None, slices: list[Obj]) -> Iterable[Write]:
    """Slices for Endpoints that somebody wrote by hand for a Service without a selector."""
    if endpoints is None or labels(endpoints).get("endpointslice.kubernetes.io/skip-mirror") == "true":
        return [delete(ENDPOINT_SLICES, one) for one in slices]
    families: dict[str, list[tuple[Ports, Member]]] = {"IPv4": [], "IPv6": []}
    for subset in endpoints.get("subsets") or ():
        ports = tuple(
            Port(one.get("name") or "", one.get("protocol") or "TCP", one["port"], one.get("appProtocol"))
            for one in subset.get("ports") or ()
        )
        for side, ready in (("addresses", True), ("notReadyAddresses", False)):
            for one in subset.get(side) or ():
                entry: Obj = {"addresses": [one["ip"]], "conditions": {"ready": ready}}
                entry.update({k: one[k] for k in ("nodeName", "hostname", "targetRef") if one.get(k)})
                family = "IPv6" if ":" in one["ip"] else "IPv4"
                families[family].append((ports, Member(one["ip"], entry)))
    writes: list[Write] = []
    for family, members in families.items():
        current = [one for one in slices if one.get("addressType") == family]
        template = _slice_template(service, family, MIRRORED)
        writes += reconcile_slices(template, current, group_members(members), keep_one=False)
    return writes


def _pod_trigger(world: World, old: Obj | None, new: Obj | None) -> set[Key]:
    """Services whose selector matches the pod before or after, when something they show changed."""
    if old is not None and new is not None and _shown(old) == _shown(new):
        return set()
    obj = new if new is not None else old
    if obj is None:
        return set()
    sides = [labels(one) for one in (old, new) if one is not None]
    return {
        key(service)
        for service in world[SERVICES].within(namespace(obj))
        if any(matches_map(spec(service).get("selector"), side) for side in sides)
    }


def _shown(pod: Obj) -> tuple[object, ...]:
    found = status(pod)
    return (
        labels(pod),
        found.get("podIPs"),
        found.get("podIP"),
        found.get("phase"),
        condition_is(pod, "Ready"),
        is_deleting(pod),
        spec(pod).get("nodeName"),
    )


def _slice_trigger(_world: World, old: Obj | None, new: Obj | None) -> set[Key]:
    found = [one for one in (old, new) if one is not None]
    return {
        (namespace(one), labels(one)[SERVICE_LABEL])
        for one in found
        if labels(one).get(MANAGED_BY) in (FROM_PODS, MIRRORED) and labels(one).get(SERVICE_LABEL)
    }


CONTROLLER = Controller(
    name="endpoints",
    decide=decide,
    triggers={SERVICES: itself, PODS: _pod_trigger, ENDPOINT_SLICES: _slice_trigger, ENDPOINTS: itself},
)
