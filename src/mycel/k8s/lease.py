"""Leases of coordination.k8s.io, as client-go uses them for elections. Pure.

Times are judged by our own clock from when we saw the record change, so clocks of machines need not agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mycel.k8s.informer import Codec


class Lease(NamedTuple):
    """Who holds something, and what changes with every renewal."""

    holder: str = ""  # empty: nobody
    renewed: str = ""
    transitions: int = 0
    version: str = ""
    uid: str = ""


def parse_lease(item: Mapping[str, Any]) -> Lease:
    """A Lease of its object."""
    metadata, spec = item.get("metadata") or {}, item.get("spec") or {}
    return Lease(
        holder=spec.get("holderIdentity") or "",
        renewed=str(spec.get("renewTime") or ""),
        transitions=spec.get("leaseTransitions") or 0,
        version=str(metadata.get("resourceVersion", "")),
        uid=str(metadata.get("uid", "")),
    )


def holding_spec(lease: Lease | None, identity: str, lease_s: float) -> dict[str, Any]:
    """The spec with which `identity` takes or renews it; None: it does not exist yet."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": identity, "leaseDurationSeconds": round(lease_s), "renewTime": now}
    if lease is None:
        return spec | {"acquireTime": now, "leaseTransitions": 0}
    if lease.holder != identity:
        return spec | {"acquireTime": now, "leaseTransitions": lease.transitions + 1}
    return spec


LEASES_CODEC: Codec[Lease] = Codec(dict[str, Any], parse_lease)
