"""Which labels of a workload make its identity.

An identity is the sorted set of labels left by a filter, each written `source:key=value`. Labels that change
with every pod (pod-template-hash and the like) are left out, or every pod would be its own identity. Labels
that state facts (namespace, service account, cluster, namespace's labels) come from the API objects, never
from the pod: a pod's own labels of those names are dropped, or its author could choose its namespace
(CVE-2023-39347).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mycel.model.workload import NamedPort

NAMESPACE_KEY = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS_PREFIX = "io.cilium.k8s.namespace.labels."
CLUSTER_KEY = "io.cilium.k8s.policy.cluster"
SERVICE_ACCOUNT_KEY = "io.cilium.k8s.policy.serviceaccount"
NAMED_PORTS_KEY = "io.cilium.k8s.named-ports"
_RESERVED_PREFIXES = (NAMESPACE_KEY, "io.cilium.k8s.", "reserved")


class FilterRule(NamedTuple):
    """Labels whose key begins with a match of `pattern` are kept or left out."""

    pattern: re.Pattern[str]
    keep: bool


def _rules(keep: Iterable[str], drop: Iterable[str]) -> tuple[FilterRule, ...]:
    return tuple(
        FilterRule(re.compile(pattern), kept)
        for patterns, kept in ((keep, True), (drop, False))
        for pattern in patterns
    )


# What identity-relevant means without configuration (Cilium's documented default, policy/4.9 of its label
# filter).
_DEFAULT_KEEP = (
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"io\.cilium\.k8s\.policy\.(?:cluster|serviceaccount)",
    r"app\.kubernetes\.io",
)
_DEFAULT_DROP = (
    r"io\.kubernetes",
    r"kubernetes\.io",
    r".*beta\.kubernetes\.io",
    r"k8s\.io",
    r"pod-template-generation",
    r"pod-template-hash",
    r"controller-revision-hash",
    r"controller-uid",
    r"statefulset\.kubernetes\.io/pod-name",
    r"apps\.kubernetes\.io/pod-index",
    r"batch\.kubernetes\.io/(?:job-completion-index|controller-uid)",
    r"topology\.kubernetes\.io",
    r"annotation.*",
    r"etcd_node",
)


@dataclass(frozen=True, slots=True)
class LabelFilter:
    """The longest matching rule decides; with `allow_list`, what no rule names is left out, else kept."""

    rules: tuple[FilterRule, ...]
    allow_list: bool = False

    def keeps(self, key: str) -> bool:
        """Whether a label of this key counts."""
        longest, kept = -1, not self.allow_list
        for rule in self.rules:
            match = rule.pattern.match(key)
            if match and (match.end() > longest or (match.end() == longest and rule.keep)):
                longest, kept = match.end(), rule.keep
        return kept


DEFAULT_FILTER = LabelFilter(_rules(_DEFAULT_KEEP, _DEFAULT_DROP))


def identity_labels(
    pod_labels: Mapping[str, str],
    namespace: str,
    *,
    namespace_labels: Mapping[str, str],
    service_account: str,
    named_ports: Iterable[NamedPort] = (),
    cluster: str = "default",
    label_filter: LabelFilter = DEFAULT_FILTER,
) -> tuple[str, ...]:
    """The label set of a pod's identity: `k8s:key=value`, sorted.

    Named ports are part of it: a policy for a named port means other numbers for other pods, so pods that
    differ in them must not share an identity.
    """
    labels = {key: value for key, value in pod_labels.items() if not key.startswith(_RESERVED_PREFIXES)}
    labels |= {f"{NAMESPACE_LABELS_PREFIX}{key}": value for key, value in namespace_labels.items()}
    labels[NAMESPACE_KEY] = namespace
    labels[CLUSTER_KEY] = cluster
    labels[SERVICE_ACCOUNT_KEY] = service_account or "default"
    if ports := format_named_ports(named_ports):
        labels[NAMED_PORTS_KEY] = ports
    return tuple(sorted(f"k8s:{key}={value}" for key, value in labels.items() if label_filter.keeps(key)))


def format_named_ports(ports: Iterable[NamedPort]) -> str:
    """`http.8080.tcp_metrics.9090.tcp`: a label's value, as long as it takes."""
    return "_".join(sorted({f"{each.name.lower()}.{each.port}.{each.protocol.lower()}" for each in ports if each.name}))


def parse_named_ports(text: str) -> tuple[NamedPort, ...]:
    """The ports of a label's value; what does not look like one is left out."""
    found: list[NamedPort] = []
    for each in text.split("_"):
        name, _, rest = each.partition(".")
        port, _, protocol = rest.partition(".")
        if name and port.isdecimal() and protocol:
            found.append(NamedPort(name, int(port), protocol.upper()))
    return tuple(found)


def split_label(label: str) -> tuple[str, str]:
    """`k8s:app=web` → (`k8s:app`, `web`), as security-labels keep it."""
    key, _, value = label.partition("=")
    return key, value
