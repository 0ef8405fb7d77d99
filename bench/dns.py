"""The DNS proxy: queries per second and latency, beside the same resolver asked directly and by a bare relay.

    python -m bench.dns [--seconds S] [--rounds N]

All three take turns in one run; ratios are what counts, as load, resolver and proxy share the machine. Needs root: it
makes the namespaces of tests/dnsproxy, where a redirect by nftables stands for the datapath's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import select
import socket
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from mycel.kit import dns
from mycel.kit.dns import Message, Question, Type
from tests.bpf.lab import inside, run
from tests.dnsproxy.bed import RESOLVER, Bed

NAMES = 200
WINDOW = 64  # questions on their way when as many as possible are wanted
RATE = 5_000  # questions a second where latency is measured
DIRECT = (RESOLVER, 5300)
RELAY = ("10.77.1.1", 5301)
PROXY = (RESOLVER, 53)
_FORCE = 33  # SO_RCVBUFFORCE
_QUERIES = [
    dns.serialize(Message(0, dns.Flag.RD, questions=(Question(f"n{number}.wild.test.", Type.A),), edns=dns.Edns()))[2:]
    for number in range(NAMES)
]


class Round(NamedTuple):
    """`rate`: answers a second with a full window. Latencies in microseconds, at RATE questions a second."""

    rate: float
    p50_us: float
    p99_us: float
    lost: int


def bound(namespace: str, place: tuple[str, int] | None) -> socket.socket:
    """A UDP socket in a namespace, with a large buffer."""
    with inside(namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, _FORCE, 4 << 20)
    if place is not None:
        made.bind(place)
    return made


def resolver(namespace: str, ready: Connection) -> None:
    """One address for every question, at both of its ports."""
    sockets = [bound(namespace, place) for place in (PROXY, DIRECT)]
    for each in sockets:
        each.setblocking(False)
    ready.send(True)
    record = bytes.fromhex("c00c000100010000003c0004c6336401")
    while True:
        for each in select.select(sockets, (), ())[0]:
            for _ in range(64):
                try:
                    wire, peer = each.recvfrom(4096)
                except BlockingIOError:
                    break
                end = wire.index(0, 12) + 5
                head = wire[:2] + b"\x81\x80\0\1\0\1\0\0\0\1"
                each.sendto(head + wire[12:end] + record + wire[end:], peer)


def relay(namespace: str, ready: Connection) -> None:
    """The least a relay can do: one client, bytes there and back."""
    front, back = bound(namespace, RELAY), bound(namespace, None)
    back.connect(DIRECT)
    front.setblocking(False)
    back.setblocking(False)
    client: tuple[str, int] = ("", 0)
    ready.send(True)
    while True:
        for each in select.select((front, back), (), ())[0]:
            for _ in range(64):
                try:
                    if each is front:
                        wire, client = front.recvfrom(4096)
                        back.send(wire)
                    else:
                        front.sendto(back.recv(4096), client)
                except BlockingIOError:
                    break


def throughput(made: socket.socket, seconds: float) -> float:
    """Answers a second with WINDOW questions on their way."""
    made.settimeout(0.5)
    number = answers = 0
    for number in range(WINDOW):
        made.send(number.to_bytes(2, "big") + _QUERIES[number % NAMES])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        try:
            made.recv(4096)
            answers += 1
        except TimeoutError:
            pass
        number = (number + 1) & 0xFFFF
        made.send(number.to_bytes(2, "big") + _QUERIES[number % NAMES])
    drain(made)
    return answers / seconds


def latency(made: socket.socket, seconds: float) -> tuple[float, float, int]:
    """p50 and p99 in microseconds, and losses, at RATE questions a second."""
    made.setblocking(False)
    sent: dict[bytes, float] = {}
    taken: list[float] = []
    start = time.perf_counter()
    count, total = 0, int(RATE * seconds)
    while count < total or (sent and time.perf_counter() < start + seconds + 0.5):
        now = time.perf_counter()
        if count < total and now >= start + count / RATE:
            number = (count & 0xFFFF).to_bytes(2, "big")
            sent[number] = time.perf_counter()
            made.send(number + _QUERIES[count % NAMES])
            count += 1
            continue
        wait_s = start + count / RATE - now if count < total else 0.05
        if not select.select((made,), (), (), max(0.0, wait_s))[0]:
            continue
        began = sent.pop(made.recv(4096)[:2], None)
        if began is not None:
            taken.append(time.perf_counter() - began)
    drain(made)
    cuts = statistics.quantiles(taken, n=100)
    return cuts[49] * 1e6, cuts[98] * 1e6, len(sent)


def drain(made: socket.socket) -> None:
    """Take what is still coming."""
    made.settimeout(0.2)
    try:
        while True:
            made.recv(4096)
    except TimeoutError:
        return


def measure(bed: Bed, *, seconds: float, rounds: int) -> dict[str, list[Round]]:
    """All three, in turns."""
    found: dict[str, list[Round]] = {"direct": [], "relay": [], "proxy": []}
    for _ in range(rounds):
        for name, place in (("direct", DIRECT), ("relay", RELAY), ("proxy", PROXY)):
            with bound(bed.client_ns, None) as made:
                made.connect(place)
                rate = throughput(made, seconds)
                found[name].append(Round(rate, *latency(made, seconds)))
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bed = Bed(Path(folder))
        processes: list[BaseProcess] = []
        try:
            bed.start()
            bed.resolver.close()
            spawn = multiprocessing.get_context("spawn")
            for work, namespace in ((resolver, bed.resolver_ns), (relay, bed.node_ns)):
                mine, theirs = spawn.Pipe()
                process = spawn.Process(target=work, args=(namespace, theirs), daemon=True)
                process.start()
                processes.append(process)
                mine.recv()
            bed.run_proxy()
            run("ip", "netns", "exec", bed.client_ns, "ping", "-c1", "-W2", RESOLVER)
            found = measure(bed, seconds=options.seconds, rounds=options.rounds)
        finally:
            for process in processes:
                process.terminate()
            bed.close()
    best = {
        name: Round(*(pick(each) for pick, each in zip((max, min, min, max), zip(*of, strict=True), strict=True)))
        for name, of in found.items()
    }
    ratio = {name: round(best[name].rate / best["direct"].rate, 2) for name in ("relay", "proxy")}
    print(
        json.dumps({"best": {name: each._asdict() for name, each in best.items()}, "rate_to_direct": ratio}, indent=2)
    )


if __name__ == "__main__":
    main()
