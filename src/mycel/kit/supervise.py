"""The first process of a container that keeps another one running: what ends is started again at once.

Kubernetes would start the container again as well, but waits longer each time. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mycel.kit.groups import write_group

STEADY_S = 2.0  # one that ran so long did not fail at its configuration
LONGEST_PAUSE_S = 2.0


class Process(Protocol):
    """What is kept running: as subprocess.Popen."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def wait(self) -> int:
        """Wait for its end; returns the exit code, of a signal the negative number."""
        ...

    def terminate(self) -> None:
        """Ask it to end. Raises ProcessLookupError."""
        ...


class Forked:
    """A process that is a copy of this one: it need not load what this one has loaded."""

    def __init__(self, work: Callable[[], int]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)

    def wait(self) -> int:
        """See Process."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def terminate(self) -> None:
        """See Process."""
        os.kill(self.pid, signal.SIGTERM)


def supervise(
    name: str,
    start: Callable[[], Process],
    *,
    group: Path,
    cgroup_root: Path,
    ended: Callable[[], None] = lambda: None,
) -> int:
    """Keep a proxy running until asked to stop; `group` is the file that says whose marks the kernel is to believe.

    `ended` is called when the proxy has ended, before it is started again.
    """
    while not write_group(group, cgroup_root):
        print(f"{name}: not below {cgroup_root} yet", file=sys.stderr, flush=True)
        time.sleep(0.5)
    supervisor = Supervisor(name, start, ended)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.stop)
    return supervisor.run()


def pause_s(failures: int) -> float:
    """How long to wait before the next start, after so many that failed at once: 0, then 0.1 s doubling."""
    return min(0.1 * 2 ** (failures - 1), LONGEST_PAUSE_S) if failures else 0.0


class Supervisor:
    """Starts a process again whenever it ends, until asked to stop."""

    def __init__(self, name: str, start: Callable[[], Process], ended: Callable[[], None] = lambda: None) -> None:
        self._name = name
        self._start = start
        self._ended = ended
        self._process: Process | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process id of what runs, or ran last."""
        return self._process.pid if self._process else None

    def stop(self, *_: object) -> None:
        """Let it end, and do not start it again."""
        self._stopping = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def run(self) -> int:
        """Until stopped."""
        failures = 0
        while not self._stopping:
            began_s = time.monotonic()
            self._process = self._start()
            if self._stopping:
                self.stop()
            code = self._process.wait()
            if self._stopping:
                break
            self._ended()
            failures = failures + 1 if time.monotonic() - began_s < STEADY_S else 0
            print(f"{self._name}: ended with {code}; it is started again", file=sys.stderr, flush=True)
            time.sleep(pause_s(failures))
        return 0
