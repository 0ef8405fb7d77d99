"""The flow pipeline: events taken in per second, and flows delivered per second to one client.

    python -m bench.flows [--seconds S]

Every row is measured in turns with a peer that does the least anybody could: for intake a numpy group-by over the
same records, for delivery a grpclib stream that sends the same flows one message at a time. Ratios are what counts;
the machine is shared. No root, no cluster; the client is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mycel import abi
from mycel.api import observer_pb2
from mycel.api.observer_grpc import ObserverBase
from mycel.flow.records import Endpoint, Owner, ServiceName, Workload
from mycel.flow.rows import EVENT, Events
from mycel.model.address import Address
from mycel.observe.client import connect
from mycel.observe.pipeline import FlowPipeline
from mycel.observe.server import serve

PODS = 250
PAIRS = 1_000
BURST = 65_536


class Names:
    """A node of 250 pods."""

    version = 1

    def owner(self, address: Address, identity: int, at_ns: int) -> Owner:
        number = int.from_bytes(address[-2:], "big")
        labels = (f"k8s:app=app-{number % 20}", "k8s:io.kubernetes.pod.namespace=bench", "k8s:tier=backend")
        pod = (number, "bench", f"pod-{number}", labels, (Workload("Deployment", "app"),), "default")
        return Owner(Endpoint(1000 + number % 20, *pod), 0)

    def labels(self, identity: int) -> tuple[str, ...]:
        return ()

    def services(self, address: Address) -> dict[tuple[int, int], ServiceName]:
        return {}

    def names(self, address: Address) -> tuple[str, ...]:
        return ()

    def interface(self, ifindex: int) -> str:
        return f"lxc{ifindex}"


def burst(count: int, *, pairs: int = PAIRS) -> Events:
    """Connections between pairs of pods: every event another port, 6 kinds of packets per pair."""
    random = np.random.default_rng(7)
    made = np.zeros(count, EVENT)
    pair = random.integers(0, pairs, count)
    for side in ("source", "destination"):
        pod = random.integers(1, PODS, pairs).astype(np.uint64)[pair]
        made[side]["lo"] = 0xFFFF_0A01_0000 + pod
        made[f"{side}_identity"] = 1000 + (made[side]["lo"] & np.uint64(0xFFFF)) % np.uint64(20)
    made["time_ns"] = np.arange(count)
    made["source_port"] = random.integers(1024, 65_535, count)
    made["destination_port"] = 8080
    made["kind"], made["verdict"] = abi.EventKind.TRACE, abi.Verdict.FORWARDED
    made["protocol"], made["family"], made["direction"] = 6, 4, 2
    made["tcp_flags"] = random.choice([2, 18, 16, 24, 17, 4], count)
    return made


def rate(work: Callable[[], int], seconds: float) -> float:
    """Things done per second of running `work`."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        done += work()
    return done / elapsed


def intake(seconds: float) -> None:
    """Events per second through enrichment, metrics and store."""
    events = burst(BURST)
    pipeline = FlowPipeline(Names(), node_name="bench")

    def subject() -> int:
        pipeline.feed(events)
        return len(events)

    def peer() -> int:
        keys = events["source"]["lo"] * np.uint64(0x9E3779B97F4A7C15) ^ events["destination"]["lo"]
        _, groups = np.unique(keys, return_inverse=True)
        np.bincount(groups)
        return len(events)

    pairs = [(rate(subject, seconds / 3), rate(peer, seconds / 3)) for _ in range(3)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"intake: {ours / 1e6:.2f} M events/s; group-by alone {theirs / 1e6:.2f} M: {ours / theirs:.2f}x")
    assert pipeline.store.head % BURST == 0, "events were lost"


class OneByOne(ObserverBase):
    """What a plain server does: one message, one write."""

    def __init__(self, responses: list[observer_pb2.GetFlowsResponse]) -> None:
        self._responses = responses

    async def GetFlows(self, stream: object) -> None:
        await stream.recv_message()  # type: ignore[attr-defined]
        for response in self._responses:
            await stream.send_message(response)  # type: ignore[attr-defined]

    GetAgentEvents = GetDebugEvents = GetNodes = GetNamespaces = ServerStatus = GetFlows


def read_raw(path: str, counts: multiprocessing.Queue[tuple[int, float]]) -> None:
    """A client that takes HTTP/2 frames apart and counts the gRPC messages in them, as fast as Python can."""
    import h2.connection
    import h2.events

    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    connection.increment_flow_control_window(2**30)
    connection.update_settings({4: 2**30, 5: 2**20})  # window, frame size
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/observer.Observer/GetFlows"), (":authority", "x")]
    connection.send_headers(1, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])
    request = observer_pb2.GetFlowsRequest(number=2**64 - 1).SerializeToString()
    connection.send_data(1, b"\0" + len(request).to_bytes(4, "big") + request, end_stream=True)
    line.sendall(connection.data_to_send())
    rest, flows, start, ended = b"", 0, time.perf_counter(), False
    while not ended and (data := line.recv(1 << 20)):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                rest += event.data
                at = 0
                while len(rest) - at >= 5 and len(rest) - at >= (
                    size := 5 + int.from_bytes(rest[at + 1 : at + 5], "big")
                ):
                    at += size
                    flows += 1
                rest = rest[at:]
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                ended = True
        line.sendall(connection.data_to_send())
    counts.put((flows, time.perf_counter() - start))


async def delivery(*, pairs: int) -> None:
    """Flows per second that one client gets: 65,535 held flows, all of them asked for."""
    from grpclib.server import Server

    pipeline = FlowPipeline(Names(), node_name="bench")
    pipeline.feed(burst(BURST, pairs=pairs))
    spawn = multiprocessing.get_context("spawn")
    counts: multiprocessing.Queue[tuple[int, float]] = spawn.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = str(Path(folder) / "ours"), str(Path(folder) / "plain")
        server = await serve(ours, pipeline.store)
        async with connect(f"unix://{ours}") as client:
            responses = await client.observer.GetFlows(observer_pb2.GetFlowsRequest(number=20_000))
        peer = Server([OneByOne(responses)])
        await peer.start(path=plain)
        rates: dict[str, list[float]] = {ours: [], plain: []}
        for path in [ours, plain] * 3:
            reader = spawn.Process(target=read_raw, args=(path, counts))
            reader.start()
            flows, elapsed = await asyncio.to_thread(counts.get, timeout=60)
            reader.join()
            expected = min(BURST, pipeline.store.capacity) if path == ours else len(responses)
            assert flows == expected, f"{flows} of {expected} flows came"
            rates[path].append(flows / elapsed)
        fast, slow = statistics.median(rates[ours]), statistics.median(rates[plain])
        print(f"delivery, {pairs} pairs of pods: {fast:,.0f} flows/s to one client;", end=" ")
        print(f"one message per write {slow:,.0f}: {fast / slow:.1f}x")
        await server.aclose()
        peer.close()
        await peer.wait_closed()


def main() -> None:
    """Both rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    intake(arguments.seconds)
    asyncio.run(delivery(pairs=PAIRS))
    asyncio.run(delivery(pairs=PODS * PODS))


if __name__ == "__main__":
    main()
