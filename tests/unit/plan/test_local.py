"""Rows kept from plan to plan are those made at once."""

from __future__ import annotations

import random
from dataclasses import replace

from mycel.model.address import parse_address
from mycel.model.workload import EndpointId, IdentityId, LocalEndpoint, PodRef
from mycel.plan import rows
from mycel.plan.local import LocalRows
from mycel.plan.rows import EndpointPolicy, ThisNode

NODES = [ThisNode("n1", (parse_address(f"172.18.0.{at}"),), (parse_address("10.244.0.1"),), ()) for at in (2, 3)]


def _pod(number: int, chance: random.Random) -> LocalEndpoint:
    """A pod; one address in ten is also another's, or the router's."""
    address = parse_address(f"10.244.0.{chance.choice([1, 2, number + 10]) if chance.random() < 0.1 else number + 10}")
    return LocalEndpoint(
        PodRef("ns", f"p{number}"), "u", "c", EndpointId(number), (address,), "lxc", chance.choice([number, 7]),
        bytes(6), bytes(6), "eth0", identity=IdentityId(chance.choice([0, 300, 301])),
    )  # fmt: skip


def test_rows_are_those_made_at_once() -> None:
    """After any changes of pods, their policies and the node."""
    chance = random.Random(7)
    kept, node = LocalRows(), NODES[0]
    pods: dict[int, LocalEndpoint] = {}
    policies: dict[EndpointId, EndpointPolicy] = {}
    for _ in range(400):
        number = chance.randrange(1, 12)
        match chance.randrange(6):
            case 0:
                pods.pop(number, None)
            case 1:
                pods[number] = _pod(number, chance)
            case 2 if number in pods:
                pods[number] = replace(pods[number], identity=IdentityId(chance.choice([0, 302])))
            case 3:
                policies[EndpointId(number)] = EndpointPolicy(chance.randrange(3), chance.randrange(3), 5)
            case 4:
                policies.pop(EndpointId(number), None)
            case _:
                node = chance.choice(NODES)
        said = None if chance.random() < 0.1 else policies
        kept.update(node, pods.values(), said)
        values = rows.endpoint_values(pods.values(), said)
        assert kept.endpoints == rows.endpoint_rows(node, values)
        assert kept.interfaces == rows.interface_rows(values)


def test_what_did_not_change_stays_the_object_it_was() -> None:
    """Who compares plans sees at once that nothing changed."""
    pods = [
        replace(_pod(number, random.Random(1)), addresses=(parse_address(f"10.0.0.{number}"),)) for number in (1, 2)
    ]
    pods = [replace(pod, ifindex=pod.endpoint_id) for pod in pods]
    kept, policies = LocalRows(), {EndpointId(1): EndpointPolicy(), EndpointId(2): EndpointPolicy()}
    kept.update(NODES[0], pods, policies)
    before = kept.endpoints, kept.interfaces
    kept.update(NODES[0], pods, dict(policies))
    assert (kept.endpoints, kept.interfaces) == before
    assert kept.endpoints is before[0] and kept.interfaces is before[1]
    kept.update(NODES[0], pods, policies | {EndpointId(2): EndpointPolicy(4, 0, 2)})
    changed = [key for key, value in kept.interfaces.items() if value is not before[1][key]]
    assert [key.ifindex for key in changed] == [2]
