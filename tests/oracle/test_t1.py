"""Tier 1: the kernel's own verdicts. Generated policies as compiled rows in real maps, packets through the real
programs (BPF_PROG_TEST_RUN), and what they return, drop and report against the model. Zero differences.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mycel import abi
from mycel.datapath.testrun import SkbContext, run_skb
from mycel.policy.engine import Engine
from mycel.policy.offline import parse_flow
from mycel.policy.rules import RuleRef
from mycel.policy.world import read_world
from tests.bpf.kernel import Datapath, compiled_for_tests
from tests.bpf.lab import inside, run
from tests.bpf.rows import addr
from tests.bpf.world import V4
from tests.oracle.generate import Options, State, state
from tests.oracle.model import Cluster, verdict
from tests.oracle.node_tables import STRANGER, NodeTables, policy_rows, subjects_of, tables
from tests.oracle.services import translated
from tests.oracle.steps import PROXIED, REASONS, Judged, Step, steps

pytestmark = pytest.mark.root

SHOT = 2
KNOBS = {"config_ipv6": 1, "config_masquerade": 0, "config_vxlan_ifindex": 4243, "config_node_ipv4": addr(V4.node)}
PODS = 12
FLOWS = 200


class Rig:
    """The loaded programs in a namespace with enough interfaces for a node's pods."""

    def __init__(self, namespace: str, lock: Path, *, host_enters: bool) -> None:
        overlay = compiled_for_tests("overlay", lock.parent)
        self.datapath = Datapath(KNOBS | {"config_host_enters": int(host_enters)}, lock=lock, more=[overlay])
        with inside(namespace):
            self.interfaces = [socket.if_nametoindex(f"d{number}") for number in range(PODS)]
        self.written: dict[str, set[Any]] = {}

    def write(self, maps: dict[str, Any]) -> None:
        """Replace the rows of maps; connections end."""
        for name, rows in maps.items():
            target = self.datapath.policy if name == "policy" else self.datapath.maps[name]
            target.write(rows)
            gone = self.written.get(name, set()) - set(rows)
            if gone:
                target.remove(list(gone))
            self.written[name] = set(rows)
        self.forget_connections()

    def forget_connections(self) -> None:
        """Every packet is a first one again."""
        for name in ("ct", "nat"):
            self.datapath.maps[name].remove(list(self.datapath.maps[name].dump()))

    def send(self, step: Step, ifindex: int) -> tuple[int, list[abi.FlowEvent]]:
        """What a program returns, and its events."""
        vni, sender = step.outer or (0, "0.0.0.0")
        context = SkbContext(ifindex=ifindex, cb=(vni, int(ipaddress.IPv4Address(sender)), 0, 0, 0))
        done = run_skb(self.datapath.program(step.program), step.frame, context=context)
        return done.verdict, self.datapath.events()


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"my{os.getpid() % 100000}-t1"
    run("ip", "netns", "add", name)
    try:
        for command in (
            "link add e0 type veth peer name e1",
            "link set e0 up",
            "link set e1 up",
            f"addr add {V4.node}/24 dev e0",
            f"route add default via {V4.underlay_gateway} dev e0",
            *(f"link add d{number} type veth peer name d{number + 1}" for number in range(0, PODS, 2)),
        ):
            run("ip", "-n", name, *command.split())
        run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield name
    finally:
        run("ip", "netns", "delete", name)


Rigs = dict[bool, Rig]
"""The programs where a node may always enter its pods (True), and where policy decides that, too."""


@pytest.fixture(scope="module")
def rigs(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rigs]:
    folders = {kind: tmp_path_factory.mktemp("t1") / "rings" for kind in (True, False)}
    made = {kind: Rig(namespace, lock, host_enters=kind) for kind, lock in folders.items()}
    with inside(namespace):
        yield made
    for rig in made.values():
        rig.datapath.close()


def named(ref: RuleRef) -> str:
    """A rule as the model writes it."""
    place = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
    return f"{ref.kind}/{place} {ref.field}"


def difference(
    step: Step, seen: int, events: list[abi.FlowEvent], *, engine: Engine, table: NodeTables, subjects: Any
) -> str:
    """How a packet's fate differs from what the model says; empty when it does not."""
    denied = next((each for each in step.sides if each.side.verdict != "allowed" and not each.silent), None)
    reason = step.reason
    if denied is not None:
        # A proxy takes TCP and UDP.
        proxied = PROXIED if all(each.protocol in (6, 17) for each in events) else "PROXY_UNSUPPORTED"
        reason = proxied if denied.side.verdict == "l7" else REASONS[denied.side.reason]
    drops = [abi.DropReason(each.sub_type).name for each in events if each.kind == abi.EventKind.DROP]
    if drops != ([reason] if reason else []):
        return f"drop events {drops}, expected {reason}"
    if (seen == SHOT) != bool(reason):
        return f"the program returned {seen}, with reason {reason}"
    asked = list(step.sides)[: step.sides.index(denied) + 1 if denied else None]
    expected = [each for each in asked if each.side.reason != "no-policy" and not each.silent]
    told = [each for each in events if each.kind == abi.EventKind.POLICY_VERDICT]
    if len(told) != len(expected):
        return f"{len(told)} verdict events, expected {len(expected)}"
    for event, judged in zip(told, expected, strict=True):
        wrong = _told(event, judged, reason if judged is denied else None, engine, table, subjects)
        if wrong:
            return wrong
    return ""


def _told(
    event: abi.FlowEvent, judged: Judged, reason: str | None, engine: Engine, table: NodeTables, subjects: Any
) -> str:
    party = judged.subject.party
    assert party is not None
    if event.direction != judged.direction:
        return f"verdict event of direction {event.direction}, expected {judged.direction}"
    if event.endpoint_id != table.endpoint_ids[judged.subject.ref]:
        return f"verdict event of endpoint {event.endpoint_id}, expected {judged.subject.ref}"
    # No listener is there: the verdict sends the connection to it all the same, and the packet is dropped after.
    to_proxy = reason == PROXIED
    if event.sub_type != (abi.DropReason[reason] if reason and not to_proxy else 0):
        return f"verdict event with reason {event.sub_type}, expected {reason}"
    outcome = abi.Verdict.REDIRECTED if to_proxy else abi.Verdict.DROPPED if reason else abi.Verdict.FORWARDED
    if event.verdict != outcome or bool(event.proxy_port) != to_proxy:
        return f"verdict event with verdict {event.verdict}"
    own = event.source_identity if judged.direction == abi.Direction.EGRESS else event.destination_identity
    if own != party.identity:
        return f"verdict event with identity {own}, expected {party.identity}"
    by_default = judged.side.reason == "default-deny"
    if (event.policy_match == abi.PolicyMatch.NONE) != by_default:
        return f"match type {event.policy_match} of a verdict for {judged.side.reason}"
    side = subjects[party.identity][judged.direction != abi.Direction.INGRESS]
    refs = side.rules.switched_on_by if by_default else engine.rule(event.policy_rule)
    if by_default:
        return "" if {named(ref) for ref in refs} == set(judged.side.rules) else _rules(refs, judged)
    # Of several rules that allow, the kernel's row names those it was made of: one at least, and no other.
    given, allowed = {named(ref) for ref in refs}, set(judged.side.rules)
    return "" if given <= allowed and bool(given) == bool(allowed) else _rules(refs, judged)


def _rules(refs: Any, judged: Judged) -> str:
    return f"rules {sorted(map(named, refs))}, expected {sorted(judged.side.rules)}"


def check(rigs: Rigs, made: State) -> int:
    """Judge every flow of a state on both nodes; how many verdicts that were. Fails with the state."""
    world = read_world([*made.objects, *made.policies])
    cluster = Cluster(made.objects)
    remote_by_address = any("nodes" in (o.get("data") or {}).get("policy-cidr-match-mode", "") for o in made.objects)
    rig = rigs[cluster.host_always]
    subjects = subjects_of(world)
    rig.write({"policy": policy_rows(world, subjects)})
    todo: dict[str, list[tuple[int, Step]]] = {}
    for number, flow in enumerate(made.flows):
        if translated(cluster, flow) != [flow]:
            continue  # to a service: tests/e2e/test_policy_paths.py and tests/bpf send those
        if remote_by_address and "remote-node" in (flow["from"].get("entity"), flow["to"].get("entity")):
            continue  # an entity without an address, to the model
        expected = verdict(cluster, made.policies, flow)
        for step in steps(world, parse_flow(world, flow, number), expected, number, host_enters=cluster.host_always):
            todo.setdefault(step.node, []).append((number, step))
    judged = 0
    for node in sorted(set(todo) - {STRANGER}):
        table = tables(world, node, subjects, rig.interfaces)
        rig.write(dict(table.maps))
        met: set[str] = set()
        for number, step in todo[node]:
            if step.portless in met:
                rig.forget_connections()
            if step.portless:
                met.add(step.portless)
            ifindex = table.interfaces[step.interface] if step.interface else rig.interfaces[0]
            seen, events = rig.send(step, ifindex)
            wrong = difference(step, seen, events, engine=world.engine, table=table, subjects=subjects)
            if wrong:
                _fail(made, number, step, wrong)
            judged += len(step.sides)
    return judged


def _fail(made: State, number: int, step: Step, wrong: str) -> None:
    """With the state as YAML, for reading and for keeping."""
    where = Path(os.environ.get("TMPDIR", "/tmp")) / f"t1-seed-{made.seed}.yaml"
    where.write_text(yaml.safe_dump_all([*made.objects, *made.policies, made.flows[number]]))
    raise AssertionError(
        f"seed {made.seed}, flow {made.flows[number]}: at {step.program} of {step.node}: {wrong}"
        f" (model: {[each.side for each in step.sides]}); state: {where}"
    )


def run_until(rigs: Rigs, seed: int, verdicts: int) -> None:
    """States from `seed` on until that many sides have been judged."""
    print(f"seeds from {seed}")
    judged = 0
    while judged < verdicts:
        judged += check(rigs, state(seed, Options(flows=FLOWS)))
        seed += 1
    print(f"to {seed - 1}: {judged} verdicts, no differences")


def test_kernel_and_model_agree(rigs: Rigs) -> None:
    run_until(rigs, int(os.environ.get("MYCEL_SEED", "1000")), 20_000)


@pytest.mark.long
def test_kernel_and_model_agree_on_many_more(rigs: Rigs) -> None:
    run_until(rigs, int(os.environ.get("MYCEL_SEED", "500000")), 100_000)
