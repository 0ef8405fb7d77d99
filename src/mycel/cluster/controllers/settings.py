"""What the controllers and the scheduler need to know about their cluster."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Parsed once by the process that runs the controllers."""

    pod_subnet: ipaddress.IPv4Network = field(default_factory=lambda: ipaddress.IPv4Network("10.244.0.0/16"))
    node_prefix: int = 24
    """Prefix length of each node's share of `pod_subnet`."""
    ca_pem: str = ""
    """The cluster's CA for the `kube-root-ca.crt` ConfigMap of every namespace; empty: the endpoint's."""
    node_grace_s: float = 50.0
    """A node that has not renewed its Lease for so long counts as unreachable (Kubernetes 1.32: 50 s)."""
    orphan_grace_s: float = 40.0
    """Pods of a node that is gone are deleted after so long (pod garbage collector's quarantine)."""
