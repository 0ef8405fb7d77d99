"""A client, a node with the proxy, and a resolver: three namespaces in a row.

The node's redirect is done by nftables (tproxy) in place of the datapath's programs; sockets, marks, map and proxy
are those of a node.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import os
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from ipaddress import ip_address
from pathlib import Path

import msgspec

from mycel.abi import IpcacheKey, IpcacheValue
from mycel.datapath import syscall
from mycel.datapath.syscall import MapType
from mycel.kit import dns
from mycel.kit.dns import Message, Question, Type
from mycel.kit.dns_records import address_record
from mycel.model.address import parse_address
from mycel.plan.dns import DnsRules, KnownIdentity, NamesAnswer, NamesRequest, Wanted
from tests.bpf.lab import inside, run
from tests.clusters import eventually

CLIENT, RESOLVER, DEAD = "10.77.1.2", "10.77.2.2", "10.77.2.3"
PORT = 15000
V4 = "0.0.0.0/0"
_NFT = f"""
table ip t {{
  chain p {{
    type filter hook prerouting priority mangle;
    iifname c0 meta l4proto {{ tcp, udp }} th dport 53 tproxy to 192.0.0.8:{PORT} meta mark set 0x200 accept
    iifname s0 meta l4proto {{ tcp, udp }} socket transparent 1 meta mark set 0x200 accept
  }}
}}
"""

Answerer = Callable[[Message, bytes, bool], list[bytes]]
"""Query, its bytes, and whether it came by TCP → what is sent back."""


class Resolver:
    """Answers by a function that tests exchange."""

    def __init__(self, namespace: str) -> None:
        self.asked: list[tuple[str, str]] = []  # client address and name
        self.answer: Answerer = self.usual
        self.records: dict[str, list[str]] = {}
        with inside(namespace):
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind((RESOLVER, 53))
            self._tcp = socket.create_server((RESOLVER, 53))
        for work in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=work, daemon=True).start()

    def usual(self, query: Message, _wire: bytes, _tcp: bool) -> list[bytes]:
        name, kind = query.questions[0].name, query.questions[0].type
        found = self.records.get(name.lower(), ["192.0.2.1", "2001:db8::1"])
        wanted = [text for text in found if (":" in text) == (kind == Type.AAAA)]
        answers = tuple(address_record(name, 60, ip_address(text)) for text in wanted)
        return [dns.serialize(dataclasses.replace(query.reply(), answers=answers))]

    def close(self) -> None:
        for each in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, peer = self._udp.recvfrom(65535)
                if not wire:
                    return
                for found in self._found(wire, peer[0], tcp=False):
                    self._udp.sendto(found, peer)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                made, peer = self._tcp.accept()
                threading.Thread(target=self._one_tcp, args=(made, peer[0]), daemon=True).start()

    def _one_tcp(self, made: socket.socket, peer: str) -> None:
        with made, contextlib.suppress(OSError, struct.error):
            while True:
                (size,) = struct.unpack("!H", made.recv(2, socket.MSG_WAITALL))
                for found in self._found(made.recv(size, socket.MSG_WAITALL), peer, tcp=True):
                    made.sendall(struct.pack("!H", len(found)) + found)

    def _found(self, wire: bytes, peer: str, *, tcp: bool) -> list[bytes]:
        query = dns.parse(wire)
        self.asked.append((peer, query.questions[0].name))
        return self.answer(query, wire, tcp)


class FakeAgent:
    """Gives identities from 0x0100_1000 on; can be away."""

    def __init__(self, path: Path) -> None:
        self.requests: list[NamesRequest] = []
        self.live: set[str] = set()
        self._given: dict[Wanted, int] = {}
        agent = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = msgspec.json.encode(agent.answer(msgspec.json.decode(body, type=NamesRequest)))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

            def address_string(self) -> str:
                return "unix"

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self._server = Server(str(path), Handler)
        self._path = path
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request: NamesRequest) -> NamesAnswer:
        self.requests.append(request)
        numbers = tuple(self._given.setdefault(each, 0x0100_1000 + len(self._given)) for each in request.wanted)
        return NamesAnswer(numbers, tuple(self.live & set(request.live)))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


class Bed:
    """All of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "dns-proxy").mkdir(mode=0o700)
        self._names = [f"dns{os.getpid()}{part}" for part in "cps"]
        self.client_ns, self.node_ns, self.resolver_ns = self._names
        self._bpffs = folder / "bpf"
        self._pin = self._bpffs / "mycel_names"
        self._map = syscall.map_create(MapType.HASH, key_size=16, value_size=24, max_entries=65536, name="mycel_names")
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        client, node, resolver = self._names
        for name in self._names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for name, port, net in ((client, "c0", 1), (resolver, "s0", 2)):
            run("ip", "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", port, "netns", node)
            run("ip", "-n", node, "address", "add", f"10.77.{net}.1/24", "dev", port)
            run("ip", "-n", node, "link", "set", port, "up")
            run("ip", "-n", name, "address", "add", f"10.77.{net}.2/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "route", "add", "default", "via", f"10.77.{net}.1")
        knobs = ("ip_forward=1", "conf.all.rp_filter=0", "conf.c0.rp_filter=0", "conf.s0.rp_filter=0")
        for knob in (*knobs, "ip_local_port_range=16384 60999"):
            run("ip", "netns", "exec", node, "sysctl", "-qw", f"net.ipv4.{knob}")
        run("ip", "-n", node, "rule", "add", "fwmark", "0x200/0xf00", "lookup", "2004")
        run("ip", "-n", node, "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "2004")
        subprocess.run(["ip", "netns", "exec", node, "nft", "-f", "-"], input=_NFT.encode(), check=True)
        self._bpffs.mkdir()
        run("mount", "-t", "bpf", "bpf", str(self._bpffs))
        syscall.pin(self._map, self._pin)
        self.resolver = Resolver(resolver)
        self.agent = FakeAgent(self.folder / "cilium.sock")
        self.write_rules()

    def close(self) -> None:
        self.kill()
        with contextlib.suppress(AttributeError):
            self.resolver.close()
        with contextlib.suppress(AttributeError):
            self.agent.close()
        run("umount", str(self._bpffs), check=False)
        os.close(self._map)
        for name in self._names:
            run("ip", "netns", "delete", name, check=False)

    # ---- the proxy

    def write_rules(self, rules: DnsRules | None = None) -> None:
        known = tuple(
            KnownIdentity(Wanted((selector,), net), 0x0100_0001 + index)
            for index, (selector, net) in enumerate(
                (selector, net) for selector in ("a.test.", "*.wild.test.") for net in (V4, "::/0")
            )
        )
        usual = DnsRules({PORT: ("*.test.", "**.wild.test.")}, ("*.wild.test.", "a.test.", "b.test."), (), known)
        path = self.folder / "dns-proxy" / "rules.json"
        path.with_suffix(".tmp").write_bytes(msgspec.json.encode(rules or usual))
        path.with_suffix(".tmp").rename(path)

    def poke(self) -> None:
        """As the agent does when rules are new."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            made.sendto(b"", str(self.folder / "dns-proxy" / "poke.sock"))

    def run_proxy(self) -> None:
        """The proxy by itself."""
        self._run("mycel.dnsproxy")

    def run_supervised(self) -> None:
        """The container's first process, which keeps it running."""
        groups = self.folder / "groups"
        groups.mkdir(exist_ok=True)
        self._run("mycel.dnsproxy.supervise", "--cgroup-root", str(groups))

    def worker(self) -> int:
        """The process id of the one that is kept running; 0: there is none."""
        assert self._process
        pid = self._process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(found[0]) if found else 0

    def _run(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, "--state-dir", str(self.folder), "--names", str(self._pin)]
        with (self.folder / "proxy.log").open("ab") as log:
            # not by `ip netns exec`: that unmounts bpffs
            enter = [shutil.which("nsenter") or "nsenter", f"--net=/run/netns/{self.node_ns}"]
            self._process = subprocess.Popen(
                [*enter, *command, "--address", "192.0.0.8", *arguments], stdout=log, stderr=subprocess.STDOUT
            )
        if arguments:  # a control group it can find itself in
            Path(arguments[-1], "cgroup.procs").write_text(f"{self._process.pid}\n")
        listening = ("ip", "netns", "exec", self.node_ns, "ss", "-Hlnt")
        eventually(lambda: f"192.0.0.8:{PORT}" in run(*listening, check=False), what=f"a proxy; see {self.folder}")

    def log(self) -> str:
        return (self.folder / "proxy.log").read_text()

    def kill(self) -> None:
        if self._process is not None:
            worker = self.worker()
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            if worker:
                os.kill(worker, signal.SIGKILL)
            self._process = None

    # ---- the client

    @contextlib.contextmanager
    def client(self, server: str = RESOLVER, kind: int = socket.SOCK_DGRAM) -> Generator[socket.socket]:
        with inside(self.client_ns):
            made = socket.socket(socket.AF_INET, kind)
        with made:
            made.settimeout(30)
            made.connect((server, 53))
            yield made

    def ask(self, name: str, kind: int = Type.A, *, server: str = RESOLVER, tcp: bool = False) -> Message:
        query = Message(4711, dns.Flag.RD, questions=(Question(name, kind),), edns=dns.Edns())
        return dns.parse(self.exchange(dns.serialize(query), server=server, tcp=tcp))

    def exchange(self, wire: bytes, *, server: str = RESOLVER, tcp: bool = False) -> bytes:
        with self.client(server, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as made:
            if not tcp:
                made.send(wire)
                return made.recv(65535)
            made.sendall(struct.pack("!H", len(wire)) + wire)
            with made.makefile("rb") as answer:  # MSG_WAITALL does not wait on a socket with a timeout
                (size,) = struct.unpack("!H", answer.read(2))
                return answer.read(size)

    # ---- the map

    def identity(self, address: str) -> int | None:
        raw = syscall.map_lookup(self._map, IpcacheKey(parse_address(address)).pack(), IpcacheValue.SIZE)
        return None if raw is None else IpcacheValue.unpack(raw).identity
