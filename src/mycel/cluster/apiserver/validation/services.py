"""Services, Endpoints, EndpointSlices, network policies, Ingresses."""

from __future__ import annotations

import ipaddress
from typing import Any

from mycel.cluster.apiserver.schema.problems import (
    Problem,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from mycel.cluster.apiserver.validation import names
from mycel.cluster.apiserver.validation.addresses import is_address, is_prefix

Object = dict[str, Any]
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_MAX_SLICE = 1000


def validate_service(obj: Object, old: Object | None) -> list[Problem]:
    """A Service."""
    spec = obj["spec"]
    problems: list[Problem] = []
    kind = spec["type"]
    ports = spec.get("ports") or []
    headless = spec.get("clusterIP") == "None"
    if kind == "ExternalName":
        if not spec.get("externalName"):
            problems.append(required("spec.externalName"))
        else:
            problems += names.dns_subdomain(spec["externalName"].rstrip("."), "spec.externalName")
    elif not ports and not headless:
        problems.append(required("spec.ports"))
    if headless and kind in ("NodePort", "LoadBalancer"):
        problems.append(invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    problems += _service_ports(ports)
    problems += names.labels(spec.get("selector"), "spec.selector")
    for index, address in enumerate(spec.get("externalIPs") or ()):
        if not is_address(address):
            problems.append(
                invalid(f"spec.externalIPs[{index}]", address, "must be a valid IP address, (e.g. 10.9.8.7)")
            )
    for index, prefix in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        if not is_prefix(prefix.strip()):
            problems.append(invalid(f"spec.loadBalancerSourceRanges[{index}]", prefix, "must be a valid CIDR value"))
    for name in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts"):
        if name in spec and kind == "ClusterIP" and not spec.get("externalIPs"):
            problems.append(invalid(f"spec.{name}", spec[name], "may only be set for externally-accessible services"))
    timeout = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
    if timeout is not None and not 0 < timeout <= 86400:
        problems.append(
            invalid(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                timeout,
                "must be greater than 0 and not more than 86400",
            )
        )
    wished = spec.get("clusterIP")
    if wished and wished != "None" and not is_address(wished):
        problems.append(invalid("spec.clusterIPs[0]", wished, "must be a valid IP address, (e.g. 10.9.8.7)"))
    if spec.get("clusterIPs") and wished and spec["clusterIPs"][0] != wished:
        problems.append(invalid("spec.clusterIPs[0]", spec["clusterIPs"][0], "must match the `clusterIP` field"))
    if old is not None and kind != "ExternalName" and old["spec"].get("type") != "ExternalName":
        before = old["spec"].get("clusterIP")
        if before and wished != before:
            problems.append(invalid("spec.clusterIPs[0]", [wished], "field is immutable"))
    return problems


def _service_ports(ports: list[Object]) -> list[Problem]:
    problems: list[Problem] = []
    seen_names: set[str] = set()
    seen: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        here = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if name:
            problems += names.dns_label(name, f"{here}.name")
            if name in seen_names:
                problems.append(duplicate(f"{here}.name", name))
            seen_names.add(name)
        elif len(ports) > 1:
            problems.append(required(f"{here}.name"))
        problems += names.port_number(port.get("port", 0), f"{here}.port")
        target = port.get("targetPort")
        if isinstance(target, int):
            problems += names.port_number(target, f"{here}.targetPort")
        elif isinstance(target, str):
            problems += names.port_name(target, f"{here}.targetPort")
        protocol = port.get("protocol", "TCP")
        if protocol not in _PROTOCOLS:
            problems.append(not_supported(f"{here}.protocol", protocol, _PROTOCOLS))
        key = (protocol, port.get("port", 0))
        if key in seen:
            problems.append(duplicate(here, {"port": key[1], "protocol": protocol}))
        seen.add(key)
    return problems


def validate_endpoints(obj: Object, old: Object | None) -> list[Problem]:
    """Endpoints."""
    problems: list[Problem] = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        here = f"subsets[{index}]"
        for kind in ("addresses", "notReadyAddresses"):
            for position, address in enumerate(subset.get(kind) or ()):
                problems += _endpoint_address(address.get("ip") or "", f"{here}.{kind}[{position}].ip")
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            problems.append(required(here, "must specify `addresses` or `notReadyAddresses`"))
        for position, port in enumerate(subset.get("ports") or ()):
            problems += names.port_number(port.get("port", 0), f"{here}.ports[{position}].port")
            if port.get("name"):
                problems += names.dns_label(port["name"], f"{here}.ports[{position}].name")
    return problems


def _endpoint_address(text: str, field: str) -> list[Problem]:
    if not is_address(text):
        return [invalid(field, text, "must be a valid IP address, (e.g. 10.9.8.7)")]
    address = ipaddress.ip_address(text)
    if address.is_unspecified or address.is_link_local or address.is_multicast:
        return [invalid(field, text, "may not be unspecified, link-local or multicast")]
    return []


def validate_endpoint_slice(obj: Object, old: Object | None) -> list[Problem]:
    """An EndpointSlice."""
    problems: list[Problem] = []
    kind = obj.get("addressType")
    endpoints = obj.get("endpoints") or []
    if len(endpoints) > _MAX_SLICE:
        problems.append(invalid("endpoints", len(endpoints), f"must have at most {_MAX_SLICE} items"))
    for index, endpoint in enumerate(endpoints):
        addresses = endpoint.get("addresses") or []
        here = f"endpoints[{index}].addresses"
        if not addresses:
            problems.append(required(here, "must contain at least 1 address"))
        for position, address in enumerate(addresses):
            if kind == "FQDN":
                problems += names.dns_subdomain(address, f"{here}[{position}]")
            elif not is_address(address) or (":" in address) is not (kind == "IPv6"):
                problems.append(invalid(f"{here}[{position}]", address, f"must be a valid {kind} address"))
    seen: set[str] = set()
    for index, port in enumerate(obj.get("ports") or ()):
        name = port.get("name") or ""
        if name:
            problems += names.dns_label(name, f"ports[{index}].name")
        if name in seen:
            problems.append(duplicate(f"ports[{index}].name", name))
        seen.add(name)
        if port.get("port") is not None:
            problems += names.port_number(port["port"], f"ports[{index}].port")
        if port.get("protocol") not in _PROTOCOLS:
            problems.append(not_supported(f"ports[{index}].protocol", port.get("protocol"), _PROTOCOLS))
    if old is not None and old.get("addressType") != kind:
        problems.append(invalid("addressType", kind, "field is immutable"))
    return problems


def validate_network_policy(obj: Object, old: Object | None) -> list[Problem]:
    """A NetworkPolicy."""
    spec = obj.get("spec") or {}
    problems = names.label_selector(spec.get("podSelector"), "spec.podSelector")
    for kind, peer_name in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(kind) or ()):
            here = f"spec.{kind}[{index}]"
            for position, port in enumerate(rule.get("ports") or ()):
                problems += _policy_port(port, f"{here}.ports[{position}]")
            for position, peer in enumerate(rule.get(peer_name) or ()):
                problems += _peer(peer, f"{here}.{peer_name}[{position}]")
    return problems


def _policy_port(port: Object, path: str) -> list[Problem]:
    value, end = port.get("port"), port.get("endPort")
    problems: list[Problem] = []
    if isinstance(value, int):
        problems += names.port_number(value, f"{path}.port")
        if end is not None and (end < value or end > 65535):
            problems.append(invalid(f"{path}.endPort", end, "must be greater than or equal to `port`"))
    elif isinstance(value, str):
        problems += names.port_name(value, f"{path}.port")
        if end is not None:
            problems.append(invalid(f"{path}.endPort", end, "may not be specified when `port` is non-numeric"))
    elif end is not None:
        problems.append(required(f"{path}.port", "must be specified when `endPort` is specified"))
    return problems


def _peer(peer: Object, path: str) -> list[Problem]:
    selectors = [name for name in ("podSelector", "namespaceSelector") if peer.get(name) is not None]
    block = peer.get("ipBlock")
    if not selectors and block is None:
        return [required(path, "must specify a peer")]
    if selectors and block is not None:
        return [forbidden(path, "may not specify both ipBlock and another peer")]
    problems: list[Problem] = []
    for name in selectors:
        problems += names.label_selector(peer[name], f"{path}.{name}")
    if block is not None:
        cidr = block.get("cidr") or ""
        if not cidr:
            return [required(f"{path}.ipBlock.cidr")]
        if not is_prefix(cidr):
            return [invalid(f"{path}.ipBlock.cidr", cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24)")]
        network = ipaddress.ip_network(cidr, strict=False)
        for index, item in enumerate(block.get("except") or ()):
            here = f"{path}.ipBlock.except[{index}]"
            if not is_prefix(item):
                problems.append(invalid(here, item, "must be a valid CIDR value"))
                continue
            inner = ipaddress.ip_network(item, strict=False)
            if inner.version != network.version or not inner.subnet_of(network) or inner == network:  # pyright: ignore[reportArgumentType]
                problems.append(invalid(here, item, f"must be a strict subset of `cidr` {cidr}"))
    return problems


def validate_ingress(obj: Object, old: Object | None) -> list[Problem]:
    """An Ingress."""
    spec = obj.get("spec") or {}
    problems: list[Problem] = []
    if not spec.get("rules") and spec.get("defaultBackend") is None:
        problems.append(invalid("spec", "", "either `defaultBackend` or `rules` must be specified"))
    if spec.get("defaultBackend") is not None:
        problems += _backend(spec["defaultBackend"], "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or ()):
        here = f"spec.rules[{index}]"
        host = rule.get("host")
        if host:
            if is_address(host):
                problems.append(invalid(f"{here}.host", host, "must be a DNS name, not an IP address"))
            else:
                problems += names.dns_subdomain(host.removeprefix("*."), f"{here}.host")
        paths = (rule.get("http") or {}).get("paths") or []
        if rule.get("http") is not None and not paths:
            problems.append(required(f"{here}.http.paths"))
        for position, path in enumerate(paths):
            at = f"{here}.http.paths[{position}]"
            kind, text = path.get("pathType"), path.get("path") or ""
            if kind not in ("Exact", "Prefix", "ImplementationSpecific"):
                allowed = ("Exact", "ImplementationSpecific", "Prefix")
                problems.append(
                    required(f"{at}.pathType", "pathType must be specified")
                    if not kind
                    else not_supported(f"{at}.pathType", kind, allowed)
                )
            elif kind != "ImplementationSpecific" and not text.startswith("/"):
                problems.append(invalid(f"{at}.path", text, "must be an absolute path"))
            problems += _backend(path.get("backend") or {}, f"{at}.backend")
    return problems


def _backend(backend: Object, path: str) -> list[Problem]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is None and resource is None:
        return [required(path, "port name or number is required")]
    if service is None:
        return []
    if resource is not None:
        return [invalid(path, "", "cannot set both resource and service backends")]
    problems: list[Problem] = []
    if not service.get("name"):
        problems.append(required(f"{path}.service.name"))
    else:
        problems += names.dns_label_1035(service["name"], f"{path}.service.name")
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        problems.append(invalid(f"{path}.service.port", port, "cannot set both port name & port number"))
    elif port.get("name"):
        problems += names.port_name(port["name"], f"{path}.service.port.name")
    elif port.get("number"):
        problems += names.port_number(port["number"], f"{path}.service.port.number")
    else:
        problems.append(required(f"{path}.service.port", "port name or number is required"))
    return problems
