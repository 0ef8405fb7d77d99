"""A real API server process for tests, and a small client that keeps its connection."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mycel.cluster.apiserver.pki import Pki

Answer = tuple[int, Any]


class RunningServer:
    """One process of the API server over a state directory; can be killed and started again."""

    def __init__(self, state: Path, *, arguments: tuple[str, ...] = ("--no-controllers",)) -> None:
        self.state = state
        self.pki = Pki(state / "pki")
        self._arguments = arguments
        self._listen = "127.0.0.1:0"
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self._connection: http.client.HTTPSConnection | None = None

    def start(self) -> None:
        """Start and wait until it says that it serves; the port stays the same over restarts."""
        command = [sys.executable, "-m", "mycel.cluster.apiserver", "--state", str(self.state)]
        self._process = subprocess.Popen(
            [*command, "--listen", self._listen, *self._arguments], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        said: list[str] = []
        for line in self._process.stderr:
            said.append(line)
            if "serving on" in line:
                self.port = int(line.rpartition(":")[2])
                self._listen = f"127.0.0.1:{self.port}"
                return
        raise AssertionError("the API server did not start: " + "".join(said))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def end(self, number: int = signal.SIGTERM) -> str:
        """Send a signal and wait; what it wrote to standard error since it started."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is None:
            return ""
        os.kill(self._process.pid, number)
        _, said = self._process.communicate(timeout=120)
        self._process = None
        return said

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.pki.ca_certificate))
        pair = self.pki.pair("admin")
        context.load_cert_chain(pair.certificate, pair.key)
        return context

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls(), timeout=120)

    def call(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", **headers: str
    ) -> Answer:
        """(status, decoded JSON or text); over one kept connection."""
        if self._connection is None:
            self._connection = self.connect()
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            sent["Content-Type"] = content_type
        try:
            self._connection.request(method, path, data, sent)
            answer = self._connection.getresponse()
            raw = answer.read()
        except (http.client.HTTPException, OSError):
            self._connection.close()
            self._connection = None
            raise
        kind = answer.headers.get("Content-Type", "")
        return answer.status, json.loads(raw) if "json" in kind else raw.decode()

    def watch_lines(self, path: str) -> Iterator[dict[str, Any]]:
        """Events of a watch that ends by its own timeoutSeconds."""
        connection = self.connect()
        try:
            connection.request("GET", path)
            for line in connection.getresponse():
                yield json.loads(line)
        finally:
            connection.close()


@contextmanager
def running(state: Path, *, arguments: tuple[str, ...] = ("--no-controllers",)) -> Iterator[RunningServer]:
    """An API server that is ended afterwards."""
    server = RunningServer(state, arguments=arguments)
    server.start()
    try:
        yield server
    finally:
        server.end()


class Kubectl:
    """A real kubectl with its own home, pointed at one server."""

    def __init__(self, path: str, server: RunningServer, home: Path) -> None:
        self._path = path
        self._home = home
        home.mkdir(parents=True, exist_ok=True)
        config = server.pki.kubeconfig(f"https://127.0.0.1:{server.port}", context="test")
        (home / "config").write_text(config)

    def command(self, *arguments: str) -> list[str]:
        return [self._path, "--kubeconfig", str(self._home / "config"), *arguments]

    def environment(self) -> dict[str, str]:
        return {"HOME": str(self._home), "PATH": os.environ["PATH"]}

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run to the end, whatever comes out."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env=self.environment(),
        )

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output of a command that must succeed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout
