"""The DNS proxy: queries per second and latency, beside the same resolver asked directly and by a bare relay.

    python -m bench.dns [--seconds S] [--pairs N] [--shielded]

All take turns in one run. Latency is measured beside the direct way, question by question: load, resolver and proxy
share the machine, and what is away for a millisecond is so for both. What counts is the difference of their tails.
The proxy is measured without flows, and with: then somebody takes its records, as an agent does. `--shielded` gives
all processes of the run, resolver and load too, real-time priority, so that others of the machine do not count. Needs
root: it makes the namespaces of tests/dnsproxy, where a redirect by nftables stands for the datapath's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import select
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from bench.measure import interval
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
    """`rate`: answers a second with a full window. Latencies: microseconds, at RATE questions a second of each way."""

    rate: float
    p50_us: float
    p99_us: float
    lost: int
    beside_us: float  # p99 of the direct way in the same second


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


def taker(path: str, ready: Connection) -> None:
    """Takes records of questions and answers, and does nothing with them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(path)
        ready.send(True)
        while True:
            made.recv(65536)


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


class Tail(NamedTuple):
    """Of one way in one second, in microseconds."""

    p50_us: float
    p99_us: float
    lost: int


def latency(ways: Sequence[socket.socket], seconds: float) -> list[Tail]:
    """Of each way, at RATE questions a second of each: one to the first, one to the second, and so on."""
    sent: list[dict[bytes, float]] = [{} for _ in ways]
    taken: list[list[float]] = [[] for _ in ways]
    places = {made.fileno(): place for place, made in enumerate(ways)}
    for made in ways:
        made.setblocking(False)
    start, rate = time.perf_counter(), RATE * len(ways)
    count, total = 0, int(rate * seconds)
    while count < total or (any(sent) and time.perf_counter() < start + seconds + 0.5):
        now = time.perf_counter()
        if count < total and now >= start + count / rate:
            number, place = divmod(count, len(ways))
            name = (number & 0xFFFF).to_bytes(2, "big")
            sent[place][name] = time.perf_counter()
            ways[place].send(name + _QUERIES[number % NAMES])
            count += 1
            continue
        wait_s = start + count / rate - now if count < total else 0.05
        for made in select.select(ways, (), (), max(0.0, wait_s))[0]:
            place = places[made.fileno()]
            began = sent[place].pop(made.recv(4096)[:2], None)
            if began is not None:
                taken[place].append(time.perf_counter() - began)
    for made in ways:
        drain(made)
    cuts = [statistics.quantiles(each, n=100) for each in taken]
    return [Tail(cut[49] * 1e6, cut[98] * 1e6, len(left)) for cut, left in zip(cuts, sent, strict=True)]


def drain(made: socket.socket) -> None:
    """Take what is still coming."""
    made.settimeout(0.2)
    try:
        while True:
            made.recv(4096)
    except TimeoutError:
        return


def measure(bed: Bed, places: Mapping[str, tuple[str, int]], *, seconds: float, pairs: int) -> dict[str, list[Round]]:
    """All of them in turns (ABBA…)."""
    found: dict[str, list[Round]] = {name: [] for name in places}
    for turn in range(pairs):
        for name in list(places)[:: 1 if turn % 2 == 0 else -1]:
            with bound(bed.client_ns, None) as made, bound(bed.client_ns, None) as direct:
                made.connect(places[name])
                direct.connect(places["direct"])
                rate = throughput(made, seconds)
                tail, beside = latency((made, direct), seconds)
                found[name].append(Round(rate, *tail, beside.p99_us))
    return found


def told(found: dict[str, list[Round]]) -> dict[str, object]:
    """Medians of all, and what each turn adds to the direct way."""
    direct = found["direct"]
    out: dict[str, object] = {}
    for name, rounds in found.items():
        rates, p50s, p99s, losses, _ = zip(*rounds, strict=True)
        out[name] = row = {
            "answers_per_s": round(statistics.median(rates)),
            "p50_us": round(statistics.median(p50s)),
            "p99_us": round(statistics.median(p99s)),
            "p99_us_least_and_most": [round(min(p99s)), round(max(p99s))],
            "lost": sum(losses),
        }
        if name != "direct":
            added = [each.p99_us - each.beside_us for each in rounds]
            row["rate_of_direct"] = round(
                statistics.median(mine.rate / its.rate for mine, its in zip(rounds, direct, strict=True)), 2
            )
            row["added_p99_us"] = round(statistics.median(added))
            row["added_p99_us_95"] = [round(each) for each in interval(added)]
            row["added_p99_us_least_and_most"] = [round(min(added)), round(max(added))]
    return out


def bench(*, seconds: float, pairs: int) -> dict[str, object]:
    """Both blocks: without flows, and with."""
    with tempfile.TemporaryDirectory() as folder:
        bed = Bed(Path(folder))
        processes: list[BaseProcess] = []
        spawn = multiprocessing.get_context("spawn")

        def start(work: Callable[[str, Connection], None], where: str) -> None:
            mine, theirs = spawn.Pipe()
            process = spawn.Process(target=work, args=(where, theirs), daemon=True)
            process.start()
            processes.append(process)
            mine.recv()

        try:
            bed.start()
            bed.resolver.close()
            start(resolver, bed.resolver_ns)
            start(relay, bed.node_ns)
            bed.run_proxy()
            run("ip", "netns", "exec", bed.client_ns, "ping", "-c1", "-W2", RESOLVER)
            places = {"direct": DIRECT, "relay": RELAY, "proxy": PROXY}
            quiet = measure(bed, places, seconds=seconds, pairs=pairs)
            start(taker, f"{folder}/l7-records.sock")
            time.sleep(1.5)  # the proxy looks once a second
            places.pop("relay")
            return {
                "without flows": told(quiet),
                "with flows": told(measure(bed, places, seconds=seconds, pairs=pairs)),
            }
        finally:
            for process in processes:
                process.terminate()
            bed.close()


@contextlib.contextmanager
def shielded() -> Generator[None]:
    """What is started meanwhile has real-time priority, and does not wait for others of the machine."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def bench_dns(results: dict[str, object]) -> None:
    """The row "dns" of `make bench`: on the machine as it is, and shielded from it."""
    for how, shield in (("", contextlib.nullcontext), (", shielded", shielded)):
        with shield():
            for title, found in bench(seconds=1.0, pairs=9).items():
                results[f"DNS proxy {title}{how}"] = found
                print(f"DNS proxy {title}{how}: {json.dumps(found)}", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--shielded", action="store_true", help="real-time priority for all of it")
    options = parser.parse_args()
    with shielded() if options.shielded else contextlib.nullcontext():
        print(json.dumps(bench(seconds=options.seconds, pairs=options.pairs), indent=2))


if __name__ == "__main__":
    main()
