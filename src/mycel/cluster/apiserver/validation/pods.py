"""Pods and pod templates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mycel.cluster.apiserver.schema.problems import (
    Problem,
    duplicate,
    forbidden,
    invalid,
    not_found,
    not_supported,
    required,
)
from mycel.cluster.apiserver.schema.quantity import quantity_value
from mycel.cluster.apiserver.validation import names
from mycel.cluster.apiserver.validation.addresses import is_address
from mycel.cluster.apiserver.validation.scheduling import check_affinity, check_tolerations

Object = dict[str, Any]
_ABSOLUTE_NO_BACKSTEPS = re.compile(r"(^|/)\.\.(/|$)")
_VOLUME_SOURCES_MESSAGE = "must specify a volume type"
_MUTABLE = frozenset({"tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds", "schedulingGates"})
_FIELD_PATHS = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.labels",
        "metadata.annotations",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)


def validate_pod(obj: Object, old: Object | None) -> list[Problem]:
    """A Pod: its spec, and on an update that little of it changed."""
    if "spec" not in obj:
        return [required("spec.containers")]
    if old is None:
        return validate_pod_spec(obj["spec"], "spec")
    return _unchanged(obj["spec"], old["spec"])


def _unchanged(spec: Object, before: Object) -> list[Problem]:
    new, old = _without_mutable(spec), _without_mutable(before)
    if before.get("nodeName") in (None, "") and spec.get("nodeName"):
        old["nodeName"] = new["nodeName"]  # a binding
    if new != old:
        changed = sorted(key for key in {*new, *old} if new.get(key) != old.get(key))
        detail = (
            "pod updates may not change fields other than `spec.containers[*].image`, "
            "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` "
            "(only additions to existing tolerations), `spec.terminationGracePeriodSeconds` "
            f"(allow it to be set to 1 if it was previously negative): {', '.join(changed)}"
        )
        return [forbidden("spec", detail)]
    kept = before.get("tolerations") or []
    if any(item not in (spec.get("tolerations") or []) for item in kept):
        return [forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")]
    return []


def _without_mutable(spec: Object) -> Object:
    result = {key: value for key, value in spec.items() if key not in _MUTABLE}
    for name in ("containers", "initContainers"):
        if name in result:
            result[name] = [{key: value for key, value in c.items() if key != "image"} for c in result[name]]
    result.pop("ephemeralContainers", None)
    return result


def validate_template(template: Object, selector: Object | None, path: str) -> list[Problem]:
    """A pod template; `selector` (a LabelSelector) must match its labels."""
    meta = template.get("metadata") or {}
    problems = names.labels(meta.get("labels"), f"{path}.metadata.labels")
    problems += names.annotations(meta.get("annotations"), f"{path}.metadata.annotations")
    if selector is not None and not _selects(selector, meta.get("labels") or {}):
        problems.append(
            invalid(f"{path}.metadata.labels", meta.get("labels") or {}, "`selector` does not match template `labels`")
        )
    spec = template.get("spec")
    if spec is None:
        return [*problems, required(f"{path}.spec.containers")]
    return problems + validate_pod_spec(spec, f"{path}.spec")


def _selects(selector: Object, labels: Object) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for item in selector.get("matchExpressions") or ():
        value, values = labels.get(item.get("key")), item.get("values") or []
        match item.get("operator"):
            case "In" if value not in values:
                return False
            case "NotIn" if value in values:
                return False
            case "Exists" if value is None:
                return False
            case "DoesNotExist" if value is not None:
                return False
            case _:
                pass
    return True


def validate_pod_spec(spec: Object, path: str) -> list[Problem]:
    """A PodSpec."""
    problems: list[Problem] = []
    volumes = _volumes(spec.get("volumes") or (), f"{path}.volumes", problems)
    containers = spec.get("containers") or []
    if not containers:
        problems.append(required(f"{path}.containers"))
    seen: set[str] = set()
    host_network = bool(spec.get("hostNetwork"))
    for field in ("initContainers", "containers"):
        _containers(spec.get(field) or (), f"{path}.{field}", seen, volumes, host_network, problems)
    _host_ports([*containers], f"{path}.containers", problems)
    if spec.get("nodeName"):
        problems += names.dns_subdomain(spec["nodeName"], f"{path}.nodeName")
    if spec.get("serviceAccountName"):
        problems += names.dns_subdomain(spec["serviceAccountName"], f"{path}.serviceAccountName")
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            problems += names.dns_label(spec[field], f"{path}.{field}")
    problems += names.labels(spec.get("nodeSelector"), f"{path}.nodeSelector")
    problems += names.non_negative(spec.get("terminationGracePeriodSeconds"), f"{path}.terminationGracePeriodSeconds")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and deadline < 1:
        problems.append(invalid(f"{path}.activeDeadlineSeconds", deadline, "must be greater than or equal to 1"))
    check_tolerations(spec.get("tolerations") or (), f"{path}.tolerations", problems)
    check_affinity(spec.get("affinity") or {}, f"{path}.affinity", problems)
    _dns(spec, path, problems)
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        if not is_address(alias.get("ip") or ""):
            problems.append(invalid(f"{path}.hostAliases[{index}].ip", alias.get("ip"), "must be a valid IP address"))
    return problems


def _volumes(volumes: Iterable[Object], path: str, problems: list[Problem]) -> set[str]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        here = f"{path}[{index}]"
        name = volume.get("name") or ""
        problems += names.dns_label(name, f"{here}.name")
        if name in seen:
            problems.append(duplicate(f"{here}.name", name))
        seen.add(name)
        sources = [key for key in volume if key != "name"]
        if not sources:
            problems.append(required(here, _VOLUME_SOURCES_MESSAGE))
        for extra in sources[1:]:
            problems.append(forbidden(f"{here}.{extra}", "may not specify more than 1 volume type"))
        host = volume.get("hostPath")
        if host is not None:
            _path(host.get("path") or "", f"{here}.hostPath.path", problems)
        if volume.get("secret") is not None and not volume["secret"].get("secretName"):
            problems.append(required(f"{here}.secret.secretName"))
        if volume.get("configMap") is not None and not volume["configMap"].get("name"):
            problems.append(required(f"{here}.configMap.name"))
        for kind in ("secret", "configMap", "downwardAPI", "projected"):
            mode = (volume.get(kind) or {}).get("defaultMode")
            if mode is not None and not 0 <= mode <= 0o777:
                problems.append(
                    invalid(
                        f"{here}.{kind}.defaultMode",
                        mode,
                        "must be a number between 0 and 0777 (octal), both inclusive",
                    )
                )
            for position, item in enumerate((volume.get(kind) or {}).get("items") or ()):
                _relative(item.get("path") or "", f"{here}.{kind}.items[{position}].path", problems)
    return seen


def _path(path: str, field: str, problems: list[Problem]) -> None:
    if not path:
        problems.append(required(field))
    elif _ABSOLUTE_NO_BACKSTEPS.search(path):
        problems.append(invalid(field, path, "must not contain '..'"))


def _relative(path: str, field: str, problems: list[Problem]) -> None:
    if not path:
        problems.append(required(field))
    elif path.startswith("/"):
        problems.append(invalid(field, path, "must be a relative path"))
    elif _ABSOLUTE_NO_BACKSTEPS.search(path):
        problems.append(invalid(field, path, "must not contain '..'"))


def _containers(
    containers: Iterable[Object],
    path: str,
    seen: set[str],
    volumes: set[str],
    host_network: bool,
    problems: list[Problem],
) -> None:
    for index, container in enumerate(containers):
        here = f"{path}[{index}]"
        name = container.get("name") or ""
        if name:
            problems += names.dns_label(name, f"{here}.name")
        if name in seen:
            problems.append(duplicate(f"{here}.name", name))
        seen.add(name)
        image = container.get("image") or ""
        if not image:
            problems.append(required(f"{here}.image"))
        elif image != image.strip():
            problems.append(invalid(f"{here}.image", image, "must not have leading or trailing whitespace"))
        _ports(container.get("ports") or (), f"{here}.ports", host_network, problems)
        _env(container, here, problems)
        _mounts(container.get("volumeMounts") or (), f"{here}.volumeMounts", volumes, problems)
        _resources(container.get("resources") or {}, f"{here}.resources", problems)
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            if container.get(probe) is not None:
                _probe(container[probe], f"{here}.{probe}", probe != "readinessProbe", problems)
        for hook, action in (container.get("lifecycle") or {}).items():
            if isinstance(action, dict):
                _handler(action, f"{here}.lifecycle.{hook}", problems)
        if container.get("restartPolicy") not in (None, "Always"):
            problems.append(not_supported(f"{here}.restartPolicy", container["restartPolicy"], ["Always"]))
        elif container.get("restartPolicy") and path.endswith(".containers"):
            problems.append(forbidden(f"{here}.restartPolicy", "may not be set for non-init containers"))


def _ports(ports: Iterable[Object], path: str, host_network: bool, problems: list[Problem]) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        here = f"{path}[{index}]"
        name = port.get("name")
        if name:
            problems += names.port_name(name, f"{here}.name")
            if name in seen:
                problems.append(duplicate(f"{here}.name", name))
            seen.add(name)
        number = port.get("containerPort", 0)
        if number == 0:
            problems.append(required(f"{here}.containerPort"))
        else:
            problems += names.port_number(number, f"{here}.containerPort")
        host = port.get("hostPort")
        if host:
            problems += names.port_number(host, f"{here}.hostPort")
            if host_network and host != number:
                problems.append(
                    invalid(f"{here}.hostPort", host, "must match `containerPort` when `hostNetwork` is true")
                )
        if port.get("hostIP") and not is_address(port["hostIP"]):
            problems.append(invalid(f"{here}.hostIP", port["hostIP"], "must be a valid IP address"))


def _host_ports(containers: list[Object], path: str, problems: list[Problem]) -> None:
    seen: set[tuple[Any, ...]] = set()
    for index, container in enumerate(containers):
        for position, port in enumerate(container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            key = (port.get("hostIP", ""), port["hostPort"], port.get("protocol", "TCP"))
            if key in seen:
                problems.append(duplicate(f"{path}[{index}].ports[{position}].hostPort", port["hostPort"]))
            seen.add(key)


def _env(container: Object, path: str, problems: list[Problem]) -> None:
    for index, variable in enumerate(container.get("env") or ()):
        here = f"{path}.env[{index}]"
        if variable.get("name"):
            problems += names.env_name(variable["name"], f"{here}.name")
        source = variable.get("valueFrom")
        if source is None:
            continue
        if variable.get("value"):
            problems.append(invalid(f"{here}.valueFrom", "", "may not be specified when `value` is not empty"))
        if len(source) != 1:
            problems.append(invalid(f"{here}.valueFrom", sorted(source), "must specify exactly one source"))
        field = (source.get("fieldRef") or {}).get("fieldPath")
        if (
            field is not None
            and field not in _FIELD_PATHS
            and not re.match(r"metadata\.(labels|annotations)\['", field)
        ):
            problems.append(not_supported(f"{here}.valueFrom.fieldRef.fieldPath", field, sorted(_FIELD_PATHS)))
        for kind in ("configMapKeyRef", "secretKeyRef"):
            key = (source.get(kind) or {}).get("key")
            if key:
                problems += names.config_key(key, f"{here}.valueFrom.{kind}.key")
            if source.get(kind) is not None and not source[kind].get("name"):
                problems.append(required(f"{here}.valueFrom.{kind}.name"))
    for index, source in enumerate(container.get("envFrom") or ()):
        here = f"{path}.envFrom[{index}]"
        found = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
        if len(found) != 1:
            problems.append(invalid(here, "", "must specify one of: `configMapRef` or `secretRef`"))
        for kind in found:
            if not source[kind].get("name"):
                problems.append(required(f"{here}.{kind}.name"))


def _mounts(mounts: Iterable[Object], path: str, volumes: set[str], problems: list[Problem]) -> None:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        here = f"{path}[{index}]"
        name, where = mount.get("name") or "", mount.get("mountPath") or ""
        if name and name not in volumes:
            problems.append(not_found(f"{here}.name", name))
        if where in seen and where:
            problems.append(invalid(f"{here}.mountPath", where, "must be unique"))
        seen.add(where)
        if mount.get("subPath"):
            _relative(mount["subPath"], f"{here}.subPath", problems)


def _resources(resources: Object, path: str, problems: list[Problem]) -> None:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for kind, values in (("limits", limits), ("requests", requests)):
        for name, value in values.items():
            problems += names.qualified_name(name, f"{path}.{kind}")
            if quantity_value(value) < 0:
                problems.append(invalid(f"{path}.{kind}[{name}]", value, "must be greater than or equal to 0"))
    for name, value in requests.items():
        if name in limits and quantity_value(value) > quantity_value(limits[name]):
            detail = f"must be less than or equal to {name} limit of {limits[name]}"
            problems.append(invalid(f"{path}.requests", value, detail))


def _probe(probe: Object, path: str, one_success: bool, problems: list[Problem]) -> None:
    _handler(probe, path, problems)
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        problems += names.non_negative(probe.get(field), f"{path}.{field}")
    if one_success and probe.get("successThreshold", 1) not in (0, 1):
        problems.append(invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))


def _handler(handler: Object, path: str, problems: list[Problem]) -> None:
    kinds = [kind for kind in ("exec", "httpGet", "tcpSocket", "grpc", "sleep") if handler.get(kind) is not None]
    if not kinds:
        problems.append(required(path, "must specify a handler type"))
    for extra in kinds[1:]:
        problems.append(forbidden(f"{path}.{extra}", "may not specify more than 1 handler type"))
    if "exec" in kinds and not handler["exec"].get("command"):
        problems.append(required(f"{path}.exec.command"))
    for kind in ("httpGet", "tcpSocket", "grpc"):
        if kind in kinds:
            _action_port(handler[kind].get("port"), f"{path}.{kind}.port", problems)
    if "httpGet" in kinds and not handler["httpGet"].get("path", "/"):
        problems.append(required(f"{path}.httpGet.path"))


def _action_port(port: Any, field: str, problems: list[Problem]) -> None:
    if isinstance(port, int):
        problems += names.port_number(port, field)
    elif isinstance(port, str):
        problems += names.port_name(port, field)


def _dns(spec: Object, path: str, problems: list[Problem]) -> None:
    config = spec.get("dnsConfig") or {}
    servers = config.get("nameservers") or []
    if spec.get("dnsPolicy") == "None" and not servers:
        problems.append(
            required(
                f"{path}.dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
            )
        )
    for index, server in enumerate(servers):
        if not is_address(server):
            problems.append(invalid(f"{path}.dnsConfig.nameservers[{index}]", server, "must be a valid IP address"))
