"""Random Ingresses and requests: what a real Envoy does with the routes we make is what a small model says.

The model is written from the Ingress API's documentation, by loops over rules. Each route answers with the name of its
backend, so nothing but routing is tried.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mycel.operator.ingress.listener import plain_listener
from mycel.operator.ingress.model import Backend, Ingress, PathType, parse_ingress
from mycel.operator.ingress.routes import virtual_hosts
from tests.clusters import ROOT, eventually

ENVOY = ROOT / "build/envoy/envoy/_bin/envoy"
INGRESSES, REQUESTS, SEED = 40, 50, 20260801
HOSTS = ("", "", "a.example.com", "b.example.com", "*.example.com", "*.deep.example.com", "example.com", "*.com")
ASKED = ("a.example.com", "B.Example.COM", "c.example.com", "x.deep.example.com", "x.y.example.com", "example.com",
         "other.org", "a.example.com:8080", "c.example.com:80", "a.example.com.", "10.0.0.1")  # fmt: skip
SEGMENTS = ("a", "b", "ab", "a.b", "A", "a-b")


def random_path(chance: random.Random) -> str:
    return "/" + "/".join(chance.choices(SEGMENTS, k=chance.randint(0, 3))) + chance.choice(("", "", "/"))


def random_ingress(chance: random.Random, number: int) -> Ingress:
    """A few rules, some of one host; every path has a backend of its own."""
    rules: list[dict[str, Any]] = []
    for rule in range(chance.randint(0, 4)):
        paths: list[dict[str, Any]] = []
        for index in range(chance.randint(0, 5)):
            kind = chance.choice(("Exact", "Prefix", "Prefix", "ImplementationSpecific"))
            text = re.sub("/+", "/", random_path(chance))
            if kind == "ImplementationSpecific":
                text += chance.choice(("", ".*", "[a-b]+", "(/.*)?"))
            paths.append({"path": text, "pathType": kind, "backend": backend(f"s{number}-{rule}-{index}")})
        host = chance.choice(HOSTS)
        rules.append({"http": {"paths": paths}} | ({"host": host} if host else {}))
    spec: dict[str, Any] = {"rules": rules}
    if chance.random() < 0.3:
        spec["defaultBackend"] = backend(f"s{number}-default")
    return parse_ingress({"metadata": {"name": f"i{number}", "namespace": "n"}, "spec": spec})


def backend(name: str) -> dict[str, Any]:
    return {"service": {"name": name, "port": {"number": 80}}}


def model(ingress: Ingress, host: str, path: str) -> str:
    """The backend of a request; empty: 404."""
    name = re.sub(r":\d+$", "", host.lower()).rstrip(".")
    label, _, rest = name.partition(".")
    hosts = [rule.host for rule in ingress.rules]
    chosen = next((each for each in (name, f"*.{rest}" if label and rest else name) if each in hosts), "")
    best: tuple[int, int, str] | None = None
    served = ""
    for rule in ingress.rules:
        if rule.host != chosen:
            continue
        for each in rule.paths:
            match each.type:
                case PathType.EXACT:
                    rank = (0, 0, "") if path == each.path else None
                case PathType.SPECIFIC:
                    rank = (1, -len(each.path), each.path) if re.fullmatch(each.path, path) else None
                case PathType.PREFIX:
                    wanted = [part for part in each.path.split("/") if part]
                    inside = [part for part in path.split("/") if part][: len(wanted)] == wanted
                    rank = (2, -len(wanted), "") if inside else None
            # Of prefixes only one per depth can match, and of equal paths the first counts.
            if rank is not None and (best is None or rank < best):
                best, served = rank, each.backend.service
    return served or (ingress.default.service if ingress.default else "")


def answer(each: Backend) -> Mapping[str, Any]:
    """In place of a cluster: say which backend it would have been."""
    return {"directResponse": {"status": 200, "body": {"inlineString": each.service}}}


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Ingress], Path]]:
    """One Envoy with a listener on a socket for each Ingress."""
    folder = tmp_path_factory.mktemp("envoy")
    chance = random.Random(SEED)
    ingresses = [random_ingress(chance, number) for number in range(INGRESSES)]
    listeners: list[dict[str, Any]] = []
    for number, ingress in enumerate(ingresses):
        listener: dict[str, Any] = plain_listener() | {"name": f"l{number}"}
        listener["address"] = {"pipe": {"path": str(folder / f"{number}.sock")}}
        chain = listener["filterChains"][0]
        del listener["@type"]
        manager = chain["filters"][0]["typedConfig"]
        del manager["rds"]
        routes = {"ignorePortInHostMatching": True, "virtualHosts": virtual_hosts(ingress, answer)}
        manager["routeConfig"] = routes
        listeners.append(listener)
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": listeners}}))
    with (folder / "log").open("wb") as log:
        command = [str(ENVOY), "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            last = folder / f"{INGRESSES - 1}.sock"
            eventually(lambda: listens(last) or process.poll() is not None, what="Envoy's sockets")
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            yield ingresses, folder
        finally:
            process.kill()
            process.wait()


def listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as dialling:
        return dialling.connect_ex(str(place)) == 0


class Connection(http.client.HTTPConnection):
    """HTTP/1.1 over a socket's path."""

    def __init__(self, place: Path) -> None:
        super().__init__("envoy", timeout=60)
        self.place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self.place))


def test_envoy_does_what_the_model_says(envoy: tuple[list[Ingress], Path]) -> None:
    """Each Ingress and request; the Host may have a port, capitals, a last dot, the path a query."""
    ingresses, folder = envoy
    chance = random.Random(SEED + 1)
    wrong: list[str] = []
    served = 0
    for number, ingress in enumerate(ingresses):
        connection = Connection(folder / f"{number}.sock")
        paths = [path.path for rule in ingress.rules for path in rule.paths if path.type is not PathType.SPECIFIC]
        for _ in range(REQUESTS):
            host = chance.choice(ASKED)
            path = chance.choice([*paths, *paths, random_path(chance)]) + chance.choice(("", "", "x", "/x", "/"))
            path = re.sub("/+", "/", path)
            connection.request("GET", path + chance.choice(("", "?q=/a")), headers={"Host": host})
            response = connection.getresponse()
            body = response.read().decode()
            said = body if response.status == 200 else "" if response.status == 404 else f"HTTP {response.status}"
            expected = model(ingress, host, path)
            served += bool(expected)
            if said != expected:
                wrong.append(f"ingress {number}: {host} {path}: {said!r}, the model says {expected!r}: {ingress.rules}")
        connection.close()
    assert not wrong, f"{len(wrong)} of {INGRESSES * REQUESTS}, seed {SEED}:\n" + "\n".join(wrong[:5])
    assert INGRESSES * REQUESTS * 0.2 < served < INGRESSES * REQUESTS * 0.95, served
