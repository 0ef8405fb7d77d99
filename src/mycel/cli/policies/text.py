"""Explanations and verdicts as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from mycel.abi import Direction
from mycel.cli.output import bad, good, warn
from mycel.cli.policies.requests import Judged, Request, judge
from mycel.cli.policies.requests import lines as request_lines
from mycel.policy.explain import Explanation, Side
from mycel.policy.offline import End, Flow, service_json
from mycel.policy.rules import Outcome, Reason


def verdict_text(outcome: Outcome | str) -> str:
    """A verdict in its colour."""
    word = outcome.value if isinstance(outcome, Outcome) else outcome
    paint = {"allowed": good, "denied": bad}.get(word, warn)
    return paint("allowed, by the proxy" if word == "l7" else word)


def dialled_text(flow: Flow) -> str:
    """A flow, and the service by which it goes."""
    return f"{flow} (service {flow.service})" if flow.service else str(flow)


@dataclass(frozen=True, slots=True)
class Answer:
    """An explanation with all that belongs to it."""

    found: Explanation
    request: Request | None = None
    seen: str = ""  # what the flow said when it was seen

    @property
    def sides(self) -> tuple[tuple[Side, End, Judged | None], ...]:
        """Both directions, with what proxies do there."""
        flow = self.found.flow
        return tuple(
            (side, end, judge(side, self.request) if side.decision.outcome is Outcome.L7 else None)
            for side, end in ((self.found.egress, flow.source), (self.found.ingress, flow.destination))
        )

    @property
    def verdict(self) -> str:
        """Of the connection; closed where no proxy can serve it; of its request, if one was asked about."""
        judged = [each for _, _, each in self.sides if each is not None]
        if self.found.outcome is Outcome.DENIED or any(each.closed for each in judged):
            return "denied"
        fates = {each.verdict for each in judged} - {""}
        order = (("denied", "denied"), ("depends", "l7"), ("passes", "allowed"))
        return next((word for fate, word in order if fate in fates), self.found.outcome.value)


def explanation_lines(answer: Answer) -> Iterator[str]:
    """Everything there is to say."""
    asked = f", {answer.request.text}" if answer.request is not None else ""
    yield f"{answer.found.flow}{asked}: {verdict_text(answer.verdict)}"
    if dialled := answer.found.flow.service:
        yield f"  dialled as service {dialled}: policies are about who is behind it, on the port there"
    yield from (f"  also behind it, {each.flow.target}: {verdict_text(each.outcome)}" for each in answer.found.others)
    if answer.seen:
        yield from (f"  {line}" for line in ("seen as " + answer.seen).splitlines())
        yield "  explained by the policies of now:"
    for side, end, judged in answer.sides:
        yield ""
        yield from _side_lines(side, end, closed=judged is not None and bool(judged.closed))
        if judged is not None:
            yield from request_lines(judged, answer.request)


def _side_lines(side: Side, end: End, *, closed: bool) -> Iterator[str]:
    name = side.direction.name.lower()
    of = "of" if side.direction == Direction.INGRESS else "from"
    yield f"{name} {of} {end}: {verdict_text(Outcome.DENIED if closed else side.decision.outcome)}"
    decision = side.decision
    match decision.reason:
        case Reason.NO_POLICY if side.with_itself:
            yield "  a pod may always talk to itself"
        case Reason.NO_POLICY if side.judged_at is None:
            yield "  nobody judges there: it is no pod of the mesh"
        case Reason.NO_POLICY:
            yield f"  no policy is about {name} of this pod"
        case Reason.ALLOWED if decision.rules:
            yield from (f"  {'selected' if closed else 'allowed'} by {rule}" for rule in decision.rules)
        case Reason.ALLOWED if side.own_node:
            yield "  a node may enter its own pods unless a rule denies it: probes come from there"
        case Reason.ALLOWED:
            yield "  nothing denies it, and what nothing denies is allowed"
        case Reason.DENY_RULE:
            yield from (f"  denied by {rule}" for rule in decision.rules)
            yield "  a denial wins over every allowance: change it, nothing else helps"
        case Reason.DEFAULT_DENY:
            switched_on = ", ".join(map(str, decision.rules)) or "the mesh's settings"
            yield f"  default deny, switched on by {switched_on}"
            yield from _nearest_lines(side)


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


def explanation_json(answer: Answer) -> dict[str, Any]:
    """The same for programs."""
    (egress, _, asked_out), (ingress, _, asked_in) = answer.sides
    shown: dict[str, Any] = {"flow": str(answer.found.flow), "verdict": answer.verdict}
    shown |= service_json(answer.found.flow, answer.found.others)
    if answer.request is not None:
        shown["request"] = answer.request.text
    if answer.seen:
        shown["seen"] = answer.seen
    return shown | {"egress": _side_json(egress, asked_out), "ingress": _side_json(ingress, asked_in)}


def _side_json(side: Side, judged: Judged | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "verdict": side.decision.outcome.value,
        "reason": side.decision.reason.value,
        "rules": [str(rule) for rule in side.decision.rules],
    }
    if side.nearest is not None:
        shown["nearest"] = {"rule": str(side.nearest.rule.ref), "peer": side.nearest.peer, "port": side.nearest.port}
    if side.remedy is not None:
        shown["remedy"] = side.remedy
    if judged is not None:
        shown["proxy"] = judged.as_json()
    return shown
