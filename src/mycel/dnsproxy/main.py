"""The process: rules from the agent's file, listeners of them, and the clock.

Start: rows and answers of an earlier process → rules → listeners. No agent is needed for any of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import resource
import socket
from dataclasses import dataclass
from pathlib import Path

from mycel.dnsproxy import sockets
from mycel.dnsproxy.agent import Agent
from mycel.dnsproxy.gate import Ask, Gate
from mycel.dnsproxy.journal import Journal
from mycel.dnsproxy.learner import Learner
from mycel.dnsproxy.names_map import NamesMap, PinnedNames
from mycel.dnsproxy.reads import Reads
from mycel.dnsproxy.records import Records
from mycel.dnsproxy.sockets import Place
from mycel.dnsproxy.tcp import TcpListener
from mycel.dnsproxy.udp import Flight, UdpListener
from mycel.kit.dns import RCode
from mycel.kit.logfmt import set_up as set_up_logs
from mycel.kit.sockets import bind_unix
from mycel.kit.tasks import spawn, until_signal
from mycel.model.proxy import LISTEN_IPV4, LISTEN_IPV6
from mycel.plan.dns import DnsRules, read_rules
from mycel.policy.name_cache import NameCache

log = logging.getLogger("mycel.dnsproxy")
_KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
_EXPIRE_S, _SWEEP_S, _LOOK_S = 0.1, 30.0, 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the process is told."""

    state_dir: Path = Path("/var/run/cilium")
    names: Path = Path("/sys/fs/bpf/mycel/maps/mycel_names")
    addresses: tuple[str, ...] = (LISTEN_IPV4, LISTEN_IPV6)
    min_ttl_s: int = 0
    per_name: int = 1000
    put_off: int = 10_000
    refuse: RCode = RCode.REFUSED
    sweep_s: float = _SWEEP_S


Opened = dict[tuple[Place, int], socket.socket]
"""Sockets that listen already, by place and kind (SOCK_DGRAM, SOCK_STREAM)."""


class Proxy:
    """The listeners, as the rules want them; `opened` are taken where they are among those."""

    def __init__(self, options: Options, *, rows: NamesMap, ask: Ask, opened: Opened, reads: Reads) -> None:
        self._options = options
        self._opened = opened
        self._folder = options.state_dir / "dns-proxy"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache = NameCache(min_ttl_s=options.min_ttl_s, per_name=options.per_name, put_off=options.put_off)
        self.learner = Learner(cache, rows, Journal(self._folder / "names.jsonl"))
        self.gate = Gate(self.learner, ask, refuse=options.refuse)
        self.records = Records(options.state_dir / "l7-records.sock")
        self.flight = Flight(reads)
        self._listeners: dict[tuple[int, str], tuple[UdpListener, TcpListener]] = {}
        self._seen: tuple[int, int] | None = None
        self._poked = asyncio.Event()
        self._ports: tuple[int, ...] = ()

    async def run(self) -> None:
        """Until cancelled."""
        self.learner.restore()
        self._look()
        for each in self._opened.values():
            each.close()
        self._opened.clear()
        poke = bind_unix(socket.SOCK_DGRAM, self._folder / "poke.sock")
        loop = asyncio.get_running_loop()
        loop.add_reader(poke, self._poke, poke)
        gc.collect()
        gc.freeze()
        try:
            async with asyncio.TaskGroup() as group:
                spawn(group, self._watch(), "rules")
                spawn(group, self._expire(), "timeouts")
                spawn(group, self._sweep(), "sweep")
        finally:
            loop.remove_reader(poke)
            poke.close()
            for listener in self._listeners.values():
                for each in listener:
                    each.close()
            self.records.close()

    # ---- rules

    def _poke(self, poke: socket.socket) -> None:
        try:
            poke.recv(16)
        except BlockingIOError:
            return
        self._poked.set()

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._poked.wait()
            except TimeoutError:
                pass
            self._poked.clear()
            self._look()
            self.records.look()

    def _look(self) -> None:
        """Take new rules in. A file that cannot be used changes nothing."""
        path = self._folder / "rules.json"
        try:
            found = path.stat()
            seen = (found.st_ino, found.st_mtime_ns)
            if seen == self._seen:
                return self._listen(None)  # what could not be opened may be possible now
            self._seen = seen
            rules = read_rules(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            log.error("rules %s cannot be used, the ones before stay: %s", path, exc)
            return None
        self.gate.follow(rules)
        self._listen(rules)
        log.info("rules: %d listeners, %d selectors", len(rules.listeners), len(rules.selectors))
        return None

    def _listen(self, rules: DnsRules | None) -> None:
        if rules is not None:
            self._ports = tuple(rules.listeners)
        wanted = {(port, address) for port in self._ports for address in self._options.addresses}
        for key in self._listeners.keys() - wanted:
            for each in self._listeners.pop(key):
                each.close()
        for port, address in sorted(wanted - self._listeners.keys()):
            place = Place(address, port)
            try:
                with contextlib.ExitStack() as made:
                    udp, tcp = (made.enter_context(self._open(place, kind)) for kind in _KINDS)
                    made.pop_all()
            except OSError as exc:
                log.error("listener %s port %d: %s", address, port, exc)
                continue
            self._listeners[port, address] = (
                UdpListener(udp, port, self.gate, self.records, self.flight),
                TcpListener(tcp, port, self.gate, self.records),
            )

    def _open(self, place: Place, kind: int) -> socket.socket:
        return self._opened.pop((place, kind), None) or sockets.listen(place, kind)

    # ---- time

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRE_S)
            self.flight.expire()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._options.sweep_s)
            await self.gate.sweep()


def main() -> int:
    """`python -m mycel.dnsproxy [--state-dir DIR]`. Returns the exit code."""
    options, debug = read_options(None)
    return serve(options, {}, debug=debug)


def serve(options: Options, opened: Opened, *, debug: bool) -> int:
    """The whole process, until a signal."""
    set_up_logs(debug=debug)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket per client and server
    reads = Reads()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(reads)) as runner:
        return runner.run(until_signal(_run(options, opened, reads), "proxy", stopped="rows stay as they are"))


async def _run(options: Options, opened: Opened, reads: Reads) -> None:
    ask = Agent(options.state_dir / "cilium.sock").ask
    await Proxy(options, rows=PinnedNames(options.names), ask=ask, opened=opened, reads=reads).run()


def open_listeners(options: Options) -> Opened:
    """Open the listeners of the rules there are, before there is a proxy: what comes waits for it."""
    opened: Opened = {}
    try:
        rules = read_rules((options.state_dir / "dns-proxy" / "rules.json").read_bytes())
    except (OSError, ValueError):
        return opened  # the proxy says what is wrong
    for place in (Place(address, port) for port in rules.listeners for address in options.addresses):
        for kind in _KINDS:
            with contextlib.suppress(OSError):
                opened[place, kind] = sockets.listen(place, kind)
    return opened


def read_options(arguments: list[str] | None) -> tuple[Options, bool]:
    """What the command line says, and whether to log more."""
    usual = Options()
    parser = argparse.ArgumentParser(prog="cilium-dns-proxy", description="The mesh's DNS proxy of one node.")
    parser.add_argument("--state-dir", type=Path, default=usual.state_dir)
    parser.add_argument("--names", type=Path, default=usual.names, help="the pinned map of addresses with names")
    parser.add_argument("--address", action="append", help="where to listen (default: 192.0.0.8 and 100::8)")
    parser.add_argument("--tofqdns-min-ttl", type=int, default=usual.min_ttl_s, metavar="SECONDS")
    parser.add_argument("--tofqdns-endpoint-max-ip-per-hostname", type=int, default=usual.per_name, metavar="COUNT")
    parser.add_argument("--tofqdns-max-deferred-connection-deletes", type=int, default=usual.put_off, metavar="COUNT")
    parser.add_argument("--tofqdns-dns-reject-response-code", choices=("refused", "nameError"), default="refused")
    parser.add_argument("--debug", action="store_true")
    given = parser.parse_args(arguments)
    refuse = RCode.REFUSED if given.tofqdns_dns_reject_response_code == "refused" else RCode.NXDOMAIN
    options = Options(
        state_dir=given.state_dir,
        names=given.names,
        addresses=tuple(given.address or usual.addresses),
        min_ttl_s=given.tofqdns_min_ttl,
        per_name=given.tofqdns_endpoint_max_ip_per_hostname,
        put_off=given.tofqdns_max_deferred_connection_deletes,
        refuse=refuse,
    )
    return options, given.debug
