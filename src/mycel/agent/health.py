"""`cilium-health status` inside of the agent's container: can this node reach every other one?

The answer is measured when asked: one echo request per node address. Standard library only, as it starts
often.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from typing import Any

from mycel.agent import dbg

_TIME = re.compile(rb"time=([\d.]+) ms")


def start_probe(address: str) -> subprocess.Popen[bytes]:
    """Send one echo request; two seconds for the answer."""
    return subprocess.Popen(
        ["ping", "-n", "-c", "1", "-W", "2", address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def finish_probe(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """models.ConnectivityStatus: an empty status is success; latency in nanoseconds."""
    output, _ = process.communicate(timeout=10)
    match = _TIME.search(output)
    if process.returncode or match is None:
        return {"latency": 0, "status": "Connection timed out"}
    return {"latency": round(float(match[1]) * 1e6), "status": ""}


def health(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """models.HealthStatusResponse."""
    probes = [(node, address, start_probe(address)) for node in nodes for address in node["addresses"][:1]]
    statuses = [
        {
            "name": node["name"],
            "host": {"primary-address": {"ip": address, "icmp": finish_probe(probe)}},
        }
        for node, address, probe in probes
    ]
    local = next((node["name"] for node in nodes if node["local"]), "")
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"local": {"name": local}, "nodes": statuses, "timestamp": stamp}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 when a node does not answer."""
    try:
        words, flags = dbg.parse(sys.argv[1:] if arguments is None else arguments)
        if words != ["status"]:
            raise dbg.Failed("usage: cilium-health status [--probe] [-o json]")
        answer = health(dbg.ask("/v1/node"))
    except dbg.Failed as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 1
    reached = [not node["host"]["primary-address"]["icmp"]["status"] for node in answer["nodes"]]
    if flags.get("output") == "json":
        print(json.dumps(answer, indent=2))
    else:
        print(f"Nodes: {sum(reached)}/{len(reached)} reachable")
        for node in answer["nodes"]:
            said = node["host"]["primary-address"]
            print(f"  {node['name']} ({said['ip']}): {said['icmp']['status'] or 'OK'}")
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
