"""Embedded clusters for tests: made by the same command a person types, in folders and with names of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mycel.cluster.lifecycle import cgroups

ROOT = Path(__file__).parents[1]
TESTNET = Path(__file__).with_name("node") / "testnet.py"
PATIENCE_S = 120
"""How long a test waits for what must come true: only a failure waits so long, on however slow a machine."""


def kind_file(*, workers: int) -> str:
    """A kind file of a control plane and workers, without a network of its own."""
    nodes = "- role: worker\n" * workers
    return f"""\
apiVersion: kind.x-k8s.io/v1alpha4
kind: Cluster
nodes:
- role: control-plane
{nodes}networking:
  disableDefaultCNI: true
"""


@dataclass
class Cluster:
    """A running cluster. Folders are its own, so that several test runs live side by side."""

    name: str
    folder: Path
    kubectl_path: str
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "MYCEL_STATE_DIR": str(self.folder / "state"),
            "MYCEL_RUN_DIR": str(self.folder / "run"),
        }

    @property
    def state(self) -> Path:
        return self.folder / "state" / "clusters" / self.name

    @property
    def nodes(self) -> list[str]:
        return [node["name"] for node in json.loads((self.state / "cluster.json").read_text())["nodes"]]

    def processes(self) -> list[int]:
        """Ids of everything that runs in it. Some may have ended when you look."""
        return list(cgroups.processes(json.loads((self.state / "cluster.json").read_text())["cgroup"]))

    def namespace(self, node: str, kind: str = "net") -> Path:
        """The file of one of a node's namespaces: net, mnt or uts."""
        return self.folder / "run" / self.name / "ns" / f"{node}.{kind}"

    def mycel(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """The command line."""
        command = [sys.executable, "-m", "mycel.cli.main", *arguments]
        if not _has_main():
            command = [str(Path(sys.executable).with_name("mycel")), *arguments]
        return _run(command, self.environment, check=check, stdin=stdin)

    def create(self, config: str = "") -> None:
        """Make it, with a kind file as text."""
        path = self.folder / "kind.yaml"
        path.write_text(config)
        self.mycel("cluster", "create", "--name", self.name, *(["--config", str(path)] if config else []))

    def delete(self) -> None:
        self.mycel("cluster", "delete", "--name", self.name)

    def kubectl(
        self, *arguments: str, check: bool = True, stdin: str | None = None, timeout_s: float = PATIENCE_S + 60
    ) -> subprocess.CompletedProcess[str]:
        """A real kubectl."""
        return _run([self.kubectl_path, *arguments], self.environment, check=check, stdin=stdin, timeout_s=timeout_s)

    def wait(self, *arguments: str) -> str:
        """`kubectl wait`, patiently."""
        return self.kubectl("wait", f"--timeout={PATIENCE_S}s", *arguments).stdout

    def rolled_out(self, *arguments: str) -> str:
        """`kubectl rollout status`, patiently."""
        return self.kubectl("rollout", "status", f"--timeout={PATIENCE_S}s", *arguments).stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def apply(self, *objects: dict[str, Any]) -> None:
        """`kubectl apply` of objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def on_node(self, node: str, *command: str, check: bool = True) -> str:
        """Run a command in a node's namespaces."""
        kinds = (("mount", "mnt"), ("net", "net"), ("uts", "uts"))
        places = [f"--{kind}={self.namespace(node, short)}" for kind, short in kinds]
        return _run(["nsenter", *places, "--", *command], dict(os.environ), check=check).stdout

    def install_test_network(self) -> None:
        """The CNI plugin of `tests/node/testnet.py` on every node: pods of one node reach each other and their node."""
        for number, node in enumerate(self.nodes):
            plugin = {"type": "testnet", "subnet": f"10.244.{number}.0"}
            config = {"cniVersion": "1.0.0", "name": "testnet", "plugins": [plugin]}
            text = (
                f"cp {TESTNET} /opt/cni/bin/testnet && chmod 755 /opt/cni/bin/testnet && "
                f"echo '{json.dumps(config)}' > /etc/cni/net.d/10-test.conflist"
            )
            self.on_node(node, "sh", "-c", text)


def eventually(condition: Callable[[], object], *, timeout_s: float = PATIENCE_S, what: str = "the condition") -> None:
    """Until `condition()` is true; fails with its last falsy value."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        last = condition()
        if last:
            return
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come true within {timeout_s:.0f} s: {last!r}")


def settles(check: Callable[[], object]) -> None:
    """Until what `check()` asserts holds: for facts that come true one after the other."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            check()
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _has_main() -> bool:
    return "__main__" in (ROOT / "src/mycel/cli/main.py").read_text()


def _run(
    command: Sequence[str],
    environment: dict[str, str],
    *,
    check: bool,
    stdin: str | None = None,
    timeout_s: float = 420,  # `--wait` of the command line gives up after 300
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env=environment, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} → {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
