"""Explanations and verdicts as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from mycel.abi import Direction
from mycel.cli.output import bad, good, warn
from mycel.model.address import format_address
from mycel.policy.explain import Explanation, Side
from mycel.policy.offline import End, Flow
from mycel.policy.rules import Outcome, PortMatch, Reason


def verdict_text(outcome: Outcome | str) -> str:
    """A verdict in its colour."""
    word = outcome.value if isinstance(outcome, Outcome) else outcome
    paint = {"allowed": good, "denied": bad}.get(word, warn)
    return paint("allowed, by the proxy" if word == "l7" else word)


def end_text(end: End) -> str:
    """One end of a flow."""
    if end.pod is not None:
        return str(end.pod.ref)
    return format_address(end.address) if end.address is not None else end.entity


def flow_text(flow: Flow) -> str:
    """`shop/cart → shop/db:5432/TCP`."""
    return f"{end_text(flow.source)} → {end_text(flow.destination)} {PortMatch(flow.protocol, flow.port, flow.port)}"


def explanation_lines(found: Explanation) -> Iterator[str]:
    """Everything there is to say."""
    yield f"{flow_text(found.flow)}: {verdict_text(found.outcome)}"
    for side, end in ((found.egress, found.flow.source), (found.ingress, found.flow.destination)):
        yield ""
        yield from _side_lines(side, end)


def _side_lines(side: Side, end: End) -> Iterator[str]:
    name = side.direction.name.lower()
    of = "of" if side.direction == Direction.INGRESS else "from"
    yield f"{name} {of} {end_text(end)}: {verdict_text(side.decision.outcome)}"
    decision = side.decision
    match decision.reason:
        case Reason.NO_POLICY if side.judged_at is None:
            yield "  nobody judges there: it is no pod of the mesh"
        case Reason.NO_POLICY:
            yield f"  no policy is about {name} of this pod"
        case Reason.ALLOWED if decision.rules:
            yield from (f"  allowed by {rule}" for rule in decision.rules)
        case Reason.ALLOWED:
            yield "  nothing denies it, and what nothing denies is allowed"
        case Reason.DENY_RULE:
            yield from (f"  denied by {rule}" for rule in decision.rules)
            yield "  a denial wins over every allowance: change it, nothing else helps"
        case Reason.DEFAULT_DENY:
            switched_on = ", ".join(map(str, decision.rules)) or "the mesh's settings"
            yield f"  default deny, switched on by {switched_on}"
            yield from _nearest_lines(side)
    if decision.outcome is Outcome.L7:
        yield "  its requests are for the proxy to judge"


def _nearest_lines(side: Side) -> Iterator[str]:
    if side.nearest is None:
        yield "  no rule allows anything in this direction"
    else:
        yield f"  nearest rule: {side.nearest.rule.ref}"
        if side.nearest.peer:
            yield f"    misses on the peer: {side.nearest.peer}"
        if side.nearest.port:
            yield f"    misses on the port: it is about {side.nearest.port}"
    if side.remedy is not None:
        yield "  the smallest policy that would allow it:"
        text = yaml.dump(side.remedy, sort_keys=False, default_flow_style=False)
        yield from (f"    {line}" for line in text.splitlines())


def explanation_json(found: Explanation) -> dict[str, Any]:
    """The same for programs."""
    return {
        "flow": flow_text(found.flow),
        "verdict": found.outcome.value,
        "egress": _side_json(found.egress),
        "ingress": _side_json(found.ingress),
    }


def _side_json(side: Side) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "verdict": side.decision.outcome.value,
        "reason": side.decision.reason.value,
        "rules": [str(rule) for rule in side.decision.rules],
    }
    if side.nearest is not None:
        shown["nearest"] = {"rule": str(side.nearest.rule.ref), "peer": side.nearest.peer, "port": side.nearest.port}
    if side.remedy is not None:
        shown["remedy"] = side.remedy
    return shown
