"""What the proxy saw, to the agent: datagrams that never wait. What does not fit is counted."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from mycel.dnsproxy.sockets import Place
from mycel.dnsproxy.wire import Answer, Query, type_name
from mycel.flow.l7 import Dns, End, Half, L7Record, L7Verdict, encode
from mycel.model.address import format_address

_SHOWN = 64  # addresses of one answer


class Records:
    """See the module."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self.wanted = False
        """Whether anybody takes records; if not, none is made."""
        self.lost = 0

    def look(self) -> None:
        """Find out, now and then, whether anybody takes records."""
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                made.connect(str(self._path))
                self._socket = made
            except OSError:
                made.close()
        self.wanted = self._socket is not None

    def tell(
        self,
        query: Query,
        client: Place,
        server: Place,
        *,
        listener: int,
        protocol: str,
        verdict: L7Verdict,
        answer: Answer | None = None,
        rcode: int = 0,
        latency_s: float = 0.0,
        response: bool = False,
    ) -> None:
        """A query, or with `response` its answer."""
        if self._socket is None:
            return
        addresses = answer.addresses if answer else ()
        told = Dns(
            query=query.name,
            qtypes=(type_name(query.type),),
            rcode=answer.rcode if answer else rcode,
            ips=tuple(format_address(address) for address, _ in addresses[:_SHOWN]),
            ttl=min((ttl for _, ttl in addresses), default=0),
            cnames=answer.aliases if answer else (),
            rrtypes=tuple(map(type_name, answer.types)) if answer else (),
        )
        record = L7Record(
            time_ns=time.time_ns(),
            half=Half.RESPONSE if response else Half.REQUEST,
            verdict=verdict,
            source=End(*client),
            destination=End(*server),
            protocol=protocol,
            listener=listener,
            latency_ns=round(latency_s * 1e9),
            dns=told,
        )
        try:
            self._socket.send(encode(record))
        except BlockingIOError:
            self.lost += 1
        except OSError:
            self.lost += 1
            self._socket.close()
            self._socket = None
            self.wanted = False
