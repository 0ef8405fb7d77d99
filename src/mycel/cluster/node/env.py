"""A container's environment: values, references, expansion, and the variables of services. Pure.

Order and precedence are kubelet's: services first, then envFrom in order, then env in order; `$(NAME)` sees what
came before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mycel.cluster.node import quantity
from mycel.cluster.node.names import Object

_REFERENCE = re.compile(r"\$(\$|\([^()$]*\))")
_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


class ConfigMissing(Exception):
    """The container cannot be made: it names a ConfigMap, Secret, key or field that is not there
    (CreateContainerConfigError).
    """


@dataclass(frozen=True, slots=True)
class Lookup:
    """Where references go. Functions return None for what does not exist."""

    config_map: Callable[[str], Mapping[str, str] | None]
    secret: Callable[[str], Mapping[str, bytes] | None]


def build(pod: Object, container: Object, services: Iterable[Object], lookup: Lookup) -> dict[str, str]:
    """All variables of `container`. Raises ConfigMissing."""
    result: dict[str, str] = {}
    result.update(service_variables(services, pod))
    for source in container.get("envFrom") or []:
        prefix = source.get("prefix") or ""
        result.update(
            {prefix + key: value for key, value in _all_of(source, lookup).items() if _VARIABLE.fullmatch(prefix + key)}
        )
    for entry in container.get("env") or []:
        value = _value(pod, container, entry, lookup, result)
        if value is not None:
            result[entry["name"]] = value
    return result


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value, `$$(NAME)` becomes `$(NAME)`, unknown references stay as they are."""

    def replace(found: re.Match[str]) -> str:
        inner = found[1]
        if inner == "$":
            return "$"
        return variables.get(inner[1:-1], found[0])

    return _REFERENCE.sub(replace, text)


def field(pod: Object, path: str) -> str:
    """A downward API field. Raises ConfigMissing for paths that do not exist."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    keyed = _KEYED.fullmatch(path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(metadata[path.partition(".")[2]])
        case "metadata.labels" | "metadata.annotations":
            entries: dict[str, str] = metadata.get(path.partition(".")[2]) or {}
            return "\n".join(f'{key}="{_escaped(value)}"' for key, value in sorted(entries.items()))
        case "spec.nodeName":
            return str(spec.get("nodeName", ""))
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName", ""))
        case "status.hostIP" | "status.podIP":
            return str(status.get(path.partition(".")[2], ""))
        case "status.hostIPs" | "status.podIPs":
            return ",".join(item["ip"] for item in status.get(path.partition(".")[2]) or [])
        case _:
            raise ConfigMissing(f"fieldRef {path} is not supported")


def resource(pod: Object, container: Object, reference: Object) -> str:
    """A resourceFieldRef: `limits.memory` and the like, divided as asked. Raises ConfigMissing."""
    wanted = reference["resource"]
    name = reference.get("containerName")
    if name:
        every = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
        container = next((item for item in every if item["name"] == name), {})
        if not container:
            raise ConfigMissing(f"resourceFieldRef names container {name}, which the pod does not have")
    section, _, kind = wanted.partition(".")
    resources = container.get("resources") or {}
    value = (resources.get(section) or {}).get(kind)
    if value is None and section == "requests":
        value = (resources.get("limits") or {}).get(kind)
    if value is None:
        value = _whole_machine(kind) if section == "limits" else "0"
    return str(quantity.divided(value, reference.get("divisor") or "1"))


def service_variables(services: Iterable[Object], pod: Object) -> dict[str, str]:
    """`NAME_SERVICE_HOST` and friends: of `default/kubernetes` always, of the pod's namespace unless it switched
    links off.
    """
    links = pod["spec"].get("enableServiceLinks", True)
    namespace = pod["metadata"]["namespace"]
    result: dict[str, str] = {}
    for service in services:
        metadata, spec = service["metadata"], service.get("spec") or {}
        own = metadata["namespace"] == namespace and links
        master = metadata["namespace"] == "default" and metadata["name"] == "kubernetes"
        address = spec.get("clusterIP")
        if not (own or master) or not address or address == "None" or not spec.get("ports"):
            continue
        result.update(_service(metadata["name"], address, spec["ports"]))
    return result


def _service(name: str, address: str, ports: list[Object]) -> dict[str, str]:
    stem = name.upper().replace("-", "_")
    first = ports[0]
    result = {f"{stem}_SERVICE_HOST": address, f"{stem}_SERVICE_PORT": str(first["port"])}
    for port in ports:
        if port.get("name"):
            result[f"{stem}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
    for index, port in enumerate(ports):
        protocol = port.get("protocol", "TCP").lower()
        url = f"{protocol}://{address}:{port['port']}"
        if index == 0:
            result[f"{stem}_PORT"] = url
        prefix = f"{stem}_PORT_{port['port']}_{protocol.upper()}"
        result |= {
            prefix: url,
            f"{prefix}_PROTO": protocol,
            f"{prefix}_PORT": str(port["port"]),
            f"{prefix}_ADDR": address,
        }
    return result


def _all_of(source: Object, lookup: Lookup) -> dict[str, str]:
    if "configMapRef" in source:
        reference = source["configMapRef"]
        found = lookup.config_map(reference["name"])
        if found is None and not reference.get("optional"):
            raise ConfigMissing(f'configmap "{reference["name"]}" not found')
        return dict(found or {})
    reference = source.get("secretRef") or {}
    secret = lookup.secret(reference.get("name", ""))
    if secret is None and not reference.get("optional"):
        raise ConfigMissing(f'secret "{reference.get("name", "")}" not found')
    return {key: value.decode(errors="surrogateescape") for key, value in (secret or {}).items()}


def _value(pod: Object, container: Object, entry: Object, lookup: Lookup, before: Mapping[str, str]) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(entry.get("value") or "", before)
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource(pod, container, source["resourceFieldRef"])
    if "configMapKeyRef" in source:
        reference = source["configMapKeyRef"]
        config = lookup.config_map(reference["name"])
        if config is not None and reference["key"] in config:
            return config[reference["key"]]
        kind, there = "configmap", config is not None
    elif "secretKeyRef" in source:
        reference = source["secretKeyRef"]
        secret = lookup.secret(reference["name"])
        if secret is not None and reference["key"] in secret:
            return secret[reference["key"]].decode(errors="surrogateescape")
        kind, there = "secret", secret is not None
    else:
        raise ConfigMissing(f"env {entry['name']}: valueFrom names no source")
    if reference.get("optional"):
        return None
    if there:
        namespace = pod["metadata"]["namespace"]
        raise ConfigMissing(f"couldn't find key {reference['key']} in {kind} {namespace}/{reference['name']}")
    raise ConfigMissing(f'{kind} "{reference["name"]}" not found')


def _whole_machine(kind: str) -> str:
    """Without a limit the downward API reports what the node has."""
    import os

    if kind == "cpu":
        return str(os.cpu_count() or 1)
    if kind == "memory":
        return str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return "0"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
