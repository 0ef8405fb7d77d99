"""What the agent tells: its state in the shapes of Cilium's API models, which stock tools read through `cilium …`.

Pure functions of values; `server` serves them, `dbg` prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mycel.abi import Direction, DropReason, EndpointFlags, EndpointValue, MetricKey, MetricValue, ServiceFlags
from mycel.agent.endpoint_object import external_identifiers
from mycel.identity.reserved import HOST, RESERVED_LABELS
from mycel.kit.reconcile import TargetStatus
from mycel.model.address import format_address, is_ipv4
from mycel.model.workload import Identity, IdentityId, LocalEndpoint
from mycel.service.balance import Frontend, FrontendKey
from mycel.service.hostports import is_host_port

Json = dict[str, Any]
_PROTOCOLS = {6: "TCP", 17: "UDP", 132: "SCTP", 1: "ICMP", 58: "ICMPv6"}
# Texts of `cilium_drop_count_total{reason=…}` where they differ from the enum's words.
_DROP_TEXTS = {
    DropReason.POLICY_DENIED: "Policy denied",
    DropReason.POLICY_DENY: "Policy denied by denylist",
    DropReason.UNROUTABLE_IP: "Stale or unroutable IP",
    DropReason.SERVICE_BACKEND_NOT_FOUND: "Service backend not found",
    DropReason.UNSUPPORTED_L3: "Unsupported L3 protocol",
    DropReason.INVALID_SOURCE_IP: "Invalid source ip",
    DropReason.INVALID_SOURCE_MAC: "Invalid source mac",
    DropReason.ENDPOINT_NOT_READY: "Endpoint is not ready",
    DropReason.NO_TUNNEL_ENDPOINT: "No tunnel/encapsulation endpoint (datapath BUG!)",
}


class EndpointPolicyView(NamedTuple):
    """How far an endpoint's policy is: the revision that is wanted, and the one the kernel was read back with."""

    planned_revision: int
    realized_revision: int
    ingress: bool = False
    egress: bool = False

    @property
    def enabled(self) -> str:
        """Directions that are enforced, in the API's words."""
        words = {(True, True): "both", (True, False): "ingress", (False, True): "egress"}
        return words.get((self.ingress, self.egress), "none")


def endpoint(each: LocalEndpoint, realized: EndpointValue | None, enforced: EndpointPolicyView) -> Json:
    """models.Endpoint. Ready means: the kernel holds its identity and its policy."""
    pairs: Json = {}
    for address in each.addresses:
        pairs["ipv4" if is_ipv4(address) else "ipv6"] = format_address(address)
    if not each.identity:
        state = "waiting-for-identity"
    elif realized is None or realized.identity != each.identity or not realized.flags & EndpointFlags.READY:
        state = "regenerating"
    else:
        state = "ready"
    policy: Json = {
        "policy-revision": enforced.realized_revision if state == "ready" else 0,
        "policy-enabled": enforced.enabled,
        "id": each.identity,
    }
    return {
        "id": each.endpoint_id,
        "spec": {"label-configuration": {}, "options": {}},
        "status": {
            "state": state,
            "identity": {"id": each.identity, "labels": list(each.labels)},
            "labels": {"security-relevant": list(each.labels)},
            "networking": {
                "addressing": [pairs],
                "interface-name": each.interface,
                "interface-index": each.ifindex,
                "mac": each.mac.hex(":"),
                "host-mac": each.node_mac.hex(":"),
                "container-interface-name": each.pod_interface,
            },
            "external-identifiers": external_identifiers(each),
            "policy": {"realized": policy, "spec": policy | {"policy-revision": enforced.planned_revision}},
            "health": {"overallHealth": "OK" if state == "ready" else "Pending"},
        },
    }


def host_endpoint(node: str, addresses: Iterable[bytes], revision: int) -> Json:
    """The node itself as an endpoint. It has no policy of its own."""
    policy = {"policy-revision": revision, "policy-enabled": "none", "id": HOST}
    return {
        "id": 0,
        "spec": {"label-configuration": {}, "options": {}},
        "status": {
            "state": "ready",
            "identity": {"id": HOST, "labels": list(RESERVED_LABELS[HOST])},
            "labels": {"security-relevant": list(RESERVED_LABELS[HOST])},
            "networking": {
                "addressing": [
                    {"ipv4" if is_ipv4(address) else "ipv6": format_address(address)} for address in addresses
                ],
                "interface-name": "cilium_host",
                "host-name": node,
            },
            "external-identifiers": {},
            "policy": {"realized": policy, "spec": policy},
            "health": {"overallHealth": "OK"},
        },
    }


def identities(known: Mapping[IdentityId, Identity], local: Mapping[IdentityId, tuple[str, ...]]) -> list[Json]:
    """models.Identity: reserved ones, the cluster's, then those this node gave."""
    labels = RESERVED_LABELS | {number: each.labels for number, each in known.items()} | dict(local)
    return [{"id": int(number), "labels": list(of)} for number, of in sorted(labels.items())]


def services(frontends: Mapping[FrontendKey, Frontend], numbers: Mapping[FrontendKey, int]) -> list[Json]:
    """models.Service: what a node balances."""
    rows: list[Json] = []
    for key in sorted(frontends):
        frontend = frontends[key]
        shown = frontend_address(key)
        backends = [
            {
                "ip": format_address(backend.key.address),
                "port": backend.key.port,
                "protocol": _PROTOCOLS.get(backend.key.protocol, str(backend.key.protocol)),
                "nodeName": backend.node,
                "state": backend.state.value,
            }
            for backend in frontend.backends
        ]
        spec: Json = {
            "id": numbers.get(frontend.group, 0),
            "frontend-address": shown,
            "backend-addresses": backends,
            "flags": {
                "name": frontend.service.name,
                "namespace": frontend.service.namespace,
                "type": "HostPort" if is_host_port(frontend) else service_type(frontend.flags),
                "trafficPolicy": "Local" if frontend.flags & ServiceFlags.LOCAL_EXTERNAL else "Cluster",
                "extTrafficPolicy": "Local" if frontend.flags & ServiceFlags.LOCAL_EXTERNAL else "Cluster",
                "intTrafficPolicy": "Local" if frontend.flags & ServiceFlags.LOCAL_INTERNAL else "Cluster",
            },
        }
        rows.append({"spec": spec, "status": {"realized": spec}})
    return rows


def frontend_address(key: FrontendKey) -> Json:
    """models.FrontendAddress."""
    return {
        "ip": format_address(key.address),
        "port": key.port,
        "protocol": _PROTOCOLS.get(key.protocol, str(key.protocol)),
    }


def service_type(flags: int) -> str:
    """Kubernetes' word for what a frontend is."""
    for flag, name in (
        (ServiceFlags.CLUSTER_IP, "ClusterIP"),
        (ServiceFlags.NODE_PORT, "NodePort"),
        (ServiceFlags.LOAD_BALANCER, "LoadBalancer"),
        (ServiceFlags.EXTERNAL_IP, "ExternalIPs"),
    ):
        if flags & flag:
            return name
    return "ClusterIP"


def status(
    *,
    waiting_for: Sequence[str],
    problems: Sequence[str],
    kubernetes: str,
    hubble: str,
    flows_lost: str,
    redirects: Sequence[Json],
    node: str,
    cluster: str,
    addresses_used: tuple[int, int],
    router: str,
    targets: Iterable[TargetStatus],
    version: str,
    nodes: Sequence[str],
) -> Json:
    """models.StatusResponse with the keys tools read.

    `kubernetes` and `hubble` are problems, empty when fine; `flows_lost` is said beside a Hubble that is well.
    """
    if waiting_for:
        own = {"state": "Warning", "msg": "waiting for " + ", ".join(waiting_for)}
    elif problems:
        own = {"state": "Failure", "msg": "; ".join(problems)}
    else:
        own = {"state": "Ok", "msg": f"{version} (mycel)"}
    used, size = addresses_used
    return {
        "cilium": own,
        "cluster": {
            "name": cluster,
            "self": f"{cluster}/{node}",
            "ciliumHealth": {"state": "Ok", "msg": ""},
            "nodes": [{"name": f"{cluster}/{name}"} for name in nodes],
        },
        "kubernetes": {"state": "Warning" if kubernetes else "Ok", "msg": kubernetes},
        "hubble": _component(hubble) if hubble else {"state": "Ok", "msg": flows_lost},
        "kvstore": {"state": "Disabled", "msg": ""},
        "container-runtime": {"state": "Disabled", "msg": ""},
        "ipam": {"status": f"IPv4: {used}/{size} allocated", "ipv4": [], "ipv6": []},
        "proxy": {
            "ip": router,
            "port-range": "10000-29999",
            "redirects": list(redirects),
            "envoy-deployment-mode": "external",
            "total-redirects": len(redirects),
            "total-ports": len({each["proxy-port"] for each in redirects}),
        },
        "kube-proxy-replacement": {
            "mode": "True",
            "features": {
                "socketLB": {"enabled": True},
                "bpfSocketLBHostnsOnly": False,
                "nodePort": {
                    "enabled": True,
                    "mode": "SNAT",
                    "algorithm": "Random",
                    "acceleration": "Disabled",
                    "portMin": 30000,
                    "portMax": 32767,
                },
                "sessionAffinity": {"enabled": True},
                "externalIPs": {"enabled": True},
                "hostPort": {"enabled": True},
            },
        },
        "encryption": {"mode": "Disabled"},
        "host-firewall": {"mode": "Disabled"},
        "cni-chaining": {"mode": "none"},
        "controllers": [_controller(target) for target in targets],
        "stale": {},
    }


def _component(problem: str) -> Json:
    return {"state": "Disabled", "msg": ""} if problem == "disabled" else {"state": "Warning", "msg": problem}


def _controller(target: TargetStatus) -> Json:
    """A reconcile target as Cilium's controller: consecutive failures count while it is failing."""
    return {
        "name": f"reconcile-{target.name}",
        "status": {
            "success-count": target.applied,
            "failure-count": target.errors,
            "consecutive-failure-count": 0 if target.ok else 1,
            "last-failure-msg": target.problem,
        },
    }


def metrics(
    counters: Mapping[MetricKey, MetricValue],
    *,
    endpoints: int,
    targets: Iterable[TargetStatus],
    policy_revision: int,
    l7_losses: Mapping[str, int],
) -> list[Json]:
    """Metrics as `cilium metrics list -o json` shows them."""
    rows: list[Json] = []
    for key, value in sorted(counters.items()):
        direction = Direction(key.direction).name
        if key.reason == 0:
            rows.append(_metric("cilium_forward_count_total", value.packets, direction=direction))
            rows.append(_metric("cilium_forward_bytes_total", value.bytes, direction=direction))
        else:
            reason = drop_text(key.reason)
            rows.append(_metric("cilium_drop_count_total", value.packets, direction=direction, reason=reason))
            rows.append(_metric("cilium_drop_bytes_total", value.bytes, direction=direction, reason=reason))
    rows.append(_metric("cilium_endpoint", endpoints))
    rows.append(_metric("cilium_policy_max_revision", policy_revision))
    rows += [_metric("mycel_l7_records_lost_total", l7_losses[cause], cause=cause) for cause in sorted(l7_losses)]
    for target in targets:
        rows.append(_metric("mycel_reconcile_entries", target.entries, target=target.name))
        rows.append(_metric("mycel_reconcile_errors_total", target.errors, target=target.name))
        rows.append(_metric("mycel_reconcile_duration_seconds", target.duration_s, target=target.name))
    return rows


def drop_text(reason: int) -> str:
    """A drop reason for people: `Policy denied`."""
    try:
        known = DropReason(reason)
    except ValueError:
        return str(reason)
    return _DROP_TEXTS.get(known) or known.name.replace("_", " ").capitalize()


def prometheus(rows: Iterable[Json]) -> str:
    """Metrics in Prometheus' text format."""
    lines: list[str] = []
    named: set[str] = set()
    for row in sorted(rows, key=lambda row: row["name"]):
        name, labels = row["name"], row["labels"]
        if name not in named:
            named.add(name)
            lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        inside = ",".join(f'{key}="{_escape(value)}"' for key, value in labels.items())
        lines.append(f"{name}{{{inside}}} {row['value']}" if inside else f"{name} {row['value']}")
    return "\n".join(lines) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _metric(name: str, value: float, **labels: str) -> Json:
    return {"name": name, "value": value, "labels": labels}


def row(value: Any) -> Any:
    """A map's key or value for JSON: addresses and MACs as text."""
    if hasattr(value, "_asdict"):
        return {name: row(field) for name, field in value._asdict().items()}
    if isinstance(value, bytes):
        if len(value) == 16:
            return format_address(value)
        return value.hex(":")
    if isinstance(value, tuple | list):
        return [row(each) for each in value]
    return value
