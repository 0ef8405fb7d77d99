"""kill -9 in the middle of writes: what was acknowledged is there, and resourceVersion never goes back."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mycel.cluster.apiserver.pki import Pki
from tests.cluster.apiserver.running import RunningServer

pytestmark = pytest.mark.cluster
_KILLS = 50
_WRITERS = 4

# Imports once, then forks a server per line read: 50 starts cost what they do, not 50 imports.
_FORKER = """
import os, sys
import mycel.cluster.apiserver.server
from mycel.cluster.apiserver.main import main
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os._exit(main(line.split()))
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""


class _Forked(RunningServer):
    """A server that is forked from a process with everything imported."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self._forker = subprocess.Popen(
            [sys.executable, "-c", _FORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._child = 0

    def start(self) -> None:
        assert self._forker.stdin and self._forker.stdout and self._forker.stderr
        listen = f"127.0.0.1:{self.port}"
        self._forker.stdin.write(f"--state {self.state} --listen {listen} --no-controllers\n")
        self._forker.stdin.flush()
        self._child = int(self._forker.stdout.readline())
        said = ""
        while "serving on" not in said:
            line = self._forker.stderr.readline()
            said += line
            assert line and "Traceback" not in line, said
        self.port = int(said.strip().rpartition(":")[2])

    def kill(self) -> None:
        assert self._forker.stdout
        os.kill(self._child, signal.SIGKILL)
        assert self._forker.stdout.readline() == "ended\n"
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        assert self._forker.stdin and self._forker.stdout and self._forker.stderr
        self._forker.stdin.close()
        self._forker.wait(timeout=60)
        self._forker.stdout.close()
        self._forker.stderr.close()


class _Writer(threading.Thread):
    """Writes to its own objects in turn, from the `first` on, as fast as it can; remembers what was acknowledged."""

    def __init__(
        self, server: RunningServer, number: int, acknowledged: dict[str, tuple[int, int]], *, first: int
    ) -> None:
        super().__init__(daemon=True)
        self._first = first
        self._server = server
        self._number = number
        self._acknowledged = acknowledged
        self._stopping = threading.Event()
        self.answered = threading.Event()

    def run(self) -> None:
        connection = self._server.connect()
        base = "/api/v1/namespaces/default/configmaps"
        count = self._first
        try:
            while not self._stopping.is_set():
                name = f"writer-{self._number}-{count % 5}"
                known = self._acknowledged.get(name)
                value = known[0] + 1 if known else 1
                body = {"metadata": {"name": name}, "data": {"value": str(value)}}
                if known:
                    method, path, kind = "PATCH", f"{base}/{name}", "application/merge-patch+json"
                else:
                    method, path, kind = "POST", base, "application/json"
                connection.request(method, path, json.dumps(body).encode(), {"Content-Type": kind})
                answer = connection.getresponse()
                said = json.loads(answer.read())
                if answer.status == 409:  # made by an unacknowledged create before a kill
                    self._acknowledged[name] = (0, 0)
                elif answer.status < 300:
                    self._acknowledged[name] = (value, int(said["metadata"]["resourceVersion"]))
                count += 1
                self.answered.set()
        except (OSError, http.client.HTTPException, ValueError):
            pass
        finally:
            connection.close()

    def finish(self) -> None:
        self._stopping.set()
        self.join(timeout=60)
        assert not self.is_alive()


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[_Forked]:
    Pki(tmp_path / "pki").ensure()
    server = _Forked(tmp_path)
    try:
        yield server
    finally:
        server.close()


def test_no_acknowledged_write_is_lost(forked: _Forked) -> None:
    """50 kills under four writers: every acknowledged value is there or newer, revisions only grow."""
    rng = random.Random(7)
    acknowledged: dict[str, tuple[int, int]] = {}
    highest = 0
    for kill in range(_KILLS):
        forked.start()
        status, listed = forked.call("GET", "/api/v1/namespaces/default/configmaps")
        assert status == 200
        there = {item["metadata"]["name"]: item for item in listed["items"]}
        for name, (value, revision) in acknowledged.items():
            assert name in there, f"kill {kill}: {name} was acknowledged with revision {revision} and is gone"
            assert int(there[name]["data"]["value"]) >= value, f"kill {kill}: {name} went back"
            assert int(there[name]["metadata"]["resourceVersion"]) >= revision
            acknowledged[name] = (int(there[name]["data"]["value"]), revision)
        now = int(listed["metadata"]["resourceVersion"])
        assert now >= highest, f"kill {kill}: resourceVersion went back from {highest} to {now}"
        writers = [_Writer(forked, number, acknowledged, first=kill) for number in range(_WRITERS)]
        for writer in writers:
            writer.start()
        for writer in writers:
            assert writer.answered.wait(60), "a writer was not answered"
        time.sleep(rng.uniform(0, 0.1))  # the moment of the kill is what this test varies
        forked.kill()
        for writer in writers:
            writer.finish()
        highest = max([now, *(revision for _, revision in acknowledged.values())])
    assert len(acknowledged) == 5 * _WRITERS and highest > _KILLS, "the writers wrote next to nothing"
    database = sqlite3.connect(f"file:{forked.state}/store.db?mode=ro", uri=True)
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        database.close()


def test_watch_continues_over_a_kill(forked: _Forked) -> None:
    """A watch from a revision before the kill gets exactly the changes since."""
    forked.start()
    base = "/api/v1/namespaces/default/configmaps"
    _, first = forked.call("POST", base, {"metadata": {"name": "a", "labels": {"x": "1"}}})
    since = first["metadata"]["resourceVersion"]
    forked.call("POST", base, {"metadata": {"name": "b"}})
    forked.kill()
    forked.start()
    forked.call("DELETE", f"{base}/a")
    seen = [
        (event["type"], event["object"]["metadata"]["name"])
        for event in forked.watch_lines(f"{base}?watch=true&resourceVersion={since}&timeoutSeconds=1")
    ]
    forked.kill()
    assert seen == [("ADDED", "b"), ("DELETED", "a")]


def test_damaged_database_is_refused(tmp_path: Path) -> None:
    """Bytes overwritten in the file: the server says so and does not start."""
    server = RunningServer(tmp_path)
    server.start()
    for number in range(40):
        server.call(
            "POST",
            "/api/v1/namespaces/default/configmaps",
            {"metadata": {"name": f"c{number}"}, "data": {"k": "v" * 500}},
        )
    server.end()
    path = tmp_path / "store.db"
    assert path.stat().st_mode & 0o777 == 0o600 and tmp_path.stat().st_mode & 0o777 == 0o700
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 6] = b"\xa5" * (4096 * 5)
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "mycel.cluster.apiserver", "--state", str(tmp_path), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert str(path) in done.stderr and "restore a copy" in done.stderr
