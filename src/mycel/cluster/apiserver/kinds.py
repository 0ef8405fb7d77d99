"""The built-in kinds, one row each."""

from __future__ import annotations

import dataclasses

from mycel.cluster.apiserver.events import from_core_event, to_core_event
from mycel.cluster.apiserver.registry import ALL_VERBS, Kind, resource_id
from mycel.cluster.store import ResourceId

_CREATE = ("create",)


def _row(
    api: str,
    plural: str,
    kind: str,
    *,
    struct: str = "",
    short: str = "",
    all_category: bool = False,
    cluster: bool = False,
    sub: str = "",
    generation: bool = False,
    verbs: tuple[str, ...] = ALL_VERBS,
) -> Kind:
    group, _, version = api.rpartition("/")
    package = {"": "core", "rbac.authorization.k8s.io": "rbac"}.get(group, group.split(".", 1)[0])
    return Kind(
        group=group,
        version=version,
        plural=plural,
        kind=kind,
        singular=kind.lower(),
        namespaced=not cluster,
        struct=struct or f"{package}.{version}.{kind}",
        short_names=tuple(short.split()),
        categories=("all",) if all_category else (),
        verbs=verbs,
        subresources=tuple(sub.split()),
        has_generation=generation,
        list_kind=f"{kind}List",
    )


_RBAC = "rbac.authorization.k8s.io/v1"
_POD_SUB = "attach binding eviction exec log portforward status"

# Kinds that are served and kept, while no controller of the cluster acts on them. Whoever makes one is told.
STORED_ONLY = frozenset(
    {
        resource_id("cronjobs", "batch"),
        resource_id("horizontalpodautoscalers", "autoscaling"),
        resource_id("jobs", "batch"),
        resource_id("limitranges", ""),
        resource_id("persistentvolumeclaims", ""),
        resource_id("persistentvolumes", ""),
        resource_id("replicationcontrollers", ""),
        resource_id("resourcequotas", ""),
    }
)


def builtin_kinds() -> tuple[Kind, ...]:
    """Every built-in kind, in the order discovery shows them."""
    return (
        _row("v1", "bindings", "Binding", verbs=_CREATE),
        _row("v1", "configmaps", "ConfigMap", short="cm"),
        _row("v1", "endpoints", "Endpoints", short="ep"),
        _row("v1", "events", "Event", short="ev"),
        _row("v1", "limitranges", "LimitRange", short="limits"),
        _row("v1", "namespaces", "Namespace", short="ns", cluster=True, sub="finalize status"),
        _row("v1", "nodes", "Node", short="no", cluster=True, sub="status"),
        _row("v1", "persistentvolumeclaims", "PersistentVolumeClaim", short="pvc", sub="status"),
        _row("v1", "persistentvolumes", "PersistentVolume", short="pv", cluster=True, sub="status"),
        _row("v1", "pods", "Pod", short="po", all_category=True, sub=_POD_SUB),
        _row("v1", "podtemplates", "PodTemplate"),
        _row(
            "v1",
            "replicationcontrollers",
            "ReplicationController",
            short="rc",
            all_category=True,
            sub="scale status",
            generation=True,
        ),
        _row("v1", "resourcequotas", "ResourceQuota", short="quota", sub="status"),
        _row("v1", "secrets", "Secret"),
        _row("v1", "serviceaccounts", "ServiceAccount", short="sa", sub="token"),
        _row("v1", "services", "Service", short="svc", all_category=True, sub="status"),
        _row("apps/v1", "controllerrevisions", "ControllerRevision"),
        _row("apps/v1", "daemonsets", "DaemonSet", short="ds", all_category=True, sub="status", generation=True),
        _row(
            "apps/v1",
            "deployments",
            "Deployment",
            short="deploy",
            all_category=True,
            sub="scale status",
            generation=True,
        ),
        _row(
            "apps/v1",
            "replicasets",
            "ReplicaSet",
            short="rs",
            all_category=True,
            sub="scale status",
            generation=True,
        ),
        _row(
            "apps/v1",
            "statefulsets",
            "StatefulSet",
            short="sts",
            all_category=True,
            sub="scale status",
            generation=True,
        ),
        dataclasses.replace(
            _row("events.k8s.io/v1", "events", "Event", short="ev"),
            storage=ResourceId("events"),
            to_storage=to_core_event,
            from_storage=from_core_event,
        ),
        _row("authentication.k8s.io/v1", "tokenreviews", "TokenReview", cluster=True, verbs=_CREATE),
        _row("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", cluster=True, verbs=_CREATE),
        _row(
            "authorization.k8s.io/v1",
            "localsubjectaccessreviews",
            "LocalSubjectAccessReview",
            verbs=_CREATE,
        ),
        _row(
            "authorization.k8s.io/v1",
            "selfsubjectaccessreviews",
            "SelfSubjectAccessReview",
            cluster=True,
            verbs=_CREATE,
        ),
        _row(
            "authorization.k8s.io/v1",
            "selfsubjectrulesreviews",
            "SelfSubjectRulesReview",
            cluster=True,
            verbs=_CREATE,
        ),
        _row("authorization.k8s.io/v1", "subjectaccessreviews", "SubjectAccessReview", cluster=True, verbs=_CREATE),
        _row(
            "autoscaling/v1",
            "horizontalpodautoscalers",
            "HorizontalPodAutoscaler",
            short="hpa",
            all_category=True,
            sub="status",
        ),
        _row("batch/v1", "cronjobs", "CronJob", short="cj", all_category=True, sub="status", generation=True),
        _row("batch/v1", "jobs", "Job", all_category=True, sub="status", generation=True),
        _row("networking.k8s.io/v1", "ingressclasses", "IngressClass", cluster=True, generation=True),
        _row("networking.k8s.io/v1", "ingresses", "Ingress", short="ing", sub="status", generation=True),
        _row("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", short="netpol", generation=True),
        _row("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", short="pdb", sub="status", generation=True),
        _row(_RBAC, "clusterrolebindings", "ClusterRoleBinding", cluster=True),
        _row(_RBAC, "clusterroles", "ClusterRole", cluster=True),
        _row(_RBAC, "rolebindings", "RoleBinding"),
        _row(_RBAC, "roles", "Role"),
        _row(
            "apiextensions.k8s.io/v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
            short="crd crds",
            cluster=True,
            sub="status",
            generation=True,
        ),
        _row(
            "admissionregistration.k8s.io/v1",
            "validatingwebhookconfigurations",
            "ValidatingWebhookConfiguration",
            cluster=True,
            generation=True,
        ),
        _row("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", short="pc", cluster=True, generation=True),
        _row("coordination.k8s.io/v1", "leases", "Lease"),
        _row("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", generation=True),
    )
