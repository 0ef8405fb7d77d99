"""What the datapath of one node is told: paths, addresses and sizes. Values only; the agent fills them in."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mycel.abi import LIMIT_RING_BYTES
from mycel.datapath.objects import KnobValue

_PACKAGE = Path(__file__).resolve().parents[1]
VXLAN_OVERHEAD = 50  # outer Ethernet, IPv4, UDP and VXLAN headers (RFC 7348)


@dataclass(frozen=True, slots=True)
class DatapathSettings:
    """Settings of one node. Addresses are the node's own; None switches a family's part off."""

    node_ipv4: ipaddress.IPv4Address
    router_ipv4: ipaddress.IPv4Address
    pod_networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    node_ipv6: ipaddress.IPv6Address | None = None
    router_ipv6: ipaddress.IPv6Address | None = None
    service_networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()  # empty: not known
    ingress: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...] = ()  # what the proxy dials with for the outside
    ipv6: bool = False
    host_enters: bool = True  # off: the node enters its pods only where rules allow it
    masquerade: bool = True
    underlays: tuple[str, ...] = ()  # device names; empty: those that carry the node's addresses
    vxlan_port: int = 8472
    pod_mtu: int = 0  # 0: the underlay's less the overhead of VXLAN
    ring_bytes: int = LIMIT_RING_BYTES  # of each CPU's events; a power of two of pages
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])  # max_entries by map
    knobs: Mapping[str, KnobValue] = field(default_factory=dict[str, KnobValue])  # over what we derive
    pins: Path = Path("/sys/fs/bpf/mycel")
    cgroup: Path = Path("/run/cilium/cgroupv2")
    run_dir: Path = Path("/var/run/cilium")
    objects: tuple[Path, ...] = ()  # empty: those this installation was built with


def built_objects() -> tuple[Path, ...]:
    """Compiled programs: `$MYCEL_BPF_DIR`, `build/bpf` of the source tree, or a wheel's copy."""
    places = [_PACKAGE.parents[1] / "build" / "bpf", _PACKAGE / "_bpf"]
    if "MYCEL_BPF_DIR" in os.environ:
        places.insert(0, Path(os.environ["MYCEL_BPF_DIR"]))
    for place in places:
        found = tuple(place / f"{name}.bpf.o" for name in ("packets", "sockets"))
        if all(path.is_file() for path in found):
            return found
    raise FileNotFoundError(f"no compiled programs in {' or '.join(map(str, places))}: run tools/build_bpf.py")


def mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bytes:
    """An address as `struct addr`: 16 bytes, IPv4 as ::ffff:a.b.c.d; None is all zero."""
    if address is None:
        return bytes(16)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
