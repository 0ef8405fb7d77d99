"""The event loop's selector, with a short way for datagrams: no bookkeeping of the loop between packet and call."""

from __future__ import annotations

import asyncio
import select
import selectors
import socket
from collections.abc import Callable


class Reads(selectors.EpollSelector):
    """Calls back when a socket can be read, level-triggered; everything else is the loop's, as usual."""

    def __init__(self) -> None:
        super().__init__()
        self._both = select.epoll()
        self._both.register(self.fileno(), select.EPOLLIN)
        self._calls: dict[int, Callable[[], None]] = {}

    def add(self, made: socket.socket, call: Callable[[], None]) -> None:
        """Follow a socket."""
        self._calls[made.fileno()] = call
        self._both.register(made.fileno(), select.EPOLLIN)

    def remove(self, made: socket.socket) -> None:
        """Do not, before it is closed."""
        self._calls.pop(made.fileno())
        self._both.unregister(made.fileno())

    def close(self) -> None:
        """The end."""
        self._both.close()
        super().close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See BaseSelector. Returns after one round of calls, as they may have made work for the loop."""
        others = False
        for descriptor, _ in self._both.poll(timeout):
            call = self._calls.get(descriptor)
            if call is None:
                others = True
                continue
            try:
                call()
            except Exception as exc:
                problem = {"message": "a socket's reader failed", "exception": exc}
                asyncio.get_running_loop().call_exception_handler(problem)
        return super().select(0) if others else []
