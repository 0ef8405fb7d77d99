"""Nodes, Services, Namespaces, Events and the other kinds of the core group."""

from __future__ import annotations

from typing import Any

from mycel.cluster.apiserver.tables.column import (
    NONE,
    UNKNOWN,
    Object,
    Printer,
    age,
    age_of,
    columns,
    labels_text,
)

_ROLE = "node-role.kubernetes.io/"


def _name(obj: Object) -> str:
    return obj["metadata"]["name"]


def _node(obj: Object) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    info = status.get("nodeInfo") or {}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
    words = [{"True": "Ready"}.get(conditions["Ready"], "NotReady")] if "Ready" in conditions else ["Unknown"]
    if spec.get("unschedulable"):
        words.append("SchedulingDisabled")
    labels = obj["metadata"].get("labels") or {}
    roles = {key[len(_ROLE) :] for key in labels if key.startswith(_ROLE) and key != _ROLE}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    addresses: dict[str, str] = {}
    for address in status.get("addresses") or ():
        addresses.setdefault(address.get("type"), address.get("address"))
    return [
        _name(obj),
        ",".join(words),
        ",".join(sorted(roles)) or NONE,
        age_of(obj),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _service(obj: Object) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        _name(obj),
        spec.get("type", "ClusterIP"),
        (spec.get("clusterIPs") or [spec.get("clusterIP")])[0] or NONE,
        _external_ip(obj),
        _ports(spec.get("ports") or ()),
        age_of(obj),
        labels_text(spec.get("selector")),
    ]


def _external_ip(obj: Object) -> str:
    spec = obj.get("spec") or {}
    given = list(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "LoadBalancer":
            ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
            found = [entry.get("ip") or entry.get("hostname") for entry in ingress]
            found += given
            return ",".join(item for item in found if item) or "<pending>"
        case "ExternalName":
            return spec.get("externalName", "")
        case _:
            return ",".join(given) or NONE


def _ports(ports: Any) -> str:
    shown: list[str] = []
    for port in ports:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or NONE


def _endpoints(obj: Object) -> list[Any]:
    found: list[str] = []
    more = 0
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or [{}]:
            for address in subset.get("addresses") or ():
                if len(found) == 3:
                    more += 1
                    continue
                ip = address.get("ip", "")
                host = f"[{ip}]" if ":" in ip else ip
                found.append(f"{host}:{port['port']}" if port.get("port") else ip)
    text = ",".join(found) + (f" + {more} more..." if more else "")
    return [_name(obj), text or NONE, age_of(obj)]


def _namespace(obj: Object) -> list[Any]:
    return [_name(obj), (obj.get("status") or {}).get("phase", ""), age_of(obj)]


def _event(obj: Object) -> list[Any]:
    about = obj.get("involvedObject") or {}
    series = obj.get("series") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp")
    last = series.get("lastObservedTime") or obj.get("lastTimestamp") or first
    source = obj.get("source") or {}
    who = source.get("component") or obj.get("reportingComponent") or ""
    if source.get("host") or obj.get("reportingInstance"):
        who += f", {source.get('host') or obj.get('reportingInstance')}"
    count = series.get("count") or obj.get("count") or 1
    kind, name = str(about.get("kind", "")).lower(), about.get("name", "")
    return [
        age(last),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{name}" if name else kind,
        about.get("fieldPath", ""),
        who,
        str(obj.get("message", "")).strip(),
        age(first),
        count,
        _name(obj),
    ]


def _config_map(obj: Object) -> list[Any]:
    return [_name(obj), len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), age_of(obj)]


def _secret(obj: Object) -> list[Any]:
    return [_name(obj), obj.get("type", "Opaque"), len(obj.get("data") or {}), age_of(obj)]


def _service_account(obj: Object) -> list[Any]:
    return [_name(obj), len(obj.get("secrets") or ()), age_of(obj)]


def _quota(obj: Object) -> list[Any]:
    status = obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    plain = [f"{key}: {used.get(key, 0)}/{value}" for key, value in sorted(hard.items()) if "limits" not in key]
    limits = [f"{key}: {used.get(key, 0)}/{value}" for key, value in sorted(hard.items()) if "limits" in key]
    return [_name(obj), ", ".join(plain), ", ".join(limits), age_of(obj)]


def _limit_range(obj: Object) -> list[Any]:
    return [_name(obj), obj["metadata"].get("creationTimestamp", "")]


def _claim(obj: Object) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [
        _name(obj),
        status.get("phase", ""),
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", ""),
        ",".join(status.get("accessModes") or ()),
        spec.get("storageClassName", ""),
        UNKNOWN if not spec.get("volumeAttributesClassName") else spec["volumeAttributesClassName"],
        age_of(obj),
        spec.get("volumeMode", UNKNOWN),
    ]


def _pod_template(obj: Object) -> list[Any]:
    found = ((obj.get("template") or {}).get("spec") or {}).get("containers") or ()
    labels = ((obj.get("template") or {}).get("metadata") or {}).get("labels")
    return [
        _name(obj),
        ",".join(c.get("name", "") for c in found),
        ",".join(c.get("image", "") for c in found),
        labels_text(labels),
    ]


CORE: dict[str, Printer] = {
    "nodes": Printer(
        columns(
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "+Internal-IP",
            "+External-IP",
            "+OS-Image",
            "+Kernel-Version",
            "+Container-Runtime",
        ),
        _node,
    ),
    "services": Printer(columns("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "+Selector"), _service),
    "endpoints": Printer(columns("Name", "Endpoints", "Age"), _endpoints),
    "namespaces": Printer(columns("Name", "Status", "Age"), _namespace),
    "events": Printer(
        columns(
            "Last Seen",
            "Type",
            "Reason",
            "Object",
            "+Subobject",
            "+Source",
            "Message",
            "+First Seen",
            "+Count#",
            "+Name",
        ),
        _event,
    ),
    "configmaps": Printer(columns("Name", "Data", "Age"), _config_map),
    "secrets": Printer(columns("Name", "Type", "Data", "Age"), _secret),
    "serviceaccounts": Printer(columns("Name", "Secrets", "Age"), _service_account),
    "resourcequotas": Printer(columns("Name", "Request", "Limit", "Age"), _quota),
    "limitranges": Printer(columns("Name", "Created At"), _limit_range),
    "persistentvolumeclaims": Printer(
        columns(
            "Name",
            "Status",
            "Volume",
            "Capacity",
            "Access Modes",
            "StorageClass",
            "VolumeAttributesClass",
            "Age",
            "+VolumeMode",
        ),
        _claim,
    ),
    "podtemplates": Printer(columns("Name", "Containers", "Images", "Pod Labels"), _pod_template),
}
