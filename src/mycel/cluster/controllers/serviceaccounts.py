"""What every namespace gets: the `default` ServiceAccount, and the cluster's CA in `kube-root-ca.crt`.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from mycel.cluster.controllers.loop import Controller, Trigger, itself
from mycel.cluster.controllers.objects import Key, Obj, evolve, is_deleting, name, namespace, status
from mycel.cluster.controllers.world import World
from mycel.cluster.controllers.writes import Decision, Write, create, update
from mycel.k8s.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS

ACCOUNT = "default"
ROOT_CA = "kube-root-ca.crt"
_ABOUT = "The CA of the API server's certificate, for clients within the cluster."


def decide(world: World, where: Key, _now_s: float, *, ca_pem: str) -> Decision:
    """One pass over one namespace."""
    space = world[NAMESPACES].get(where)
    if space is None or is_deleting(space) or status(space).get("phase") == "Terminating":
        return Decision()
    writes: list[Write] = []
    here = name(space)
    if world[SERVICE_ACCOUNTS].get((here, ACCOUNT)) is None:
        writes.append(create(SERVICE_ACCOUNTS, {"metadata": {"name": ACCOUNT, "namespace": here}}))
    bundle = world[CONFIG_MAPS].get((here, ROOT_CA))
    data = {"ca.crt": ca_pem}
    if bundle is None:
        metadata = {"name": ROOT_CA, "namespace": here, "annotations": {"kubernetes.io/description": _ABOUT}}
        writes.append(create(CONFIG_MAPS, {"metadata": metadata, "data": data}))
    elif bundle.get("data") != data:
        writes += update(CONFIG_MAPS, bundle, evolve(bundle, "data", value=data))
    return Decision(tuple(writes))


def _named(wanted: str) -> Trigger:
    def wake(_world: World, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        obj = new if new is not None else old
        return (("", namespace(obj)),) if obj is not None and name(obj) == wanted else ()

    return wake


def controller(ca_pem: str) -> Controller:
    """The controller for a cluster with this CA."""

    def bound(world: World, where: Key, now_s: float) -> Decision:
        return decide(world, where, now_s, ca_pem=ca_pem)

    return Controller(
        "serviceaccount",
        bound,
        {NAMESPACES: itself, SERVICE_ACCOUNTS: _named(ACCOUNT), CONFIG_MAPS: _named(ROOT_CA)},
    )
