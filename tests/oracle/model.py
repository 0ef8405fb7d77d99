"""The policy oracle: a second, deliberately simple model of what policies mean.

It loops over every rule of every policy with strings as they stand in the manifests: no identities, no prefix
tries, no caches, and nothing from `src`. What it leaves open to choice is written in `deviations.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.oracle.parties import Cluster, Object, Party, ends
from tests.oracle.rules import Side, findings
from tests.oracle.services import translated


class SideVerdict(NamedTuple):
    """`verdict`: allowed, denied or l7; `reason`: no-policy, allowed, default-deny or deny-rule."""

    verdict: str
    reason: str
    rules: list[str]


class Verdict(NamedTuple):
    """Of a whole flow."""

    egress: SideVerdict
    ingress: SideVerdict

    @property
    def verdict(self) -> str:
        both = (self.egress.verdict, self.ingress.verdict)
        return next((word for word in ("denied", "l7") if word in both), "allowed")


OPEN = SideVerdict("allowed", "no-policy", [])


def verdict(cluster: Cluster, policies: Sequence[Object], flow: Object) -> Verdict:
    """What happens to the first packet of `flow`: {"from", "to", "protocol", "port", "type", "family"}.

    Of several backends of a service the strictest verdict. Raises LookupError for a flow that leads nowhere.
    """
    answers = [after_translation(cluster, policies, each) for each in translated(cluster, flow)]
    if not answers:
        raise LookupError(f"nothing answers at {flow['to']} for {flow['protocol']} {flow.get('port')}")
    return min(answers, key=lambda answer: ("denied", "l7", "allowed").index(answer.verdict))


def after_translation(cluster: Cluster, policies: Sequence[Object], flow: Object) -> Verdict:
    """Of a flow to one that no service stands for any more."""
    source, destination, family = ends(cluster, flow)
    if source.kind == destination.kind == "pod" and source.name == destination.name:
        return Verdict(OPEN, OPEN)
    protocol = "ICMPv6" if flow["protocol"] == "ICMP" and family == 6 else flow["protocol"]

    def side(direction: str, subject: Party, peer: Party) -> SideVerdict:
        if subject.kind != "pod":
            return OPEN
        port, icmp_type = flow.get("port") or 0, flow.get("type")
        kind = -1 if icmp_type is None else icmp_type
        return _judge(cluster, policies, Side(direction, subject, peer, destination, protocol, port, kind, family))

    return Verdict(side("egress", source, destination), side("ingress", destination, source))


def _judge(cluster: Cluster, policies: Sequence[Object], side: Side) -> SideVerdict:
    found = [finding for policy in policies for finding in findings(cluster, policy, side)]
    if not found:
        return OPEN
    denies = [rule for finding in found for rule in finding.denies]
    if denies:
        return SideVerdict("denied", "deny-rule", denies)
    if side.direction == "ingress" and cluster.host_always and side.peer.has("reserved", "host"):
        return SideVerdict("allowed", "allowed", [])
    allows = [rule for finding in found for rule in finding.allows]
    if any(finding.proxied for finding in found):
        return SideVerdict("l7", "allowed", allows)
    if allows:
        return SideVerdict("allowed", "allowed", allows)
    isolating = [finding.rule for finding in found if finding.isolates]
    if isolating:
        return SideVerdict("denied", "default-deny", isolating)
    return SideVerdict("allowed", "allowed", [])
