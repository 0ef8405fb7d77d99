"""Many sockets behind one reader of the event loop: while there is work, it goes on without the loop's overhead."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

_PASSES = 32  # then the loop has its turn: timers, TCP, the agent


class Reads:
    """Calls back when a socket can be read. Level-triggered, for the thread of the loop it is made in."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._poll.fileno(), self._work)

    def add(self, made: socket.socket, call: Callable[[], None]) -> None:
        """Follow a socket."""
        self._calls[made.fileno()] = call
        self._poll.register(made.fileno(), select.EPOLLIN)

    def remove(self, made: socket.socket) -> None:
        """Do not, before it is closed."""
        self._calls.pop(made.fileno())
        self._poll.unregister(made.fileno())

    def close(self) -> None:
        """The end."""
        self._loop.remove_reader(self._poll.fileno())
        self._poll.close()

    def _work(self) -> None:
        for _ in range(_PASSES):
            found = self._poll.poll(0)
            if not found:
                return
            for descriptor, _ in found:
                call = self._calls.get(descriptor)
                if call is not None:
                    call()
