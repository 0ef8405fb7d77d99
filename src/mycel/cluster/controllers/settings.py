"""What the controllers and the scheduler need to know about their cluster."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Protocol

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ClusterSettings(Protocol):
    """What the process that runs the controllers knows of the cluster."""

    @property
    def pod_subnet(self) -> Network:
        """The pods' network, shared out among the nodes."""
        ...


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """The controllers' own settings, with Kubernetes' defaults."""

    pod_subnet: Network = field(default_factory=lambda: ipaddress.IPv4Network("10.244.0.0/16"))
    ca_pem: str = ""
    """The cluster's CA for the `kube-root-ca.crt` ConfigMap of every namespace; empty: the endpoint's."""
    node_grace_s: float = 50.0
    """A node that has not renewed its Lease for so long counts as unreachable (Kubernetes 1.32: 50 s)."""
    orphan_grace_s: float = 40.0
    """Pods of a node that is gone are deleted after so long (pod garbage collector's quarantine)."""

    @property
    def node_prefix(self) -> int:
        """Prefix length of each node's share of `pod_subnet`."""
        usual = 24 if self.pod_subnet.version == 4 else 64
        return max(usual, self.pod_subnet.prefixlen)
