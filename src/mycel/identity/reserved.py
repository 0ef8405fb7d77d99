"""Identities that are the same everywhere and never allocated."""

from __future__ import annotations

from mycel.abi import ReservedIdentity
from mycel.model.workload import IdentityId

_NAMES = {
    ReservedIdentity.UNKNOWN: "unknown",
    ReservedIdentity.HOST: "host",
    ReservedIdentity.WORLD: "world",
    ReservedIdentity.UNMANAGED: "unmanaged",
    ReservedIdentity.HEALTH: "health",
    ReservedIdentity.INIT: "init",
    ReservedIdentity.REMOTE_NODE: "remote-node",
    ReservedIdentity.KUBE_APISERVER: "kube-apiserver",
    ReservedIdentity.INGRESS: "ingress",
}

RESERVED_LABELS: dict[IdentityId, tuple[str, ...]] = {
    IdentityId(number): (f"reserved:{name}",) for number, name in _NAMES.items()
} | {IdentityId(ReservedIdentity.KUBE_APISERVER): ("reserved:kube-apiserver", "reserved:remote-node")}

HOST = IdentityId(ReservedIdentity.HOST)
WORLD = IdentityId(ReservedIdentity.WORLD)
UNMANAGED = IdentityId(ReservedIdentity.UNMANAGED)
INIT = IdentityId(ReservedIdentity.INIT)
INGRESS = IdentityId(ReservedIdentity.INGRESS)
REMOTE_NODE = IdentityId(ReservedIdentity.REMOTE_NODE)
