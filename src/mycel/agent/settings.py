"""The agent's settings: the ConfigMap `cilium-config`, mounted as files, and the pod's environment.

Keys and values are Cilium's. A value that cannot be used stops the agent with the key's name; a key it does
not know is left alone, as the ConfigMap also serves others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mycel.agent.l2.election import USUAL_TIMES, Times
from mycel.flow.redact import NOTHING_SAID, Redaction
from mycel.kit.config import SettingsError, duration_s, flag, number, words
from mycel.policy.subjects import Enforcement

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}")  # RFC 9110, 5.6.2
VERSION = "1.19.4"  # of Cilium, whose interfaces we keep


@dataclass(frozen=True, slots=True)
class Settings:
    """What the agent is told."""

    node_name: str
    node_address: str = ""  # empty: the node object's InternalIP
    namespace: str = "kube-system"
    cluster_name: str = "default"
    state_dir: Path = Path("/var/run/cilium")
    bpf_root: Path = Path("/sys/fs/bpf")
    cgroup_root: Path = Path("/run/cilium/cgroupv2")
    cni_conf_dir: Path = Path("/host/etc/cni/net.d")
    cni_bin_dir: Path = Path("/host/opt/cni/bin")
    cni_exclusive: bool = True
    health_port: int = 9879
    hubble: bool = True
    hubble_socket: Path = Path("/var/run/cilium/hubble.sock")
    hubble_capacity: int = 16383
    redaction: Redaction = NOTHING_SAID
    monitor_aggregation: str = "medium"
    monitor_interval_s: float = 5.0
    ipv6: bool = False
    host_enters: bool = True  # the node may enter its pods unless a rule denies it (allow-localhost)
    masquerade: bool = True
    tunnel_port: int = 8472
    mtu: int = 0  # of the underlay; 0: the device's
    service_range: str = ""  # empty: not known
    enforcement: Enforcement = Enforcement.DEFAULT
    policy_cidr_match_mode: frozenset[str] = frozenset()  # what else CIDR rules are about: nodes, pods
    announce: bool = True  # take part in announcing addresses of services
    announce_times: Times = USUAL_TIMES
    l7_proxy: bool = True  # the node's Envoy is fed
    dns_proxy: bool = True  # the node has one
    envoy_config: bool = False  # CiliumEnvoyConfigs are served
    ingress_controller: bool = False  # the operator's are, in any case
    debug: bool = False

    @property
    def socket(self) -> Path:
        """Where the agent answers."""
        return self.state_dir / "cilium.sock"

    @property
    def envoy_dir(self) -> Path:
        """What the agent shares with the node's Envoy."""
        return self.state_dir / "envoy"

    @property
    def records_socket(self) -> Path:
        """Where the DNS proxy tells what it saw."""
        return self.state_dir / "l7-records.sock"

    @property
    def shown_headers(self) -> tuple[str, ...] | None:
        """Headers that Envoy is asked for; None: nobody keeps flows."""
        return self.redaction.asked if self.hubble else None

    @property
    def trace_interval_s(self) -> float:
        """Seconds between traces of a connection; 0: every packet."""
        return 0.0 if self.monitor_aggregation in ("none", "lowest", "low") else self.monitor_interval_s


def parse_settings(config: Mapping[str, str], environment: Mapping[str, str]) -> Settings:
    """Settings of the ConfigMap's keys and the environment. Raises SettingsError."""
    node_name = environment.get("K8S_NODE_NAME", "")
    if not node_name:
        raise SettingsError("K8S_NODE_NAME is not set: the DaemonSet fills it from spec.nodeName")
    if config.get("tunnel-protocol", "vxlan") != "vxlan" or config.get("routing-mode", "tunnel") != "tunnel":
        raise SettingsError("routing-mode must be tunnel and tunnel-protocol vxlan: there is no other datapath")
    if config.get("ipam", "kubernetes") != "kubernetes":
        raise SettingsError("ipam must be kubernetes: pod networks are the nodes' podCIDRs")
    state_dir = Path(config.get("state-dir") or "/var/run/cilium")
    service_range = config.get("ipv4-service-range", "auto")
    return Settings(
        node_name=node_name,
        node_address=environment.get("K8S_NODE_IP", ""),
        namespace=environment.get("CILIUM_K8S_NAMESPACE") or "kube-system",
        cluster_name=config.get("cluster-name") or "default",
        state_dir=state_dir,
        bpf_root=Path(config.get("bpf-root") or "/sys/fs/bpf"),
        cgroup_root=Path(config.get("cgroup-root") or "/run/cilium/cgroupv2"),
        cni_conf_dir=Path(environment.get("CNI_CONF_DIR") or "/host/etc/cni/net.d"),
        cni_bin_dir=Path(environment.get("CNI_BIN_DIR") or "/host/opt/cni/bin"),
        cni_exclusive=flag(config, "cni-exclusive", default=True),
        health_port=number(config, "agent-health-port", 9879),
        hubble=flag(config, "enable-hubble", default=True),
        hubble_socket=Path(config.get("hubble-socket-path") or state_dir / "hubble.sock"),
        hubble_capacity=number(config, "hubble-event-buffer-capacity", 16383),
        redaction=_redaction(config),
        monitor_aggregation=config.get("monitor-aggregation", "medium"),
        monitor_interval_s=duration_s(config, "monitor-aggregation-interval", 5.0),
        ipv6=flag(config, "enable-ipv6", default=False),
        host_enters=config.get("allow-localhost", "auto") != "policy",
        masquerade=flag(config, "enable-ipv4-masquerade", default=True),
        tunnel_port=number(config, "tunnel-port", 8472),
        mtu=number(config, "mtu", 0),
        service_range="" if service_range == "auto" else service_range,
        enforcement=_enforcement(config),
        policy_cidr_match_mode=words(config, "policy-cidr-match-mode", ("nodes", "pods")),
        announce=flag(config, "enable-l2-announcements", default=False),
        announce_times=_announce_times(config),
        l7_proxy=flag(config, "enable-l7-proxy", default=True),
        dns_proxy=flag(config, "enable-dns-proxy", default=True),
        envoy_config=flag(config, "enable-envoy-config", default=False),
        ingress_controller=flag(config, "enable-ingress-controller", default=False),
        debug=flag(config, "debug", default=False),
    )


def _redaction(config: Mapping[str, str]) -> Redaction:
    key = "hubble-redact-http-headers"
    allow, deny = _header_names(config, f"{key}-allow"), _header_names(config, f"{key}-deny")
    if allow and deny:
        raise SettingsError(f"{key}-allow and {key}-deny are both given: say one of them")
    return Redaction(
        enabled=flag(config, "hubble-redact-enabled", default=False),
        url_query=flag(config, "hubble-redact-http-urlquery", default=False),
        user_info=flag(config, "hubble-redact-http-userinfo", default=True),
        allow=allow,
        deny=deny,
    )


def _header_names(config: Mapping[str, str], key: str) -> frozenset[str]:
    names = frozenset(config.get(key, "").lower().replace(",", " ").split())
    if wrong := sorted(name for name in names if not _HEADER.fullmatch(name)):
        raise SettingsError(f"{key} has {wrong[0]!r}: say names of headers, separated by commas")
    return names


def _announce_times(config: Mapping[str, str]) -> Times:
    usual = USUAL_TIMES
    times = Times(
        lease_s=duration_s(config, "l2-announcements-lease-duration", usual.lease_s),
        renew_s=duration_s(config, "l2-announcements-renew-deadline", usual.renew_s),
        retry_s=duration_s(config, "l2-announcements-retry-period", usual.retry_s),
    )
    if not times.lease_s > times.renew_s > 0 or not times.lease_s > times.retry_s > 0:
        raise SettingsError(
            f"l2-announcements-lease-duration is {times.lease_s:g}s: it must be longer than "
            f"l2-announcements-renew-deadline ({times.renew_s:g}s) and -retry-period ({times.retry_s:g}s)"
        )
    return times


def _enforcement(config: Mapping[str, str]) -> Enforcement:
    text = config.get("enable-policy", "").lower() or "default"
    try:
        return Enforcement(text)
    except ValueError:
        known = ", ".join(each.value for each in Enforcement)
        raise SettingsError(f"enable-policy is {text!r}: it may be {known}") from None
