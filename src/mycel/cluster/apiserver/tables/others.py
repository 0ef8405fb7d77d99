"""Networking, RBAC, leases, CRDs."""

from __future__ import annotations

from typing import Any

from mycel.cluster.apiserver.tables.column import NONE, UNSET, Object, Printer, age_of, columns, selector_text


def _name(obj: Object) -> str:
    return obj["metadata"]["name"]


def _ingress(obj: Object) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    hosts = [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    shown = "*" if not hosts else ",".join(hosts[:3])
    if len(hosts) > 3:
        shown += f" + {len(hosts) - 3} more..."
    entries = (status.get("loadBalancer") or {}).get("ingress") or ()
    addresses = [entry.get("ip") or entry.get("hostname") or "" for entry in entries]
    klass = spec.get("ingressClassName") or (obj["metadata"].get("annotations") or {}).get(
        "kubernetes.io/ingress.class", NONE
    )
    ports = "80, 443" if spec.get("tls") else "80"
    return [_name(obj), klass, shown, ",".join(addresses), ports, age_of(obj)]


def _ingress_class(obj: Object) -> list[Any]:
    spec = obj.get("spec") or {}
    parameters = spec.get("parameters")
    text = NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        text = f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"
    return [_name(obj), spec.get("controller", ""), text, age_of(obj)]


def _network_policy(obj: Object) -> list[Any]:
    return [_name(obj), selector_text((obj.get("spec") or {}).get("podSelector")), age_of(obj)]


def _endpoint_slice(obj: Object) -> list[Any]:
    ports = [str(port.get("port", "*")) for port in obj.get("ports") or ()]
    addresses = [address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return [
        _name(obj),
        obj.get("addressType", ""),
        _first(ports) if obj.get("ports") is not None and ports else UNSET,
        _first(addresses) if addresses else UNSET,
        age_of(obj),
    ]


def _first(items: list[str]) -> str:
    return ",".join(items[:3]) + (f" + {len(items) - 3} more..." if len(items) > 3 else "")


def _lease(obj: Object) -> list[Any]:
    return [_name(obj), (obj.get("spec") or {}).get("holderIdentity", ""), age_of(obj)]


def _crd(obj: Object) -> list[Any]:
    return [_name(obj), obj["metadata"].get("creationTimestamp", "")]


def _role(obj: Object) -> list[Any]:
    return [_name(obj), obj["metadata"].get("creationTimestamp", "")]


def _binding(obj: Object) -> list[Any]:
    reference = obj.get("roleRef") or {}
    by_kind: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name", "")
        if subject.get("kind") == "ServiceAccount":
            name = f"{subject.get('namespace', '')}/{name}"
        by_kind.setdefault(subject.get("kind", ""), []).append(name)
    return [
        _name(obj),
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        age_of(obj),
        ", ".join(by_kind["User"]),
        ", ".join(by_kind["Group"]),
        ", ".join(by_kind["ServiceAccount"]),
    ]


def _webhooks(obj: Object) -> list[Any]:
    return [_name(obj), len(obj.get("webhooks") or ()), age_of(obj)]


def _priority_class(obj: Object) -> list[Any]:
    return [
        _name(obj),
        obj.get("value", 0),
        str(bool(obj.get("globalDefault"))).lower(),
        age_of(obj),
        obj.get("preemptionPolicy", "PreemptLowerPriority"),
    ]


_BINDING_COLUMNS = columns("Name", "Role", "Age", "+Users", "+Groups", "+ServiceAccounts")
_RBAC = "rbac.authorization.k8s.io"
OTHERS: dict[str, Printer] = {
    "ingresses.networking.k8s.io": Printer(columns("Name", "Class", "Hosts", "Address", "Ports", "Age"), _ingress),
    "ingressclasses.networking.k8s.io": Printer(columns("Name", "Controller", "Parameters", "Age"), _ingress_class),
    "networkpolicies.networking.k8s.io": Printer(columns("Name", "Pod-Selector", "Age"), _network_policy),
    "endpointslices.discovery.k8s.io": Printer(
        columns("Name", "AddressType", "Ports", "Endpoints", "Age"), _endpoint_slice
    ),
    "leases.coordination.k8s.io": Printer(columns("Name", "Holder", "Age"), _lease),
    "customresourcedefinitions.apiextensions.k8s.io": Printer(columns("Name", "Created At"), _crd),
    f"clusterroles.{_RBAC}": Printer(columns("Name", "Created At"), _role),
    f"roles.{_RBAC}": Printer(columns("Name", "Created At"), _role),
    f"clusterrolebindings.{_RBAC}": Printer(_BINDING_COLUMNS, _binding),
    f"rolebindings.{_RBAC}": Printer(_BINDING_COLUMNS, _binding),
    "validatingwebhookconfigurations.admissionregistration.k8s.io": Printer(
        columns("Name", "Webhooks#", "Age"), _webhooks
    ),
    "priorityclasses.scheduling.k8s.io": Printer(
        columns("Name", "Value#", "Global-Default", "Age", "PreemptionPolicy"), _priority_class
    ),
}
