"""Numbered datagrams between namespaces of one node, and which of them arrived: sockets held by the test's process."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.bpf.lab import inside

_NUMBER = struct.Struct("!Q")
FIRST_SOURCE_PORT = 20000
_SO_RCVBUFFORCE = 33


class Sent(NamedTuple):
    """One datagram."""

    number: int
    port: int
    at_s: float  # before it was sent
    done_s: float  # after it was delivered or dropped: the path from socket to socket is synchronous
    known: bool  # of a connection that had been there before


class Receiver:
    """Listens on UDP ports of a namespace and keeps the numbers that came."""

    def __init__(self, namespace: str, ports: Sequence[int]) -> None:
        self.numbers: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        with inside(namespace):
            for port in ports:
                listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                listening.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)  # nothing is lost here
                listening.bind(("", port))
                listening.setblocking(False)
                self._selector.register(listening, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def close(self) -> None:
        """Take what is left, and end."""
        self._stop.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _receive(self) -> None:
        while True:
            ready = self._selector.select(timeout=0.2)
            if not ready and self._stop.is_set():
                return
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        self.numbers.add(_NUMBER.unpack(key.fileobj.recv(64))[0])


class Sender:
    """Sends a datagram of a known connection and one of a new connection to each port, round after round."""

    def __init__(self, namespace: str, address: str, ports: Sequence[int], *, pause_s: float) -> None:
        self.sent: list[Sent] = []
        self._address, self._ports, self._pause_s = address, ports, pause_s
        self._stop = threading.Event()
        self._namespace = namespace
        self._fixed: dict[int, socket.socket] = {}
        with inside(namespace):
            for port in ports:
                self._fixed[port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self._fixed[port].bind(("", FIRST_SOURCE_PORT + port))
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def close(self) -> None:
        """Stop sending."""
        self._stop.set()
        self._thread.join()
        for each in self._fixed.values():
            each.close()

    def _send(self) -> None:
        number = 0
        with inside(self._namespace):
            while not self._stop.wait(self._pause_s):
                for port in self._ports:
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as fresh:
                        for sender, known in ((self._fixed[port], True), (fresh, False)):
                            number += 1
                            before = time.monotonic()
                            sender.sendto(_NUMBER.pack(number), (self._address, port))
                            self.sent.append(Sent(number, port, before, time.monotonic(), known))


@contextlib.contextmanager
def traffic(
    client: str, server: str, address: str, ports: Sequence[int], *, pause_s: float = 0.004
) -> Iterator[tuple[Sender, Receiver]]:
    """Datagrams from one namespace to another until the block ends; look at both afterwards."""
    receiver = Receiver(server, ports)
    try:
        sender = Sender(client, address, ports, pause_s=pause_s)
        try:
            yield sender, receiver
        finally:
            sender.close()
    finally:
        receiver.close()
