"""Addresses change hands a thousand times under traffic: nobody is ever taken for who had the address before.

The real agent with a real API server on a bare node whose pod network is so small that every pod gets an address that
another one has just given back. Friends may speak to the server, strangers may neither speak nor be answered, and no
flow has the name of a pod that did not have the address at that time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from mycel.api import flow_pb2, observer_pb2
from mycel.cni import plugin
from mycel.k8s.client import ApiClient
from mycel.k8s.resources import CILIUM_NETWORK_POLICIES, PODS
from mycel.observe.client import connect
from tests.bpf.lab import inside
from tests.clusters import eventually
from tests.node.bare_node import NAME, World, bare_node

pytestmark = pytest.mark.root

NETWORK = "10.244.91.0/29"  # of its addresses one is the server's, one the ingress's, three are for the others
OTHERS = 3
SERVER_PORT, CLIENT_PORT = 7000, 5000
_TURN = struct.Struct("!Q")


class Turn(NamedTuple):
    """One pod: its number, whether it is a friend, and how it fared."""

    number: int
    friend: bool
    address: str
    answered: bool
    since_s: float
    wired: tuple[int, int]  # outer bounds: ADD began, DEL was done (CLOCK_REALTIME, ns)


class Server:
    """Keeps the numbers of turns it heard of, and goes on answering every address it ever heard from."""

    def __init__(self, namespace: str) -> None:
        self.heard: set[int] = set()
        self._answered: set[tuple[str, int]] = set()
        self._stop = threading.Event()
        with inside(namespace):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("", SERVER_PORT))
        self._socket.settimeout(0.002)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                data, peer = self._socket.recvfrom(64)
                self.heard.add(_TURN.unpack(data)[0])
                self._answered.add(peer)
            for peer in list(self._answered):
                with contextlib.suppress(OSError):  # nobody is there now
                    self._socket.sendto(b"an answer", peer)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("a node needs root")
    settings = {"hubble-event-buffer-capacity": "65535"}
    with bare_node(tmp_path_factory.mktemp("reuse"), pod_network=NETWORK, settings=settings) as made:
        yield made


def closed_to_strangers() -> list[dict[str, Any]]:
    """The server hears friends; a stranger's own policy lets nobody in."""
    friends = [{"fromEndpoints": [{"matchLabels": {"role": "friend"}}]}]
    return [
        {"metadata": {"name": name, "namespace": "default"}, "spec": {"endpointSelector": selector, "ingress": rules}}
        for name, selector, rules in (
            ("server", {"matchLabels": {"name": "server"}}, friends),
            ("strangers", {"matchLabels": {"role": "stranger"}}, [{}]),
        )
    ]


def wire(world: World, command: str, pod: str, namespace: str) -> dict[str, Any]:
    """The plugin's own ADD or DEL, without a process for it."""
    config = {"cniVersion": "1.0.0", "name": "cilium", "type": "cilium-cni", "run-dir": str(world.run_dir)}
    environment = {
        "CNI_CONTAINERID": f"container-{pod}",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": f"/run/netns/{namespace}",
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}",
    }
    return plugin.run(command, config, environment) or {}


def take_turn(world: World, server: Server, number: int, namespace: str) -> Turn:
    """A pod comes, speaks with the ports of all before it, listens, and goes."""
    pod, friend = f"turn-{number}", role(number) == "friend"
    begun_ns = time.time_ns()
    made = wire(world, "ADD", pod, namespace)
    since_s = time.monotonic()
    try:
        with inside(namespace):
            speaking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with speaking:
            speaking.bind(("", CLIENT_PORT))
            speaking.settimeout(60.0 if friend else 0.03)
            speaking.sendto(_TURN.pack(number), (SERVER_ADDRESS, SERVER_PORT))
            answered = False
            with contextlib.suppress(TimeoutError):
                answered = bool(speaking.recv(64))
            if friend:  # answers to those before it may be quicker than its own question
                eventually(lambda: number in server.heard, what=f"{pod}'s datagram")
    finally:
        wire(world, "DEL", pod, namespace)
    return Turn(number, friend, _address(made), answered, since_s, (begun_ns, time.time_ns()))


def _address(made: dict[str, Any]) -> str:
    return made["ips"][0]["address"].partition("/")[0]


def flows(world: World) -> list[flow_pb2.Flow]:
    """What the node's Observer has."""

    async def ask() -> list[flow_pb2.Flow]:
        async with connect(f"unix://{world.run_dir}/hubble.sock") as client:
            request = observer_pb2.GetFlowsRequest(number=65_535)
            answers = await client.observer.GetFlows(request)
            return [each.flow for each in answers if each.HasField("flow")]

    return asyncio.run(ask())


def check_names(found: list[flow_pb2.Flow], turns: list[Turn]) -> None:
    """Every name is that of a pod which had the address then. Nearly all are named: a friend may go on with what is
    left of a conversation of before, of which no event tells.
    """
    by_name = {f"turn-{turn.number}": turn for turn in turns}
    named: set[int] = set()
    wrong: list[str] = []
    for flow in found:
        at_ns = flow.time.ToNanoseconds()
        for end, address in ((flow.source, flow.IP.source), (flow.destination, flow.IP.destination)):
            if end.pod_name not in by_name:
                assert end.pod_name in ("", "server")
                continue
            turn = by_name[end.pod_name]
            named.add(turn.number)
            began, ended = turn.wired
            if address != turn.address or not began <= at_ns <= ended:
                wrong.append(
                    f"{end.pod_name} at {turn.address} {(at_ns - began) / 1e6:+.3f} {(at_ns - ended) / 1e6:+.3f} ms"
                )
    print(f"{len(found)} flows, {len(named)} pods named, {len(wrong)} wrong")
    assert wrong == []
    oldest_ns = min(flow.time.ToNanoseconds() for flow in found)
    told = {turn.number for turn in turns if turn.wired[0] > oldest_ns}
    assert len(told) > 20
    assert len(told & named) > len(told) * 0.9


SERVER_ADDRESS = "10.244.91.2"


async def announce(client: ApiClient, numbers: range) -> None:
    """The pods of some turns, in the API: all friends share one identity, and so do all strangers."""
    for number in numbers:
        metadata = {"name": f"turn-{number}", "namespace": "default", "labels": {"role": role(number)}}
        await client.create(PODS, {"metadata": metadata, "spec": {"nodeName": NAME, "containers": [CONTAINER]}})


async def withdraw(client: ApiClient, numbers: range) -> None:
    """Their pods are gone."""
    for number in numbers:
        await client.delete(PODS, f"turn-{number}", namespace="default", grace_period_s=0)


CONTAINER = {"name": "c", "image": "pause"}


def role(number: int) -> str:
    """Alternating, so that addresses go from friends to strangers and back."""
    return "friend" if number // OTHERS % 2 == 0 else "stranger"


@pytest.mark.parametrize("times", [1000, pytest.param(5000, marks=pytest.mark.long)])
def test_nobody_is_taken_for_who_had_the_address_before(world: World, times: int) -> None:
    namespace, address = world.add_pod("server")
    assert address == SERVER_ADDRESS
    rooms = [world.bed.namespace(f"room{number}") for number in range(OTHERS)]

    async def enforce(client: ApiClient) -> None:
        for each in closed_to_strangers():
            await client.create(CILIUM_NETWORK_POLICIES, each)

    world.api(enforce)
    server = Server(namespace)
    turns: list[Turn] = []
    started = time.monotonic()

    def stay(numbers: range, room: int) -> list[Turn]:
        return [take_turn(world, server, number, rooms[room]) for number in numbers]

    try:
        with ThreadPoolExecutor(OTHERS) as pool:
            for first in range(0, times, 100):
                numbers = range(first, first + 100)
                world.api(lambda client, numbers=numbers: announce(client, numbers))
                for done in pool.map(lambda room, numbers=numbers: stay(numbers[room::OTHERS], room), range(OTHERS)):
                    turns += done
                world.api(lambda client, numbers=numbers: withdraw(client, numbers))
    finally:
        server.close()
    print(f"{times} turns in {time.monotonic() - started:.1f} s")
    check_names(flows(world), turns)
    strangers, friends = ([turn for turn in turns if turn.friend is kind] for kind in (False, True))
    assert [turn for turn in strangers if turn.number in server.heard or turn.answered] == []
    assert [turn for turn in friends if turn.number not in server.heard or not turn.answered] == []
    for address in {turn.address for turn in turns}:
        owners = [each.friend for each in sorted(turns, key=lambda turn: turn.since_s) if each.address == address]
        assert len(owners) > times // 8
        assert sum(before and not after for before, after in itertools.pairwise(owners)) > times // 80
