"""DNS over UDP: many datagrams per wake-up, no task per query. Only an answer that has to wait gets one."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import socket
import time

from mycel.dnsproxy import sockets
from mycel.dnsproxy.gate import ANSWER_WITHIN_S, Gate
from mycel.dnsproxy.reads import Reads
from mycel.dnsproxy.records import Listener, Records
from mycel.dnsproxy.sockets import Place
from mycel.dnsproxy.wire import FAILED, Answer, Query, is_answer, read_answer, refusal
from mycel.flow.l7 import L7Verdict
from mycel.kit.dns import DnsFormatError, RCode

log = logging.getLogger(__name__)
_BATCH = 64
_QUERY_BYTES = 4096
IN_FLIGHT = 8192
_PER_LEG = 2048
_LEGS = 4096
_SERVERS = 256
_LEG_QUERIES = 20_000  # then another port is taken, so that nobody can guess for long


class Pending:
    """A query on its way."""

    __slots__ = ("client", "id", "leg", "query", "sent_s", "server", "wire")

    def __init__(self, leg: Leg, wire: bytes, query: Query, client: Place, server: Place, sent_s: float) -> None:
        self.leg, self.wire, self.query, self.client, self.server = leg, wire, query, client, server
        self.sent_s = sent_s
        self.id = b""


class Leg:
    """A socket that asks one server as one client."""

    __slots__ = ("left", "pending", "socket")

    def __init__(self, made: socket.socket) -> None:
        self.socket = made
        self.pending: dict[bytes, Pending] = {}
        self.left = _LEG_QUERIES


class UdpListener:
    """One listener's UDP side."""

    def __init__(self, made: socket.socket, port: int, gate: Gate, records: Records, flight: Flight) -> None:
        self._socket = made
        self._port = port
        self._here = Listener(port, "UDP")
        self._gate = gate
        self._records = records
        self._flight = flight
        self._loop = asyncio.get_running_loop()
        self._reads = flight.reads
        self._memo = gate.memo(port)
        self._legs: dict[tuple[str, Place], Leg] = {}
        self._old: list[Leg] = []
        self._servers: dict[Place, socket.socket] = {}
        self._places: dict[bytes, Place] = {}
        self._buffer = bytearray(65_536)
        self._view = memoryview(self._buffer)
        self._ids: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._reads.add(self._socket, self._queries)

    def close(self) -> None:
        """Give every socket back."""
        self._reads.remove(self._socket)
        self._socket.close()
        for leg in (*self._legs.values(), *self._old):
            self._close_leg(leg)
        for each in self._servers.values():
            each.close()
        for task in self._tasks:
            task.cancel()

    # ---- from clients

    def _queries(self) -> None:
        now_s = time.monotonic()
        receive = self._socket.recvmsg
        for _ in range(_BATCH):
            try:
                wire, ancillary, flags, peer = receive(_QUERY_BYTES, sockets.ANCILLARY)
            except BlockingIOError:
                return
            except OSError as exc:
                log.debug("listener %d: %s", self._port, exc)
                return
            server = self._place(ancillary)
            if server is None or flags & socket.MSG_TRUNC:
                continue
            self._query(wire, Place(peer[0], peer[1]), server, now_s)

    def _place(self, ancillary: list[tuple[int, int, bytes]]) -> Place | None:
        if not ancillary:
            return None
        raw = ancillary[0][2]
        found = self._places.get(raw)
        if found is None:
            place = sockets.place_of(ancillary)
            if place is None:
                return None
            if len(self._places) >= _SERVERS:
                self._places.clear()
            found = self._places[raw] = place
        return found

    def _query(self, wire: bytes, client: Place, server: Place, now_s: float) -> None:
        judged = self._memo.get(wire[2:]) or self._gate.judge(self._port, wire)
        if judged.silent:
            return
        if judged.refuse is not None or judged.query is None:
            self._reply(refusal(wire, judged.refuse or RCode.SERVFAIL), client, server)
            if judged.query is not None:
                self._tell(judged.query, client, server, L7Verdict.DROPPED)
            return
        leg = self._leg(client.address, server)
        if leg is None or self._flight.full or len(leg.pending) >= _PER_LEG:
            self._fail(wire, judged.query, client, server, now_s)
            return
        pending = Pending(leg, wire, judged.query, client, server, now_s)
        number = self._number(leg)
        pending.id = number
        if not self._pass_on(leg, number + wire[2:], server):
            self._fail(wire, judged.query, client, server, now_s)
            return
        self._flight.add(pending, self)

    def _pass_on(self, leg: Leg, wire: bytes, server: Place) -> bool:
        for _ in range(2):
            try:
                leg.socket.send(wire)
            except ConnectionRefusedError:
                continue  # said of an earlier query, and said once
            except OSError as exc:
                log.debug("query to %s: %s", server, exc)
                return False
            return True
        return False

    def _number(self, leg: Leg) -> bytes:
        while True:
            if not self._ids:
                random = os.urandom(4096)
                self._ids = [random[at : at + 2] for at in range(0, len(random), 2)]
            number = self._ids.pop()
            if number not in leg.pending:
                return number

    def _leg(self, client: str, server: Place) -> Leg | None:
        key = (client, server)
        leg = self._legs.get(key)
        if leg is not None and leg.left > 0:
            leg.left -= 1
            return leg
        if leg is not None:
            self._old.append(self._legs.pop(key))  # its answers still come
        for old in [each for each in self._old if not each.pending]:
            self._old.remove(old)
            self._close_leg(old)
        if len(self._legs) >= _LEGS:
            self._close_leg(self._legs.pop(next(iter(self._legs))))
        try:
            made = sockets.upstream(client, socket.SOCK_DGRAM, listener=self._port)
        except OSError as exc:
            log.warning("no socket as %s: %s", client, exc)
            return None
        leg = Leg(made)
        try:
            made.connect(server)
        except OSError as exc:
            made.close()
            log.debug("no way to %s: %s", server, exc)
            return None
        self._legs[key] = leg
        self._reads.add(made, functools.partial(self._answers, leg))
        return leg

    def _close_leg(self, leg: Leg) -> None:
        self._reads.remove(leg.socket)
        leg.socket.close()
        for pending in list(leg.pending.values()):
            self.give_up(pending)

    # ---- from servers

    def _answers(self, leg: Leg) -> None:
        receive, view = leg.socket.recv_into, self._view
        for _ in range(_BATCH):
            try:
                size = receive(view)
            except BlockingIOError:
                return
            except OSError:
                continue  # a server that is not there says so by ICMP; the query's time runs out
            pending = leg.pending.get(bytes(view[:2]))
            if pending is None:
                continue
            wire = bytes(view[:size])
            if is_answer(wire, pending.query):
                self._answer(wire, pending)

    def _answer(self, wire: bytes, pending: Pending) -> None:
        answer = self._gate.fresh(wire)
        if answer is not None:
            self._release(wire, pending, answer)
            return
        try:
            answer = read_answer(wire, pending.query)
        except DnsFormatError:
            return  # not from a server: the real answer may still come
        if self._gate.admit(wire, pending.query, answer, pending.client.address):
            self._release(wire, pending, answer)
            return
        if self._flight.take(pending):
            task = self._loop.create_task(self._hold(wire, pending, answer), name="held answer")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _hold(self, wire: bytes, pending: Pending, answer: Answer) -> None:
        left_s = pending.sent_s + ANSWER_WITHIN_S - time.monotonic()
        self._flight.held += 1
        try:
            settled = await self._gate.settled(answer, left_s)
        except asyncio.CancelledError:
            self._tell(pending.query, pending.client, pending.server, L7Verdict.ERROR, FAILED, pending.sent_s)
            raise
        finally:
            self._flight.held -= 1
        if settled:
            self._send(wire, pending, answer)
        else:
            self._give_up(pending)

    def _release(self, wire: bytes, pending: Pending, answer: Answer) -> None:
        if self._flight.take(pending):
            self._send(wire, pending, answer)

    def _send(self, wire: bytes, pending: Pending, answer: Answer) -> None:
        self._reply(pending.wire[:2] + wire[2:], pending.client, pending.server)
        self._tell(pending.query, pending.client, pending.server, L7Verdict.FORWARDED, answer, pending.sent_s)

    def give_up(self, pending: Pending) -> None:
        """Its time is over."""
        if self._flight.take(pending):
            self._give_up(pending)

    def _give_up(self, pending: Pending) -> None:
        self._fail(pending.wire, pending.query, pending.client, pending.server, pending.sent_s)

    def _fail(self, wire: bytes, query: Query, client: Place, server: Place, sent_s: float) -> None:
        self._reply(refusal(wire, RCode.SERVFAIL), client, server)
        self._tell(query, client, server, L7Verdict.ERROR, FAILED, sent_s)

    # ---- to clients

    def _reply(self, wire: bytes, client: Place, server: Place) -> None:
        sender = self._servers.get(server)
        try:
            if sender is None:
                if len(self._servers) >= _SERVERS:
                    self._servers.pop(next(iter(self._servers))).close()
                sender = self._servers[server] = sockets.reply_from(server)
            sender.sendto(wire, client)
        except OSError as exc:
            log.debug("answer to %s: %s", client, exc)

    def _tell(
        self,
        query: Query,
        client: Place,
        server: Place,
        verdict: L7Verdict,
        answer: Answer | None = None,
        sent_s: float = 0.0,
    ) -> None:
        if self._records.wanted:
            self._records.tell(self._here, query, client, server, verdict, answer, sent_s=sent_s)


class Flight:
    """Queries on their way, oldest first: all have the same time, so the end is looked at only at one side."""

    def __init__(self, reads: Reads) -> None:
        self.reads = reads
        self._open: dict[Pending, UdpListener] = {}
        self.held = 0

    @property
    def full(self) -> bool:
        """Whether no more is taken."""
        return len(self._open) + self.held >= IN_FLIGHT

    def add(self, pending: Pending, listener: UdpListener) -> None:
        """One more. What is answered is not kept: nothing lives long enough for the garbage collector to run."""
        pending.leg.pending[pending.id] = pending
        self._open[pending] = listener

    def take(self, pending: Pending) -> bool:
        """It is answered; False when it was already."""
        if self._open.pop(pending, None) is None:
            return False
        del pending.leg.pending[pending.id]
        return True

    def expire(self) -> None:
        """Answer those whose time is over."""
        over_s = time.monotonic() - ANSWER_WITHIN_S
        for pending, listener in [*itertools.takewhile(lambda each: each[0].sent_s <= over_s, self._open.items())]:
            listener.give_up(pending)
