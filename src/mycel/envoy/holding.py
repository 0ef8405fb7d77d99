"""While Envoy begins anew, its listeners' ports are held: clients wait in the kernel's queue, and are not dropped.

A SYN that is dropped comes again after a second, or three; Envoy is back sooner. The sockets that hold are like Envoy's
and in its groups of SO_REUSEPORT, so that what waits moves over when they are closed (`net.ipv4.tcp_migrate_req`, which
the agent sets). Nobody reads from them: what Envoy does not take over is reset.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

from mycel.abi import ProxyMark
from mycel.kit.sock_diag import listening
from mycel.model.proxy import DNS_PORTS, LISTEN_IPV4

LONGEST_S = 10.0
_LOOK_S, _HURRY_S = 1.0, 0.02
_WAITING = 4096


class Holder:
    """`run` it in a thread; `hold` when Envoy has ended, from any other."""

    def __init__(self, *, longest_s: float = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()  # the last look may have met an Envoy that was ending
        self._held: dict[int, socket.socket] = {}
        self._until = 0.0
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._stopping = False

    def hold(self) -> None:
        """Listen in Envoy's place."""
        with self._lock:
            for port in (self._seen | self._seen_before) - self._held.keys():
                try:
                    self._held[port] = _listen(port)
                except OSError as exc:
                    print(f"cilium-envoy: port {port} cannot be held: {exc}", file=sys.stderr, flush=True)
            self._until = time.monotonic() + self._longest_s
        self._changed.set()

    def run(self) -> None:
        """Know Envoy's listeners, and release what it listens on again; until `stop`."""
        while not self._stopping:
            with self._lock:
                self._look()
                pause_s = _HURRY_S if self._held else _LOOK_S
            self._changed.wait(pause_s)
            self._changed.clear()
        with self._lock:
            self._release(set(self._held))

    def stop(self) -> None:
        """Let `run` end, from any thread."""
        self._stopping = True
        self._changed.set()

    def _look(self) -> None:
        own = {os.fstat(each.fileno()).st_ino for each in self._held.values()}
        ports = {each.port for each in listening(LISTEN_IPV4) if each.inode not in own and each.port not in DNS_PORTS}
        if not self._held:
            self._seen, self._seen_before = ports, self._seen
            return
        late = time.monotonic() > self._until
        self._release(set(self._held) if late else ports & self._held.keys())

    def _release(self, ports: set[int]) -> None:
        for port in ports:
            self._held.pop(port).close()


def _listen(port: int) -> socket.socket:
    """A socket as Envoy's listeners are (`parts.listener_fields`): what it accepts Envoy can go on with."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, ProxyMark.DOWNSTREAM)
        made.bind((LISTEN_IPV4, port))
        made.listen(_WAITING)
    except BaseException:
        made.close()
        raise
    return made
