"""T2: what policies really let pass between pods, packet by packet, is what the model says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import yaml

from tests.clusters import Cluster as Machine
from tests.clusters import eventually, kind_file
from tests.oracle.generate import NAMESPACES, NODES, Options, State, state
from tests.oracle.packets import WORLD, Cell, Outside, Prober, cells, deployable, expected, probe
from tests.oracle.parties import Object

pytestmark = pytest.mark.cluster

FIRST_SEED = int(os.environ.get("MYCEL_ORACLE_SEED", "1"))
CI_STATES, LONG_STATES = 25, 200
SETTLED_S = 120.0
READ = ("namespaces", "nodes", "pods", "services", "endpointslices", "ciliumcidrgroups", "configmaps")


class Field(NamedTuple):
    """The pods that probe and the cluster they live in, as its API server tells it."""

    machine: Machine
    outside: Outside
    probers: list[Prober]
    addresses: dict[str, str]
    objects: list[Object]
    asked: list[Cell]


@pytest.fixture(scope="module")
def field(make_cluster: Callable[[str], Machine]) -> Iterator[Field]:
    """Nine pods in three namespaces on two nodes, one on each node's own network, two ends outside of the cluster."""
    machine = make_cluster("oracle")
    machine.create(kind_file(workers=1))
    # No listener of Envoy's: what needs one is closed, and a connection says nothing of requests anyway.
    machine.mycel("install", "--config", "enable-l7-proxy=false", "--wait")
    planted = _plant(machine)
    objects = [found for kind in READ for found in _read(machine, kind)]
    addresses = {
        f"{found['metadata']['namespace']}/{found['metadata']['name']}": found["status"]["podIP"]
        for found in objects
        if found["kind"] == "Pod" and found["metadata"]["namespace"] in NAMESPACES
    }
    assert set(addresses) == set(planted)
    outside = Outside(machine, 2)
    probers: list[Prober] = []
    try:
        probers += [Prober.in_pod(machine, pod) for pod in planted]
        everybody = [*probers, *outside.probers]
        addresses |= {prober.name: prober.name.removeprefix(WORLD) for prober in outside.probers}
        asked = cells(objects, [prober.name for prober in everybody])
        yield Field(machine, outside, everybody, addresses, objects, asked)
    finally:
        for prober in probers:
            prober.close()
        outside.close()


def _read(machine: Machine, kind: str) -> list[Object]:
    where = ("-n", "kube-system") if kind == "configmaps" else ("-A",)
    return machine.get(kind, *where)["items"]


def _plant(machine: Machine) -> list[str]:
    """Make the pods of the generated cluster; returns their names once they run."""
    masters = [name for name in machine.nodes if "control-plane" in name]
    workers = [name for name in machine.nodes if name not in masters]
    objects = deployable(state(FIRST_SEED).objects, dict(zip(NODES, [*masters, *workers], strict=True)))
    pods = [found for found in objects if found["kind"] == "Pod"]
    proxy = next(found for found in pods if found["spec"].get("hostNetwork"))
    twin = yaml.safe_load(yaml.safe_dump(proxy))
    twin["metadata"]["name"] = "proxy-n1"
    twin["spec"]["nodeName"] = masters[0]
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        for namespace in NAMESPACES
        for name in ("admin", "robot")
    ]
    machine.apply(*[found for found in objects if found["kind"] == "Namespace"], *accounts)
    machine.apply(*[found for found in objects if found["kind"] != "Namespace"], twin)
    for namespace in NAMESPACES:
        machine.wait("-n", namespace, "--for=condition=Ready", "pod", "--all")
    return [f"{found['metadata']['namespace']}/{found['metadata']['name']}" for found in (*pods, twin)]


def _states(field: Field, count: int) -> Iterator[State]:
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        made = state(seed, Options(policies=4, cidr_modes=False))
        yield made._replace(policies=field.outside.moved(made.policies))


def _run(field: Field, count: int) -> None:
    before: list[Object] = []
    packets = 0
    for made in _states(field, count):
        _switch(field.machine, before, made.policies)
        before = made.policies
        wanted = expected(field.objects, made.policies, field.asked)
        packets += _agree(field, made, wanted)
    _switch(field.machine, before, [])
    open_again = dict.fromkeys(field.asked, True)
    eventually(lambda: probe(field.probers, field.addresses, open_again) == open_again, what="everything open again")
    print(f"T2: seeds {FIRST_SEED}…{FIRST_SEED + count - 1}, {packets} probes agree with the model")


def _switch(machine: Machine, before: list[Object], after: list[Object]) -> None:
    def name(policy: Object) -> tuple[str, str, str]:
        return policy["kind"], policy["metadata"].get("namespace", ""), policy["metadata"]["name"]

    kept = {name(policy) for policy in after}
    gone = [policy for policy in before if name(policy) not in kept]
    if gone:
        text = yaml.safe_dump_all(gone)
        machine.kubectl("delete", "--wait=false", "-f", "-", stdin=text)
    if after:
        machine.apply(*after)


def _agree(field: Field, made: State, wanted: dict[Cell, bool]) -> int:
    """Probe until packets go as the model says, then once more: they must go on doing so. Returns how many agreed."""
    until = time.monotonic() + SETTLED_S
    while (found := probe(field.probers, field.addresses, wanted)) != wanted:
        if time.monotonic() > until:
            _fail(made, wanted, found)
    steady = probe(field.probers, field.addresses, wanted)
    if steady != wanted:
        _fail(made, wanted, steady)
    return len(steady)


def _fail(made: State, wanted: dict[Cell, bool], found: dict[Cell, bool]) -> None:
    wrong = [f"{'leaked' if found[cell] else 'lost'}: {cell}" for cell in wanted if found[cell] != wanted[cell]]
    shown = "\n".join([f"seed {made.seed}: {len(wrong)} of {len(wanted)} cells differ", *wrong[:20]])
    pytest.fail(f"{shown}\n{yaml.safe_dump_all(made.policies, sort_keys=False)}", pytrace=False)


def test_probers_reach_each_other_without_policy(field: Field) -> None:
    """Otherwise a lost packet would mean nothing."""
    wanted = dict.fromkeys(field.asked, True)
    found = probe(field.probers, field.addresses, wanted)
    assert [cell for cell in wanted if not found[cell]] == []


def test_packets_go_as_the_model_says(field: Field) -> None:
    """25 random sets of policies."""
    _run(field, CI_STATES)


@pytest.mark.long
def test_packets_go_as_the_model_says_for_long(field: Field) -> None:
    """200 random sets of policies."""
    _run(field, LONG_STATES)
