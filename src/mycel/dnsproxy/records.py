"""What the proxy saw, to the agent: datagrams that never wait. What does not fit is counted, and the count is told.

A datagram has many records: the kernel keeps ten for an agent that is busy, and each of them wakes it.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from mycel.dnsproxy.sockets import Place
from mycel.dnsproxy.wire import Answer, Query, type_name
from mycel.flow.l7 import RECORD_LIMIT, Dns, End, Half, L7Record, L7Verdict, Loss, encode
from mycel.model.address import format_address

_SHOWN = 64  # addresses of one answer, and types of its records
_SHOWN_NAMES = 16  # a name may take a kilobyte
_TOGETHER_S = 0.02


class Listener(NamedTuple):
    """Where a query came."""

    port: int
    protocol: str  # UDP or TCP


class Records:
    """See the module."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self.wanted = False
        """Whether anybody takes records; if not, none is made."""
        self._lost = 0
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._messages = 0  # that wait; a record stands for one or two

    def look(self) -> None:
        """Find out, now and then, whether anybody takes records, and tell what was lost."""
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                made.connect(str(self._path))
                self._socket = made
            except OSError:
                made.close()
        self.wanted = self._socket is not None
        if self._lost and self._send(encode(Loss(self._lost))):
            self._lost = 0

    def close(self) -> None:
        """Tell what waits, and nothing any more."""
        self._flush()
        self._end()

    def _end(self) -> None:
        self.wanted = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def tell(
        self,
        at: Listener,
        query: Query,
        client: Place,
        server: Place,
        verdict: L7Verdict,
        answer: Answer | None = None,
        *,
        sent_s: float = 0.0,
    ) -> None:
        """A query that went no further, or one with its answer: one record stands for both.

        `sent_s`: when a query that has an answer came, by `time.monotonic`.
        """
        if self._socket is None:
            return
        record = L7Record(
            time_ns=time.time_ns(),
            half=Half.REQUEST if answer is None else Half.RESPONSE,
            verdict=verdict,
            source=End(*client),
            destination=End(*server),
            protocol=at.protocol,
            listener=at.port,
            latency_ns=0 if answer is None else round((time.monotonic() - sent_s) * 1e9),
            asked=answer is not None,
        )
        small = answer is None or len(answer.addresses) + len(answer.aliases) <= _SHOWN
        said = _said(query, answer) if small else _say(query, answer)
        line = b'%b,"dns":%b}' % (encode(record)[:-1], said)
        if self._bytes + len(line) >= RECORD_LIMIT:
            self._flush()
        if not self._waiting:
            asyncio.get_running_loop().call_later(_TOGETHER_S, self._flush)
        self._waiting.append(line)
        self._bytes += len(line) + 1
        self._messages += 1 if answer is None else 2

    def _flush(self) -> None:
        if self._waiting and not self._send(b"\n".join(self._waiting)):
            self._lost += self._messages
        self._waiting.clear()
        self._bytes = self._messages = 0

    def _send(self, datagram: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send(datagram)
        except BlockingIOError:
            return False
        except OSError:
            self._end()
            return False
        return True


def _say(query: Query, answer: Answer | None) -> bytes:
    """The part of a record that the next ones repeat, as JSON."""
    addresses = answer.addresses if answer else ()
    return msgspec.json.encode(
        Dns(
            query=query.name,
            qtypes=(type_name(query.type),),
            rcode=answer.rcode if answer else 0,
            ips=tuple(format_address(address) for address, _ in addresses[:_SHOWN]),
            ttl=min((ttl for _, ttl in addresses), default=0),
            cnames=answer.aliases[:_SHOWN_NAMES] if answer else (),
            rrtypes=tuple(map(type_name, answer.types[:_SHOWN])) if answer else (),
        )
    )


_said = functools.lru_cache(maxsize=2048)(_say)
