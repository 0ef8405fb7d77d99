"""The socket Envoy dials is the supervisor's, who lends it: to the agent, or while there is none to a stand-in.

So Envoy's calls wait while an agent begins anew, and an Envoy that begins meanwhile is not without its configuration.
Whoever dials `lend.sock` is the agent, gets the listening socket (SCM_RIGHTS, unix(7)), and has it for as long as that
connection lives. Standard library only: the supervisor is small.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from pathlib import Path

from mycel.kit.sockets import bind_unix

CALLS, DOOR, LAST = "xds.sock", "lend.sock", "last"
PATIENCE_S = 5.0  # an agent that only begins anew is back before
_LOOK_S = 0.5


class Lender:
    """`run` it in a thread; `close` it when that has ended."""

    def __init__(self, folder: Path, stand_in: list[str], *, patience_s: float = PATIENCE_S) -> None:
        """`folder`: of mode 0700. `stand_in`: a command that takes `--socket DESCRIPTOR --last FILE`."""
        self._last = folder / LAST
        self._stand_in_command = stand_in
        self._patience_s = patience_s
        self._calls = bind_unix(socket.SOCK_STREAM, folder / CALLS)
        self._calls.listen(128)
        self._door = bind_unix(socket.SOCK_STREAM, folder / DOOR)
        self._door.listen(1)
        self._agent: socket.socket | None = None
        self._stand_in: subprocess.Popen[bytes] | None = None
        self._alone_since = time.monotonic()
        self._wake, self._waker = socket.socketpair()

    def run(self) -> None:
        """Until `stop`."""
        while self._step():
            pass

    def stop(self) -> None:
        """Let `run` end, from any thread."""
        self._waker.send(b"\0")

    def close(self) -> None:
        """End the stand-in and the sockets."""
        self._dismiss()
        for each in (self._calls, self._door, self._wake, self._waker, *filter(None, [self._agent])):
            each.close()

    @property
    def standing_in(self) -> bool:
        """Whether there is a stand-in."""
        return self._stand_in is not None and self._stand_in.poll() is None

    def _step(self) -> bool:
        watched = [self._door, self._wake, *filter(None, [self._agent])]
        if self._needs_stand_in():
            watched.append(self._calls)
        readable, _, _ = select.select(watched, [], [], None if self._agent else _LOOK_S)
        if self._agent in readable:  # it says nothing, so this is its end
            self._agent_gone()
        if self._door in readable:
            self._lend()
        elif self._calls in readable:
            self._begin_stand_in()
        return self._wake not in readable

    def _needs_stand_in(self) -> bool:
        if self._agent or self.standing_in:
            return False
        return time.monotonic() - self._alone_since >= self._patience_s and self._last.exists()

    def _begin_stand_in(self) -> None:
        self._dismiss()  # one that has ended
        print("cilium-envoy: no agent is there: Envoy is given its last configuration", file=sys.stderr, flush=True)
        descriptor = self._calls.fileno()
        self._stand_in = subprocess.Popen(
            [*self._stand_in_command, "--socket", str(descriptor), "--last", str(self._last)],
            pass_fds=[descriptor],
            stdin=subprocess.PIPE,  # it ends with us
        )
        self._alone_since = time.monotonic()  # should it end at once, the next one waits

    def _lend(self) -> None:
        agent, _ = self._door.accept()
        if self._agent:
            self._agent_gone()  # one that hangs is replaced
        self._dismiss()  # its streams end, so that Envoy calls again
        try:
            socket.send_fds(agent, [b"\0"], [self._calls.fileno()])
        except OSError:
            agent.close()
        else:
            self._agent = agent

    def _agent_gone(self) -> None:
        assert self._agent
        self._agent.close()
        self._agent = None
        self._alone_since = time.monotonic()

    def _dismiss(self) -> None:
        if self._stand_in:
            self._stand_in.kill()
            self._stand_in.wait()
            if self._stand_in.stdin:
                self._stand_in.stdin.close()
            self._stand_in = None
