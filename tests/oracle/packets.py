"""Real packets for the oracle: pods that hold probers, and rounds of probes between all of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path
from queue import Empty, Queue
from typing import Any, NamedTuple

from tests.clusters import Cluster as Machine
from tests.oracle.model import verdict
from tests.oracle.parties import Cluster, Object

BOOTSTRAP = "import sys; source = sys.stdin.read(int(sys.stdin.readline())); exec(compile(source, 'prober', 'exec'))"
PROBER = (Path(__file__).parent / "prober.py").read_text()
WINDOW_S, PATIENCE_S, ANSWER_S = 0.3, 20.0, 120.0
# TCP 80/81/8080, UDP 53/81, SCTP 80 and ICMP echo.
ASKED = (("TCP", 80), ("TCP", 81), ("TCP", 8080), ("UDP", 53), ("UDP", 81), ("SCTP", 80), ("ICMP", None))
WORLD = "world/"
OUTSIDE = ("2.10", "3.1", "2.200")  # ends of addresses; CIDRs of the generator tell them apart
IMAGE = "quay.io/cilium/alpine-curl:v1.4.0"


class Cell(NamedTuple):
    """One question: may `source` reach `target` so?"""

    source: str
    target: str
    protocol: str
    port: int | None

    def flow(self) -> Object:
        """As the model reads it."""
        made: Object = {
            "from": _end(self.source),
            "to": _end(self.target),
            "protocol": self.protocol,
            "family": 4,
        }
        return made | ({"port": self.port} if self.port else {"type": 8})


def _end(name: str) -> Object:
    return {"ip": name.removeprefix(WORLD)} if name.startswith(WORLD) else {"pod": name}


class Prober:
    """A prober in a pod (behind a `kubectl exec` that stays) or in a network namespace."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        command = [*command, "python3", "-uc", BOOTSTRAP]
        self._process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._say(f"{len(PROBER)}\n{PROBER}")
        assert self.answer() == {"ready": True}

    @classmethod
    def in_pod(cls, machine: Machine, pod: str) -> Prober:
        """In a running pod, `namespace/name`."""
        namespace, name = pod.split("/")
        command = [machine.kubectl_path, "exec", "-i", "-n", namespace, "-c", "main", name, "--"]
        return cls(pod, command, machine.environment)

    def ask(self, probes: list[Object]) -> None:
        """Begin a round; `answer` gives its end."""
        self._say(json.dumps({"window_s": WINDOW_S, "patience_s": PATIENCE_S, "probes": probes}) + "\n")

    def answer(self) -> dict[str, Any]:
        """The next line the prober says."""
        try:
            return json.loads(self._lines.get(timeout=ANSWER_S))
        except Empty:
            raise AssertionError(f"the prober in {self.name} is silent (exit code {self._process.poll()})") from None

    def close(self) -> None:
        """End it and the session."""
        self._process.kill()
        self._process.communicate()

    def _say(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)


class Outside:
    """Network namespaces on the cluster's underlay, which are no nodes: the world. Deleted by `close`."""

    def __init__(self, machine: Machine, count: int) -> None:
        record = json.loads((machine.state / "cluster.json").read_text())
        self.network = ".".join(record["network"].split(".")[:2])
        self.probers: list[Prober] = []
        self._made: list[str] = []
        routes = [
            (
                node["spec"]["podCIDR"],
                next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"),
            )
            for node in machine.get("nodes")["items"]
        ]
        try:
            for number, rest in enumerate(OUTSIDE[:count]):
                self._make(f"mycel-o{os.getpid()}{number}", record["bridge"], f"{self.network}.{rest}", routes)
        except BaseException:
            self.close()
            raise

    def _make(self, name: str, bridge: str, address: str, routes: list[tuple[str, str]]) -> None:
        cable = f"mo{os.getpid()}w{len(self._made)}"
        _ip("netns", "add", name)
        self._made.append(name)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", cable, "master", bridge, "up")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        _ip("-n", name, "address", "add", f"{address}/16", "dev", "eth0")
        for network, node in routes:
            _ip("-n", name, "route", "add", network, "via", node)
        self.probers.append(Prober(WORLD + address, ["ip", "netns", "exec", name], dict(os.environ)))

    def close(self) -> None:
        """End the probers, delete the namespaces and with them their cables."""
        for prober in self.probers:
            prober.close()
        for name in self._made:
            _ip("netns", "delete", name)

    def moved(self, policies: list[Object]) -> list[Object]:
        """Policies with the generator's outside (192.0.0.0/16) where this one is."""
        return json.loads(re.sub(r"\b192\.0\.", f"{self.network}.", json.dumps(policies)))


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def cells(objects: list[Object], names: list[str]) -> list[Cell]:
    """All ordered pairs of probers with a policy between them, times all ports."""
    free = {
        f"{o['metadata']['namespace']}/{o['metadata']['name']}": bool(o["spec"].get("hostNetwork"))
        for o in objects
        if o["kind"] == "Pod"
    }
    free |= {name: True for name in names if name.startswith(WORLD)}
    pairs = [(a, b) for a in names for b in names if a != b and not (free[a] and free[b])]
    # SCTP does not leave the cluster: it is not masqueraded.
    return [
        Cell(a, b, protocol, port)
        for a, b in pairs
        for protocol, port in ASKED
        if not (protocol == "SCTP" and b.startswith(WORLD))
    ]


def expected(objects: list[Object], policies: list[Object], asked: list[Cell]) -> dict[Cell, bool]:
    """What the model lets pass. Nothing passes that needs the proxy: there is none."""
    world = Cluster(objects)
    return {cell: verdict(world, policies, cell.flow()).verdict == "allowed" for cell in asked}


def probe(probers: list[Prober], addresses: dict[str, str], wanted: dict[Cell, bool]) -> dict[Cell, bool]:
    """One round of real packets for all cells at once: which of them were answered."""
    turns: list[tuple[Prober, list[Cell]]] = []
    for prober in probers:
        own = [cell for cell in wanted if cell.source == prober.name]
        prober.ask(
            [
                {"id": n, "protocol": c.protocol, "address": addresses[c.target], "port": c.port, "expected": wanted[c]}
                for n, c in enumerate(own)
            ]
        )
        turns.append((prober, own))
    found: dict[Cell, bool] = {}
    for prober, own in turns:
        answered = set(prober.answer()["answered"])
        found |= {cell: number in answered for number, cell in enumerate(own)}
    return found


def deployable(objects: list[Object], nodes: dict[str, str]) -> list[Object]:
    """A generated cluster as a real API server and its nodes (by generated name) take it."""
    made: list[Object] = []
    for found in json.loads(json.dumps(objects)):
        kind, meta = found["kind"], found["metadata"]
        if kind == "Pod":
            spec = found["spec"]
            spec |= {"nodeName": nodes[spec["nodeName"]], "terminationGracePeriodSeconds": 0}
            for container in spec["containers"]:
                container |= {"image": IMAGE, "command": ["/bin/sleep", "infinity"]}
                container["securityContext"] = {"capabilities": {"add": ["NET_RAW"]}}
                if spec.get("hostNetwork"):
                    container.pop("ports", None)
                for port in container.get("ports") or []:
                    port["name"] = port["name"].lower()
            del found["status"]
        elif kind == "Service":
            for field in ("clusterIP", "clusterIPs", "externalIPs"):
                found["spec"].pop(field, None)
            found.pop("status", None)
        elif kind in ("Node", "ConfigMap", "Endpoints") or (kind == "EndpointSlice" and meta["name"] != "legacy-ipv4"):
            continue
        elif kind == "Namespace":
            meta["labels"].pop("kubernetes.io/metadata.name", None)
        made.append(found)
    return made
