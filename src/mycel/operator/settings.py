"""The operator's settings, from the ConfigMap `cilium-config` and the pod's environment."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mycel.kit.config import SettingsError, duration_s

OPERATOR_LEASE = "cilium-operator-resource-lock"
OPERATOR_ROLE = "cilium-operator"  # ClusterRole
ADMISSION = "cilium-admission"  # ValidatingWebhookConfiguration, and the Service it names
ADMISSION_SECRET = "cilium-admission-certs"  # noqa: S105  its name


class Listen(NamedTuple):
    """An address and port of the node."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator is told."""

    identity: str
    namespace: str
    identity_gc_s: float
    endpoint_gc_s: float
    serve_port: int
    ingresses: bool = True
    force_https: bool = False
    envoy_configs: bool = False
    admission: Listen | None = None  # None: nothing is judged at apply


def parse_settings(config: Mapping[str, str], environment: Mapping[str, str]) -> Settings:
    """Raises SettingsError."""
    address = config.get("operator-api-serve-addr") or "127.0.0.1:9234"
    port = address.rpartition(":")[2]
    if not port.isdecimal():
        raise SettingsError(f"operator-api-serve-addr is {address!r}: say address:port")
    return Settings(
        identity=environment.get("K8S_POD_NAME") or socket.gethostname(),
        namespace=environment.get("CILIUM_K8S_NAMESPACE") or "kube-system",
        identity_gc_s=duration_s(config, "identity-gc-interval", 900.0),
        endpoint_gc_s=duration_s(config, "cilium-endpoint-gc-interval", 300.0),
        serve_port=int(port),
        ingresses=config.get("enable-ingress-controller", "true") == "true",
        force_https=config.get("enforce-ingress-https", "false") == "true",
        envoy_configs=config.get("enable-envoy-config", "false") == "true",
        admission=_admission(config, environment),
    )


def _admission(config: Mapping[str, str], environment: Mapping[str, str]) -> Listen | None:
    if config.get("enable-admission", "false") != "true":
        return None
    address, port = environment.get("K8S_NODE_IP", ""), config.get("admission-port", "9443")
    if not address:
        raise SettingsError(
            "enable-admission is true, and K8S_NODE_IP does not say on which address: set it, or say false"
        )
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError(f"admission-port is {port!r}: say a port")
    return Listen(address, int(port))
