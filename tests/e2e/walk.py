"""What the walkthrough's tests share: the cluster a person works with, what was printed on the way, flows."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.clusters import ROOT, Cluster
from tests.kubectls import kubectls

MANIFESTS = ROOT / "examples"
ORIGINALS = ROOT.parent / "shared" / "walkthrough"
INSTALL = (
    "install",
    "--datapath-mode=vxlan",
    "--config",
    "enable-envoy-config=true",
    "--kube-proxy-replacement=probe",
)
TEST_SPACE = "cilium-test"
ECHOES = ("echo-same-node", "echo-other-node")


@dataclass
class Walk:
    """The cluster and what was printed on the way; every stage happens once."""

    cluster: Cluster
    printed: dict[str, str] = field(default_factory=dict[str, str])

    def once(self, stage: str, action: Callable[[], str]) -> str:
        """What the stage printed, doing it first if need be."""
        if stage not in self.printed:
            self.printed[stage] = action()
        return self.printed[stage]

    def create(self) -> str:
        """Section 1."""
        config = str(MANIFESTS / "kind-config.yaml")
        arguments = ("cluster", "create", "--name", self.cluster.name, "--config", config)
        return self.once("create", lambda: said(self.cluster.mycel(*arguments)))

    def install(self) -> str:
        """Section 2."""
        self.create()
        return self.once("install", lambda: said(self.cluster.mycel(*INSTALL, "--wait")))

    def test_pods(self) -> str:
        """Section 5: the test pods, all Ready."""
        self.install()

        def apply() -> str:
            printed = said(self.cluster.kubectl("apply", "-f", str(MANIFESTS / "cilium-test.yaml")))
            return printed + self.cluster.wait("-n", TEST_SPACE, "--for=condition=Available", "deployment", "--all")

        return self.once("test pods", apply)

    @contextmanager
    def typed_with(self, version: str) -> Iterator[None]:
        """Steps in here are typed with this version of kubectl, one of `kubectls()`."""
        found = kubectls()
        if version not in found:
            pytest.skip("no kubectl on this machine: apt-get install kubernetes-client")
        usual = self.cluster.kubectl_path
        self.cluster.kubectl_path = found[version]
        try:
            yield
        finally:
            self.cluster.kubectl_path = usual

    def pod(self, deployment: str) -> str:
        """The name of a deployment's pod."""
        (found,) = self.cluster.get("pods", "-n", TEST_SPACE, "-l", f"name={deployment}")["items"]
        return found["metadata"]["name"]

    def node_addresses(self) -> list[str]:
        """The nodes' internal addresses."""
        return [
            entry["address"]
            for node in self.cluster.get("nodes")["items"]
            for entry in node["status"]["addresses"]
            if entry["type"] == "InternalIP"
        ]


def lines_of(source: str, destination: str, *, arrow: str = "->") -> str:
    """A pattern for the beginning of a flow's line: when, from a port of the source to the destination (a pattern)."""
    peer = r"(?: \(ID:\d+\))?"
    return rf"^\w{{3}} [ \d]\d \d\d:\d\d:\d\d\.\d{{3}}: {source}:\d+{peer} {arrow} {destination}{peer} "


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Both streams, as a person sees them."""
    return done.stdout + done.stderr


def rows(table: str) -> list[list[str]]:
    """A printed table's rows without its header."""
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[1:]]


def pool(cluster: Cluster) -> str:
    """lb-pool.yaml; a cluster beside another one has another network than 172.18.0.0/16."""
    first = cluster.get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    return (MANIFESTS / "lb-pool.yaml").read_text().replace("172.18.", ".".join(first.split(".")[:2]) + ".")


class Follower:
    """`mycel hubble observe -f` in the background; its lines as they come."""

    def __init__(self, cluster: Cluster, *arguments: str) -> None:
        command = [str(Path(sys.executable).with_name("mycel")), "hubble", "observe", "-f", *arguments]
        self._process = subprocess.Popen(
            command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def saw(self, pattern: str) -> bool:
        """Whether a line like this came."""
        return any(re.search(pattern, line) for line in self.lines)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(60)
        self._reader.join(60)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
