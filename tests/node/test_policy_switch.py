"""Policies change under traffic, agents die meanwhile, addresses change hands: no packet sees anything in between.

The real agent with a real API server on a bare node; every datagram is numbered, so none is judged unseen.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import pytest

from mycel.cni import plugin
from mycel.k8s.errors import Conflict, NotFound
from mycel.k8s.resources import CILIUM_NETWORK_POLICIES
from tests.clusters import eventually
from tests.node.bare_node import World, bare_node
from tests.node.datagrams import Receiver, Sender, traffic

pytestmark = pytest.mark.root

PORTS = tuple(range(7001, 7009))
POLICY = "switch"


class Held(NamedTuple):
    """From when to when exactly these ports were open; between two of them it is either's."""

    since_s: float
    until_s: float
    open: frozenset[int]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("a node needs root")
    with bare_node(tmp_path_factory.mktemp("switch")) as made:
        yield made


@pytest.fixture(scope="module")
def pods(world: World) -> tuple[str, str, str]:
    """Namespaces of client and server, and the server's address."""
    client, _ = world.add_pod("client")
    server, address = world.add_pod("server")
    return client, server, address


def policy(random: Random) -> tuple[dict[str, Any], frozenset[int]]:
    """A policy for the server, and the ports it leaves open to the client."""
    allowed = frozenset(random.sample(PORTS, random.randint(0, len(PORTS))))
    denied = frozenset(random.sample(PORTS, random.randint(0, 2)))
    entries = [{"fromEndpoints": [{"matchLabels": {"name": "client"}}], **_ports(allowed)}] if allowed else [{}]
    spec: dict[str, Any] = {"endpointSelector": {"matchLabels": {"name": "server"}}, "ingress": entries}
    if denied:
        spec["ingressDeny"] = [{"fromEntities": ["all"], **_ports(denied)}]
    by_default = random.random() < 0.25
    if by_default:  # nothing is closed but what is denied
        spec["enableDefaultDeny"] = {"ingress": False}
    return spec, (frozenset(PORTS) if by_default else allowed) - denied


def _ports(numbers: frozenset[int]) -> dict[str, Any]:
    return {"toPorts": [{"ports": [{"port": str(number), "protocol": "UDP"} for number in sorted(numbers)]}]}


def write(world: World, spec: dict[str, Any]) -> int:
    """Create or replace the policy; its generation."""

    async def put(client: Any) -> dict[str, Any]:
        metadata = {"name": POLICY, "namespace": "default"}
        while True:
            try:
                known = await client.get(CILIUM_NETWORK_POLICIES, POLICY, namespace="default")
                return await client.replace(CILIUM_NETWORK_POLICIES, {"metadata": known["metadata"], "spec": spec})
            except NotFound:
                return await client.create(CILIUM_NETWORK_POLICIES, {"metadata": metadata, "spec": spec})
            except Conflict:  # the agent has written its status meanwhile
                continue

    return world.api(put)["metadata"]["generation"]


def is_realized(world: World, generation: int) -> bool:
    """Whether the agent says that the kernel answers by this generation of the policy."""
    try:
        said = plugin.call(str(world.run_dir), "GET", "/v1/policy", {}, 5)
    except (OSError, plugin.Failed):
        return False  # it is being killed, or starts
    listed = [
        each for each in plugin.read_json(f'{{"policies": {said["policy"]}}}')["policies"] if each["name"] == POLICY
    ]
    return any(each["generation"] == generation and 0 < each["revision"] <= said["revision"] for each in listed)


def switch(world: World, random: Random, times: int, *, kills: int = 0) -> list[Held]:
    """Change the policy that often; when each was in force."""
    kill_at = set(random.sample(range(times), kills))
    held: list[Held] = []
    since, open_ports = time.monotonic(), frozenset(PORTS)
    for number in range(times):
        spec, next_open = policy(random)
        until = time.monotonic()
        restart = threading.Thread(target=_kill, args=(world, random.random() * 0.1))
        if number in kill_at:
            restart.start()
        generation = write(world, spec)
        if number in kill_at:
            restart.join()
        eventually(lambda g=generation: is_realized(world, g), what=f"switch {number}")
        held.append(Held(since, until, open_ports))
        since, open_ports = time.monotonic(), next_open
        time.sleep(0.02)
    return [*held, Held(since, time.monotonic(), open_ports)]


def _kill(world: World, after_s: float) -> None:
    time.sleep(after_s)
    world.kill_agent()
    world.spawn_agent()


def judge(held: list[Held], sender: Sender, receiver: Receiver) -> dict[str, int]:
    """Compare every datagram with what was in force when it was sent. Fails at the first that differs."""
    seen = {"delivered": 0, "dropped": 0, "between": 0}
    place = 0
    for each in sender.sent:
        while place + 1 < len(held) and each.at_s > held[place + 1].since_s:
            place += 1
        came = each.number in receiver.numbers
        here = held[place]
        if each.at_s < here.since_s or each.done_s > held[-1].until_s:
            continue
        possible = {each.port in here.open}
        if each.done_s > here.until_s and place + 1 < len(held):
            possible.add(each.port in held[place + 1].open)
        seen["between"] += len(possible) == 2
        assert came in possible, (
            f"datagram {each} was {'delivered' if came else 'dropped'}: {here}, then {held[place + 1 : place + 2]}"
        )
        seen["delivered" if came else "dropped"] += 1
    return seen


@pytest.mark.parametrize(
    ("times", "kills"),
    [
        pytest.param(100, 0, id="switches"),
        pytest.param(20, 10, id="agents-killed"),
        pytest.param(500, 0, id="many", marks=pytest.mark.long),
    ],
)
def test_every_verdict_is_the_old_policys_or_the_new_ones(
    world: World, pods: tuple[str, str, str], times: int, kills: int
) -> None:
    seed = int(os.environ.get("MYCEL_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}")
    client, server, address = pods
    with world.no_policy(POLICY), traffic(client, server, address, PORTS) as (sender, receiver):
        held = switch(world, Random(seed), times, kills=kills)
    seen = judge(held, sender, receiver)
    took = sorted(after.since_s - before.until_s for before, after in itertools.pairwise(held))
    print(seen, f"API write to realized: median {took[len(took) // 2]:.3f} s, slowest {took[-1]:.3f} s")
    assert seen["delivered"] > 100
    assert seen["dropped"] > 100
