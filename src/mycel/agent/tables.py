"""Maps for people: each row's key with what the plan wants and what the kernel holds, side by side. Pure.

A table may show several maps: `ipcache` exact rows and prefixes, `lb` services with their slots and backends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mycel.abi import (
    AnnouncedKey,
    AnnouncedValue,
    BackendKey,
    BackendValue,
    Direction,
    EndpointFlags,
    EndpointValue,
    IpcacheFlags,
    IpcacheValue,
    MetricKey,
    MetricValue,
    PolicyKey,
    PolicyMatch,
    PolicyValue,
    ServiceFlags,
    ServiceKey,
    ServiceValue,
    SlotKey,
    SlotValue,
)
from mycel.agent import views
from mycel.model.address import ANY_IPV4, ANY_IPV6, format_address, is_ipv4

Rows = Mapping[Any, Any]
Maps = Mapping[str, Rows]
Table = list[dict[str, Any]]
_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}

TABLES: dict[str, tuple[str, ...]] = {
    "endpoint": ("endpoints",),
    "ipcache": ("ipcache", "ipcache_lpm"),
    "lb": ("services", "service_slots", "backends"),
    "announced": ("announced",),
    "nodes": ("nodes",),
    "policy": ("policy",),
    "ct": ("ct",),
    "nat": ("nat",),
    "affinity": ("affinity",),
    "socket_nat": ("socket_nat",),
    "fragments": ("fragments",),
    "metrics": ("metrics",),
}
"""Table → the maps it shows."""

PLANNED = frozenset({"endpoint", "ipcache", "lb", "announced", "nodes", "policy"})


def table(name: str, desired: Maps, realized: Maps) -> Table:
    """Rows of a table. Raises LookupError when there is no such table."""
    if name not in TABLES:
        raise LookupError(f"no table {name}: there are {', '.join(TABLES)}")
    make = _MAKERS.get(name, _plain)
    wanted = make(desired) if name in PLANNED else {}
    held = make(realized)
    return [
        {"key": dict(key), "desired": wanted.get(key), "realized": held.get(key)}
        for key in sorted({**held, **wanted}, key=str)
    ]


_Key = tuple[tuple[str, Any], ...]
_Shown = dict[_Key, dict[str, Any]]


def _endpoint(maps: Maps) -> _Shown:
    rows: Mapping[Any, EndpointValue] = maps.get("endpoints", {})
    return {
        (("address", format_address(key.addr)),): {
            "identity": value.identity,
            "id": value.endpoint_id,
            "ifindex": value.ifindex,
            "mac": value.mac.hex(":"),
            "node-mac": value.node_mac.hex(":"),
            "revision": value.policy_revision,
            "flags": _flags(EndpointFlags, value.flags),
        }
        for key, value in rows.items()
    }


def _ipcache(maps: Maps) -> _Shown:
    shown: _Shown = {}
    for key, value in maps.get("ipcache", {}).items():
        shown[(("address", format_address(key.addr)),)] = _ipcache_value(value)
    for key, value in maps.get("ipcache_lpm", {}).items():
        length = key.prefixlen - 96 if is_ipv4(key.addr) else key.prefixlen
        shown[(("address", f"{format_address(key.addr)}/{length}"),)] = _ipcache_value(value)
    return shown


def _ipcache_value(value: IpcacheValue) -> dict[str, Any]:
    tunnel = format_address(value.tunnel_endpoint) if any(value.tunnel_endpoint) else "none"
    return {"identity": value.identity, "tunnel": tunnel, "flags": _flags(IpcacheFlags, value.flags)}


def _lb(maps: Maps) -> _Shown:
    services: Mapping[ServiceKey, ServiceValue] = maps.get("services", {})
    slots: Mapping[SlotKey, SlotValue] = maps.get("service_slots", {})
    backends: Mapping[BackendKey, BackendValue] = maps.get("backends", {})
    shown: _Shown = {}
    for key, value in services.items():
        targets: list[str] = []
        for slot in range(1, value.backend_count + 1):
            at = slots.get(SlotKey(value.service_id, slot))
            backend = backends.get(BackendKey(at.backend_id)) if at else None
            targets.append(f"{_host(backend.addr)}:{backend.port}" if backend else "missing")
        shown[
            (
                ("address", format_address(key.addr)),
                ("port", key.port),
                ("protocol", _PROTOCOLS.get(key.protocol, str(key.protocol))),
            )
        ] = {
            "type": _service_type(key, value),
            "backends": targets,
            "id": value.service_id,
            "local": value.local_count,
            "flags": _flags(ServiceFlags, value.flags),
            "affinity-s": value.affinity_s,
        }
    return shown


def _service_type(key: ServiceKey, value: ServiceValue) -> str:
    if value.flags & ServiceFlags.NODE_PORT and key.addr not in (ANY_IPV4, ANY_IPV6):
        return "HostPort"
    return views.service_type(value.flags)


def _policy(maps: Maps) -> _Shown:
    """The rows of every set. An identity of 0 is anybody; a port is a prefix where it says so."""
    shown: _Shown = {}
    sets: Mapping[int, Mapping[PolicyKey, PolicyValue]] = maps.get("policy", {})
    for number, rows in sets.items():
        for key, value in rows.items():
            shown[
                (
                    ("set", number),
                    ("identity", key.identity),
                    ("protocol", _PROTOCOLS.get(key.protocol, "any" if not key.protocol else str(key.protocol))),
                    ("port", _port_prefix(key)),
                )
            ] = {
                "verdict": "deny" if value.deny else "proxy" if value.proxy_port else "allow",
                "proxy-port": value.proxy_port,
                "precedence": value.precedence,
                "rule": value.rule,
                "match": PolicyMatch(value.match).name.lower().replace("_", "-"),
            }
    return shown


def _port_prefix(key: PolicyKey) -> str:
    """`80`, `64-127`, or `any`."""
    bits = key.prefixlen - 48
    if bits <= 0:
        return "any"
    last = key.port | (0xFFFF >> bits)
    return str(key.port) if last == key.port else f"{key.port}-{last}"


def _announced(maps: Maps) -> _Shown:
    rows: Mapping[AnnouncedKey, AnnouncedValue] = maps.get("announced", {})
    return {
        (("address", format_address(key.addr)), ("ifindex", key.ifindex)): {"mac": value.mac.hex(":")}
        for key, value in rows.items()
    }


def _nodes(maps: Maps) -> _Shown:
    return {
        (("address", format_address(key.addr)),): {"node": value.node_id}
        for key, value in maps.get("nodes", {}).items()
    }


def _metrics(maps: Maps) -> _Shown:
    rows: Mapping[MetricKey, MetricValue] = maps.get("metrics", {})
    return {
        (
            ("reason", "forwarded" if key.reason == 0 else views.drop_text(key.reason)),
            ("direction", Direction(key.direction).name.lower()),
        ): {"packets": value.packets, "bytes": value.bytes}
        for key, value in rows.items()
    }


def _plain(maps: Maps) -> _Shown:
    """Field by field."""
    shown: _Shown = {}
    for rows in maps.values():
        for key, value in rows.items():
            fields = views.row(key)
            fields["protocol"] = _PROTOCOLS.get(fields.get("protocol"), fields.get("protocol"))
            shown[tuple((name, field) for name, field in fields.items() if field is not None)] = views.row(value)
    return shown


_MAKERS: dict[str, Callable[[Maps], _Shown]] = {
    "endpoint": _endpoint,
    "ipcache": _ipcache,
    "lb": _lb,
    "announced": _announced,
    "nodes": _nodes,
    "policy": _policy,
    "metrics": _metrics,
}


def _host(address: bytes) -> str:
    text = format_address(address)
    return text if is_ipv4(address) else f"[{text}]"


def _flags(kind: Any, value: int) -> list[str]:
    return [flag.name.lower().replace("_", "-") for flag in kind if value & flag]
