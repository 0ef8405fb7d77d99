"""Programs we start, ports we listen on, clusters that are there already."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mycel.cli.checkup.finding import Finding, Level, needed, optional


class Tool(NamedTuple):
    """A program, how it tells its version, and where it comes from on Debian."""

    name: str
    arguments: tuple[str, ...]
    package: str
    required: bool = True


TOOLS = (
    Tool("runc", ("--version",), "runc"),
    Tool("conmon", ("--version",), "conmon"),
    Tool("ip", ("-V",), "iproute2"),
    Tool("nft", ("--version",), "nftables"),
    Tool("curl", ("--version",), "curl"),
    Tool("ping", ("-V",), "iputils-ping"),
    Tool("dig", ("-v",), "bind9-dnsutils"),
    Tool("nc", (), "netcat-openbsd"),
    Tool("busybox", (), "busybox"),
    Tool("jq", ("--version",), "jq"),
    Tool("clang-19", ("--version",), "clang-19"),
    Tool("bpftool", ("version",), "bpftool"),
    Tool("kubectl", ("version", "--client"), "kubernetes-client", False),
)
# Port → who wants it. Nodes have namespaces of their own, so only the first is the machine's.
PORTS = {
    6443: "the API server of the first cluster (further ones take the next free port)",
    4240: "health checks between nodes",
    4244: "Hubble's server",
    4245: "Hubble's relay on this machine",
    8472: "VXLAN",
    9234: "the operator's health",
    9879: "the agent's health",
    10250: "nodes",
    12000: "Hubble's page",
}
_VERSION = re.compile(r"\d+\.\d+[\w.+~-]*")


def look() -> list[Finding]:
    """Every finding about tools, ports and clusters."""
    return [*(_tool(tool) for tool in TOOLS), _libbpf(), *_ports(), *_clusters()]


def _tool(tool: Tool) -> Finding:
    path = shutil.which(tool.name)
    mend = f"apt-get install {tool.package}" + (" (or scripts/setup)" if tool.required else "")
    make = needed if tool.required else optional
    if path is None:
        return make("tools", tool.name, False, "not found", mend=mend)
    return make("tools", tool.name, True, f"{tool_version([path, *tool.arguments])} at {path}".lstrip(), mend=mend)


def tool_version(command: list[str]) -> str:
    """The first thing that looks like a version in what a program says of itself; empty when it says none."""
    if len(command) == 1:
        return ""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = _VERSION.search(said.stdout + said.stderr)
    return found[0] if found else ""


def _libbpf() -> Finding:
    import ctypes.util

    name = ctypes.util.find_library("bpf")
    return needed("tools", "libbpf", name is not None, name or "not found", mend="apt-get install libbpf-dev")


def _ports() -> Iterable[Finding]:
    taken = listening(line for family in ("tcp", "tcp6", "udp", "udp6") for line in _lines(Path(f"/proc/net/{family}")))
    for port, who in PORTS.items():
        if port in taken:
            yield Finding("ports", str(port), Level.NOTE, "in use on this machine", f"wanted by {who}")
        else:
            yield Finding("ports", str(port), Level.OK, "free")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:] if path.exists() else []


def listening(lines: Iterable[str]) -> set[int]:
    """Local ports that accept: TCP in LISTEN (0A), UDP unconnected (07). Format: proc_net_tcp(5)."""
    ports: set[int] = set()
    for line in lines:
        fields = line.split()
        if len(fields) > 3 and fields[3] in {"0A", "07"}:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def _clusters() -> Iterable[Finding]:
    root = Path(os.environ.get("MYCEL_STATE_DIR") or "/var/lib/mycel") / "clusters"
    try:
        names = sorted(entry.name for entry in root.iterdir() if (entry / "cluster.json").exists())
    except PermissionError:
        yield Finding("clusters", "on this machine", Level.NOTE, f"{root} cannot be read", "run it as root")
        return
    except FileNotFoundError:
        names = []
    yield Finding("clusters", "on this machine", Level.OK, ", ".join(names) or "none")
