"""Manifests of the three policy APIs → policies in one form. Raises PolicyInvalid with the field's path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mycel.policy.cilium import CLUSTERWIDE_KIND, KIND, Scope, parse_cilium_policy
from mycel.policy.fields import Field, network
from mycel.policy.kubernetes import KIND as KUBERNETES_KIND
from mycel.policy.kubernetes import parse_network_policy
from mycel.policy.rules import Network, Policy

CIDR_GROUP_KIND = "CiliumCIDRGroup"
POLICY_KINDS = frozenset({KIND, CLUSTERWIDE_KIND, KUBERNETES_KIND})
_GROUPS = {KIND: "cilium.io", CLUSTERWIDE_KIND: "cilium.io", KUBERNETES_KIND: "networking.k8s.io"}
_TOP = ("apiVersion", "kind", "metadata", "status", "spec")


def parse_policy(manifest: Mapping[str, Any], *, cluster: str = "default") -> tuple[Policy, ...]:
    """The policies an object holds; `cluster` is the cluster's own name. Raises PolicyInvalid."""
    root = Field(dict(manifest), "")
    kind = root["kind"].text()
    if kind not in POLICY_KINDS:
        raise root["kind"].fail(f"{kind} is not a policy: {', '.join(sorted(POLICY_KINDS))} are")
    group = root["apiVersion"].text().partition("/")[0]
    if group != _GROUPS[kind]:
        raise root["apiVersion"].fail(f"{root['apiVersion'].value!r} has no {kind}: {_GROUPS[kind]} has")
    name = root["metadata"]["name"].text()
    namespace = "" if kind == CLUSTERWIDE_KIND else root["metadata"]["namespace"].text("default")
    if kind == KUBERNETES_KIND:
        root = root.knows(*_TOP)
        return parse_network_policy(root["spec"], namespace=namespace, name=name, cluster=cluster)
    root = root.knows(*_TOP, "specs")
    return parse_cilium_policy(root, Scope(kind, namespace, name, cluster))


def parse_cidr_group(manifest: Mapping[str, Any]) -> tuple[Network, ...]:
    """The networks of a CiliumCIDRGroup. Raises PolicyInvalid."""
    spec = Field(dict(manifest), "").knows(*_TOP)["spec"].knows("externalCIDRs")
    return spec["externalCIDRs"].list_of(network) or ()
