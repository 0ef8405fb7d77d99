"""Service addresses and node ports: who has which, and which is free.

Rebuilt from the stored Services at start; kept current by the write path, which never awaits in between.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable
from typing import Any

from mycel.cluster.apiserver.schema.problems import Problem, invalid

Object = dict[str, Any]
NODE_PORTS = range(30000, 32768)
_STATIC_BAND = 256  # the lower addresses are left to Services that name their own


class Allocator:
    """Cluster IPs of one network and node ports."""

    def __init__(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
        self._network = network
        self._addresses: dict[str, str] = {}
        self._ports: dict[tuple[str, int], str] = {}
        self._random = random.Random()  # noqa: S311 (spreads numbers, guards nothing)

    def load(self, services: Iterable[Object]) -> None:
        """Take what stored Services have."""
        for service in services:
            self.take(service)

    def take(self, service: Object) -> None:
        """Mark what `service` has as used by it."""
        owner = service["metadata"]["uid"]
        spec = service.get("spec") or {}
        for address in spec.get("clusterIPs") or ():
            if address != "None":
                self._addresses[address] = owner
        for key in _ports_of(spec):
            self._ports[key] = owner

    def release(self, service: Object) -> None:
        """Free what `service` has."""
        owner = service["metadata"]["uid"]
        spec = service.get("spec") or {}
        for address in spec.get("clusterIPs") or ():
            if self._addresses.get(address) == owner:
                del self._addresses[address]
        for key in _ports_of(spec):
            if self._ports.get(key) == owner:
                del self._ports[key]

    def fill(self, service: Object, old: Object | None) -> list[Problem]:
        """Give `service` the addresses and ports it needs; problems when a wish cannot be met."""
        spec = service["spec"]
        problems = self._fill_address(spec, service["metadata"]["uid"])
        return problems + self._fill_ports(spec, service["metadata"]["uid"], (old or {}).get("spec") or {})

    def _fill_address(self, spec: Object, owner: str) -> list[Problem]:
        if spec.get("type") == "ExternalName":
            for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(name, None)
            return []
        wished = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
        if wished == "None":
            spec["clusterIPs"] = ["None"]
        elif wished:
            problem = self._check_address(wished, owner)
            if problem is not None:
                return [problem]
            spec["clusterIP"], spec["clusterIPs"] = wished, [wished]
        else:
            address = self._free_address()
            if address is None:
                return [invalid("spec.clusterIPs", None, f"no free address is left in {self._network}")]
            spec["clusterIP"], spec["clusterIPs"] = address, [address]
        spec.setdefault("ipFamilies", [f"IPv{self._network.version}"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        return []

    def _check_address(self, address: str, owner: str) -> Problem | None:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return invalid("spec.clusterIPs[0]", address, "must be a valid IP address, (e.g. 10.9.8.7)")
        if parsed not in self._network:
            detail = (
                f"failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {self._network}"
            )
            return invalid("spec.clusterIPs", [address], detail)
        if self._addresses.get(address, owner) != owner:
            detail = f"failed to allocate IP {address}: provided IP is already allocated"
            return invalid("spec.clusterIPs", [address], detail)
        return None

    def _free_address(self) -> str | None:
        size = self._network.num_addresses
        low = _STATIC_BAND if size > 4 * _STATIC_BAND else min(16, size // 4)
        base = int(self._network.network_address)
        make = type(self._network.network_address)
        for _ in range(64):
            candidate = str(make(base + self._random.randrange(low, size - 1)))
            if candidate not in self._addresses:
                return candidate
        for offset in range(1, min(size - 1, 1 << 20)):
            candidate = str(make(base + offset))
            if candidate not in self._addresses:
                return candidate
        return None

    def _fill_ports(self, spec: Object, owner: str, before: Object) -> list[Problem]:
        wants = spec.get("type") == "NodePort" or (
            spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
        )
        if spec.get("type") not in ("NodePort", "LoadBalancer"):
            for port in spec.get("ports") or ():
                port.pop("nodePort", None)
            return []
        known = {
            (port.get("protocol", "TCP"), port.get("port")): port.get("nodePort") for port in before.get("ports") or ()
        }
        problems: list[Problem] = []
        used: set[tuple[str, int]] = set()
        for index, port in enumerate(spec.get("ports") or ()):
            protocol = port.get("protocol", "TCP")
            if not port.get("nodePort"):
                kept = known.get((protocol, port.get("port")))
                if kept and (protocol, kept) not in used:
                    port["nodePort"] = kept
            wished = port.get("nodePort")
            here = f"spec.ports[{index}].nodePort"
            if wished:
                if wished not in NODE_PORTS:
                    detail = "provided port is not in the valid range. The range of valid ports is 30000-32767"
                    problems.append(invalid(here, wished, detail))
                elif self._ports.get((protocol, wished), owner) != owner or (protocol, wished) in used:
                    problems.append(invalid(here, wished, "provided port is already allocated"))
            elif wants:
                free = self._free_port(protocol, used)
                if free is None:
                    problems.append(invalid(here, 0, "no free node port is left"))
                    continue
                port["nodePort"] = wished = free
            if wished:
                used.add((protocol, wished))
        return problems

    def _free_port(self, protocol: str, used: set[tuple[str, int]]) -> int | None:
        start = self._random.randrange(len(NODE_PORTS))
        for step in range(len(NODE_PORTS)):
            port = NODE_PORTS[(start + step) % len(NODE_PORTS)]
            # One number serves one Service, whatever the protocol: less to wonder about in flows.
            if all((name, port) not in self._ports and (name, port) not in used for name in ("TCP", "UDP", "SCTP")):
                return port
        return None


def _ports_of(spec: Object) -> list[tuple[str, int]]:
    return [(port.get("protocol", "TCP"), port["nodePort"]) for port in spec.get("ports") or () if port.get("nodePort")]
