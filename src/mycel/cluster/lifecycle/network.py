"""The node network: one bridge per cluster in the machine's namespace, a cable (veth) to every node, a way out.

Everything is made by name from the record and removed by the same names; making twice is making once.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from mycel.cluster.lifecycle.errors import LifecycleError
from mycel.cluster.lifecycle.record import ClusterRecord, NodeRecord

_CANDIDATES = [IPv4Network(f"172.{second}.0.0/16") for second in range(18, 32)]
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def run(*command: str, text: str | None = None, check: bool = True) -> str:
    """Run a tool and return what it said. Raises LifecycleError with its complaint."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as exc:
        raise LifecycleError(f"{command[0]} is not installed: apt-get install iproute2 nftables runc conmon") from exc
    if check and done.returncode != 0:
        raise LifecycleError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def choose(taken: list[IPv4Network]) -> IPv4Network:
    """The first 172.N.0.0/16 from 172.18 on that meets nothing in `taken`. Raises LifecycleError."""
    for candidate in _CANDIDATES:
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise LifecycleError("no free 172.18.0.0/16 … 172.31.0.0/16 for the node network: delete a cluster")


def taken_networks() -> list[IPv4Network]:
    """Networks of the machine's interfaces and routes."""
    taken: list[IPv4Network] = []
    addresses: list[dict[str, Any]] = json.loads(run("ip", "-json", "-4", "address", "show") or "[]")
    for link in addresses:
        for info in link.get("addr_info", []):
            taken.append(IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False))
    routes: list[dict[str, Any]] = json.loads(run("ip", "-json", "-4", "route", "show") or "[]")
    for route in routes:
        if route.get("dst", "default") != "default":
            taken.append(IPv4Network(route["dst"], strict=False))
    return taken


def node_address(network: IPv4Network, index: int) -> IPv4Address:
    """The address of the `index`-th node; the first is the bridge's."""
    return network[index + 2]


def make_bridge(record: ClusterRecord) -> None:
    """The bridge with its address, up; masquerade for what leaves the machine. Under the machine's lock."""
    prefix = ipaddress.ip_network(record.network).prefixlen
    if not Path(f"/sys/class/net/{record.bridge}").exists():
        batch = [
            f"link add {record.bridge} type bridge stp_state 0",
            f"link set {record.bridge} alias mycel:{record.name}",
            f"address add {record.gateway}/{prefix} dev {record.bridge}",
            f"link set {record.bridge} up",
        ]
        run("ip", "-batch", "-", text="\n".join(batch) + "\n")
    remove_orphans()
    # nft has no "create or replace": declare, empty, fill.
    rules = f"""
table ip {record.nft_table} {{}}
delete table ip {record.nft_table}
table ip {record.nft_table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {record.network} oifname != "{record.bridge}" masquerade
  }}
}}
"""
    run("nft", "-f", "-", text=rules)
    IP_FORWARD.write_text("1")


def remove_orphans() -> None:
    """Tables whose bridge is gone: their cluster was killed and never deleted, and they would masquerade what the next
    one in its network sends. A bridge is made before its table, both under the machine's lock: no living one is taken.
    """
    for table in re.findall(r"^table ip (mycel-[0-9a-f]{8})$", run("nft", "list", "tables", "ip"), re.MULTILINE):
        if not Path(f"/sys/class/net/{table}").exists():
            run("nft", "delete", "table", "ip", table, check=False)  # its own delete may be under way


def make_cable(record: ClusterRecord, node: NodeRecord, pid: int) -> None:
    """A veth pair from the bridge into the network namespace of process `pid`, whose end is `eth0`."""
    batch = [
        f"link add {node.veth} type veth peer name eth0 netns {pid}",
        f"link set {node.veth} master {record.bridge} up",
    ]
    run("ip", "link", "delete", node.veth, check=False)
    run("ip", "-batch", "-", text="\n".join(batch) + "\n")


def configure_node(record: ClusterRecord, node: NodeRecord) -> None:
    """Addresses and routes; runs inside the node's network namespace."""
    prefix = ipaddress.ip_network(record.network).prefixlen
    batch = [
        "link set lo up",
        f"address add {node.address}/{prefix} dev eth0",
        "link set eth0 up",
        f"route add default via {record.gateway}",
    ]
    run("ip", "-batch", "-", text="\n".join(batch) + "\n")


def remove(record: ClusterRecord) -> None:
    """Bridge, cables, table; the machine's forwarding goes back when we were the ones to switch it on."""
    for node in record.nodes:
        if Path(f"/sys/class/net/{node.veth}").exists():
            run("ip", "link", "delete", node.veth, check=False)
    if Path(f"/sys/class/net/{record.bridge}").exists():
        run("ip", "link", "delete", record.bridge, check=False)
    run("nft", "delete", "table", "ip", record.nft_table, check=False)
    if record.ip_forward_was == "0" and not other_bridges():
        IP_FORWARD.write_text("0")


def other_bridges() -> list[str]:
    """Bridges of clusters that exist now, of any state folder."""
    links: list[dict[str, Any]] = json.loads(run("ip", "-json", "link", "show", "type", "bridge") or "[]")
    return [link["ifname"] for link in links if str(link.get("ifalias", "")).startswith("mycel:")]
