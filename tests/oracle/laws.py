"""Ways to rewrite a state so that the model has to answer alike, for the laws in `test_laws.py`."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from typing import Any
from zlib import crc32

from tests.oracle.generate import State
from tests.oracle.model import Verdict, verdict
from tests.oracle.parties import Cluster, Object
from tests.oracle.rules import ICMP_TYPES
from tests.oracle.services import translated

V4_TEXT = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?")


def table(state: State, policies: list[Object] | None = None) -> list[Verdict]:
    """The model's answers for all flows of a state, with other policies if given."""
    world = Cluster(state.objects)
    chosen = state.policies if policies is None else policies
    return [verdict(world, chosen, flow) for flow in state.flows]


def direct(state: State) -> State:
    """Without flows to services: of several backends another one may be the strictest when policies change."""
    world = Cluster(state.objects)
    return state._replace(flows=[flow for flow in state.flows if translated(world, flow) == [flow]])


def words(answers: Iterable[Verdict]) -> list[tuple[str, ...]]:
    """Answers without the names of rules."""
    return [(a.verdict, *a.egress[:2], *a.ingress[:2]) for a in answers]


def denied(answers: Iterable[Verdict]) -> set[int]:
    """Positions of denied flows."""
    return {number for number, answer in enumerate(answers) if answer.verdict == "denied"}


def specs(policies: list[Object]) -> list[Object]:
    """Every spec of Cilium policies, in place."""
    found = [p for p in policies if p["kind"].startswith("Cilium")]
    return [spec for p in found for spec in [*([p["spec"]] if p.get("spec") else []), *(p.get("specs") or [])]]


def lists(policies: list[Object], *names: str) -> list[list[Any]]:
    """Every list called one of `names`, at any depth, in place."""
    found: list[list[Any]] = []

    def walk(value: Any) -> None:
        inside: list[tuple[Any, Any]] = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, inner in inside:
            if key in names and isinstance(inner, list):
                found.append(inner)
            if isinstance(inner, dict | list):
                walk(inner)

    walk(policies)
    return found


def any_spelled_out(policies: list[Object]) -> list[Object]:
    """Cilium ports of protocol ANY as one port each for TCP, UDP and SCTP. L7 rules keep theirs: they are no unions."""
    made = copy.deepcopy(policies)
    for ports in lists([p for p in made if p["kind"].startswith("Cilium")], "ports"):
        ports[:] = [
            {**port, "protocol": protocol}
            for port in ports
            for protocol in (("TCP", "UDP", "SCTP") if port.get("protocol", "ANY") == "ANY" else (port["protocol"],))
        ]
    return made


def ranges_split(policies: list[Object]) -> list[Object]:
    """Every range of ports as two that touch."""
    made = copy.deepcopy(policies)
    for ports in lists(made, "ports"):
        split: list[Object] = []
        for port in ports:
            first, last = port.get("port"), port.get("endPort")
            if last is None or not str(first).isdigit() or last <= int(first):
                split.append(port)
                continue
            middle = (int(first) + last) // 2
            kind = type(first)
            split += [{**port, "endPort": middle}, {**port, "port": kind(middle + 1), "endPort": last}]
        ports[:] = split
    return made


def renamed(state: State, names: dict[str, str]) -> State:
    """Words replaced everywhere: in names, labels, selectors and flows."""
    text = json.dumps(state)
    for old, new in names.items():
        text = re.sub(rf"\b{re.escape(old)}\b", new, text)
    return State(*json.loads(text))


def family_swapped(state: State) -> State:
    """IPv4 written as IPv6 of 64:ff9b::/96, for the flows of IPv4; what was IPv6 turns into addresses of 240/8."""

    def text(value: str) -> str:
        if value in ("world-ipv4", "world-ipv6"):
            return {"world-ipv4": "world-ipv6", "world-ipv6": "world-ipv4"}[value]
        if V4_TEXT.fullmatch(value):
            address, _, length = value.partition("/")
            return f"64:ff9b::{address}" + (f"/{96 + int(length)}" if length else "")
        if ":" in value and re.fullmatch(r"[0-9a-f:]+(/\d+)?", value):
            low = crc32(value.partition("/")[0].encode())  # one each: what is a node's stays a node's alone
            return ".".join(map(str, (240, *low.to_bytes(4)[1:]))) + ("/32" if "/" in value else "")
        return value

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        if isinstance(value, dict):
            made = {key: walk(inner) for key, inner in value.items()}
            if "type" in made and set(made) <= {"type", "family"}:
                four = made.get("family", "IPv4") == "IPv4"
                kind = made["type"]
                number = kind if isinstance(kind, int) else ICMP_TYPES[4 if four else 6][kind]
                return {"type": number, "family": "IPv6" if four else "IPv4"}
            return made
        return value

    flows = [{**walk(flow), "family": 6} for flow in state.flows if flow["family"] == 4]
    return State(state.seed, walk(state.objects), walk(state.policies), flows)
