"""Which rule judges which kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mycel.cluster.apiserver.schema.problems import Problem
from mycel.cluster.apiserver.validation import others, pods, services, webhooks, workloads
from mycel.cluster.apiserver.validation.metadata import NameRule
from mycel.cluster.apiserver.validation.names import dns_label, dns_label_1035, path_segment

Validator = Callable[[dict[str, Any], dict[str, Any] | None], list[Problem]]

NAME_RULES: dict[str, NameRule] = {
    "namespaces": dns_label,
    "services": dns_label_1035,
    "clusterroles.rbac.authorization.k8s.io": path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": path_segment,
    "roles.rbac.authorization.k8s.io": path_segment,
    "rolebindings.rbac.authorization.k8s.io": path_segment,
}

VALIDATORS: dict[str, Validator] = {
    "pods": pods.validate_pod,
    "services": services.validate_service,
    "endpoints": services.validate_endpoints,
    "endpointslices.discovery.k8s.io": services.validate_endpoint_slice,
    "networkpolicies.networking.k8s.io": services.validate_network_policy,
    "ingresses.networking.k8s.io": services.validate_ingress,
    "deployments.apps": workloads.validate_deployment,
    "replicasets.apps": workloads.validate_replicaset,
    "daemonsets.apps": workloads.validate_daemonset,
    "statefulsets.apps": workloads.validate_statefulset,
    "jobs.batch": workloads.validate_job,
    "poddisruptionbudgets.policy": workloads.validate_budget,
    "configmaps": others.validate_config_map,
    "secrets": others.validate_secret,
    "clusterroles.rbac.authorization.k8s.io": others.validate_role,
    "roles.rbac.authorization.k8s.io": others.validate_role,
    "clusterrolebindings.rbac.authorization.k8s.io": others.validate_role_binding,
    "rolebindings.rbac.authorization.k8s.io": others.validate_role_binding,
    "nodes": others.validate_node,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": webhooks.validate_configuration,
    "leases.coordination.k8s.io": others.validate_lease,
    "customresourcedefinitions.apiextensions.k8s.io": others.validate_crd,
}
