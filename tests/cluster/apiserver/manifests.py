"""One good manifest of every kind that people write, to be applied and to be broken."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def _pod_spec() -> Object:
    return {
        "serviceAccountName": "default",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "terminationGracePeriodSeconds": 5,
        "restartPolicy": "Always",
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
                ]
            }
        },
        "containers": [
            {
                "name": "main",
                "image": "example/app:1",
                "command": ["/bin/app"],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
                "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "100m"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                "securityContext": {"privileged": True, "capabilities": {"add": ["NET_ADMIN"]}},
            }
        ],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "conf", "configMap": {"name": "conf", "items": [{"key": "a", "path": "b"}]}},
            {"name": "host", "hostPath": {"path": "/var/run", "type": "Directory"}},
        ],
    }


def _workload(kind: str, **more: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": f"a-{kind.lower()}", "namespace": "default", "labels": {"app": "x"}},
        "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": _pod_spec()},
            **more,
        },
    }


def _meta(name: str, *, namespaced: bool = True) -> Object:
    return {"name": name, **({"namespace": "default"} if namespaced else {})}


def manifests() -> list[tuple[str, Object]]:
    """(collection path, manifest) of each kind."""
    core, apps = "/api/v1/namespaces/default", "/apis/apps/v1/namespaces/default"
    net = "/apis/networking.k8s.io/v1"
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rbac_v = "rbac.authorization.k8s.io/v1"
    return [
        ("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": _meta("space", namespaced=False)}),
        (f"{core}/pods", {"apiVersion": "v1", "kind": "Pod", "metadata": _meta("pod"), "spec": _pod_spec()}),
        (
            f"{core}/services",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": _meta("svc"),
                "spec": {
                    "type": "NodePort",
                    "selector": {"app": "x"},
                    "ports": [
                        {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                        {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
                    ],
                },
            },
        ),
        (
            f"{core}/endpoints",
            {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": _meta("ep"),
                "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}],
            },
        ),
        (
            f"{core}/configmaps",
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta("cm"), "data": {"key": "value"}},
        ),
        (
            f"{core}/secrets",
            {"apiVersion": "v1", "kind": "Secret", "metadata": _meta("secret"), "data": {"key": "dmFsdWU="}},
        ),
        (f"{core}/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta("sa")}),
        (
            "/api/v1/nodes",
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": _meta("node", namespaced=False),
                "spec": {"podCIDR": "10.244.9.0/24", "taints": [{"key": "a", "effect": "NoSchedule"}]},
            },
        ),
        (
            f"{core}/events",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": _meta("event"),
                "involvedObject": {"kind": "Pod", "name": "pod", "namespace": "default"},
                "reason": "Tested",
                "message": "said",
                "count": 1,
                "type": "Normal",
            },
        ),
        (
            f"{apps}/deployments",
            _workload(
                "Deployment",
                replicas=2,
                strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}},
            ),
        ),
        (f"{apps}/replicasets", _workload("ReplicaSet", replicas=1)),
        (f"{apps}/daemonsets", _workload("DaemonSet", updateStrategy={"type": "OnDelete"})),
        (f"{apps}/statefulsets", _workload("StatefulSet", serviceName="x", replicas=1)),
        (
            f"{net}/namespaces/default/networkpolicies",
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": _meta("np"),
                "spec": {
                    "podSelector": {"matchLabels": {"app": "x"}},
                    "ingress": [
                        {
                            "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                            "ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}],
                        }
                    ],
                },
            },
        ),
        (
            f"{net}/namespaces/default/ingresses",
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "Ingress",
                "metadata": _meta("ing"),
                "spec": {
                    "ingressClassName": "cilium",
                    "rules": [
                        {
                            "host": "x.example.com",
                            "http": {
                                "paths": [
                                    {
                                        "path": "/",
                                        "pathType": "Prefix",
                                        "backend": {"service": {"name": "svc", "port": {"number": 80}}},
                                    }
                                ]
                            },
                        }
                    ],
                },
            },
        ),
        (
            f"{net}/ingressclasses",
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "IngressClass",
                "metadata": _meta("class", namespaced=False),
                "spec": {"controller": "example.com/x"},
            },
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": _meta("slice"),
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": True}}],
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            },
        ),
        (
            f"{rbac}/clusterroles",
            {
                "apiVersion": rbac_v,
                "kind": "ClusterRole",
                "metadata": _meta("role", namespaced=False),
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
            },
        ),
        (
            f"{rbac}/namespaces/default/rolebindings",
            {
                "apiVersion": rbac_v,
                "kind": "RoleBinding",
                "metadata": _meta("binding"),
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "role"},
                "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
            },
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": _meta("lease"),
                "spec": {
                    "holderIdentity": "me",
                    "leaseDurationSeconds": 40,
                    "renewTime": "2026-01-01T00:00:00.000000Z",
                },
            },
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": _meta("pdb"),
                "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "x"}}},
            },
        ),
        (
            "/apis/batch/v1/namespaces/default/jobs",
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": _meta("job"),
                "spec": {"template": {"spec": {**_pod_spec(), "restartPolicy": "Never"}}},
            },
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": _meta("widgets.example.com", namespaced=False),
                "spec": {
                    "group": "example.com",
                    "scope": "Namespaced",
                    "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wg"]},
                    "versions": [
                        {
                            "name": "v1",
                            "served": True,
                            "storage": True,
                            "subresources": {"status": {}},
                            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                            "schema": {
                                "openAPIV3Schema": {
                                    "type": "object",
                                    "properties": {
                                        "spec": {
                                            "type": "object",
                                            "required": ["size"],
                                            "properties": {
                                                "size": {"type": "integer", "minimum": 1},
                                                "color": {
                                                    "type": "string",
                                                    "default": "red",
                                                    "enum": ["red", "blue"],
                                                },
                                                "parts": {
                                                    "type": "array",
                                                    "items": {
                                                        "type": "object",
                                                        "properties": {
                                                            "name": {"type": "string", "pattern": "^[a-z]+$"}
                                                        },
                                                    },
                                                },
                                            },
                                        },
                                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                    },
                                }
                            },
                        }
                    ],
                },
            },
        ),
        (
            "/apis/example.com/v1/namespaces/default/widgets",
            {
                "apiVersion": "example.com/v1",
                "kind": "Widget",
                "metadata": _meta("widget"),
                "spec": {"size": 3, "parts": [{"name": "wheel"}]},
            },
        ),
    ]
