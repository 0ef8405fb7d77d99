"""The rules behind verdicts of the kernel and of proxies, for flows."""

from __future__ import annotations

from mycel.agent.endpoints import Endpoints
from mycel.agent.policies import Policies
from mycel.model.workload import EndpointId, IdentityId
from mycel.policy.requests import Asked, deciding
from mycel.policy.rules import Party, RuleRef
from mycel.policy.subjects import SubjectSide


class RuleNames:
    """By what this node's pods enforce now."""

    def __init__(self, policies: Policies, endpoints: Endpoints) -> None:
        self._policies = policies
        self._endpoints = endpoints

    def of_verdict(self, rule: int, endpoint: int, *, ingress: bool, denied: bool) -> tuple[RuleRef, ...]:
        """The rules a verdict came from; for a default denial, the policies that switched it on."""
        if rule:
            return self._policies.engine.rule(rule)
        side = self._side(endpoint, ingress=ingress)
        return side.rules.switched_on_by if denied and side is not None and side.rules else ()

    def of_request(
        self, asked: Asked, listener: int, endpoint: int, *, peer: int, ingress: bool
    ) -> tuple[RuleRef, ...]:
        """The rules by which a proxy let a request through or did not."""
        side, engine = self._side(endpoint, ingress=ingress), self._policies.engine
        if side is None or side.rules is None:
            return ()
        other = engine.party(IdentityId(peer))
        whose = self._subject_party(endpoint) if ingress else other
        return deciding(
            side.rules.rules,
            engine.proxy_rules(listener),
            asked,
            peer=other,
            named_ports=whose.named_ports if whose else (),
        )

    def _side(self, endpoint: int, *, ingress: bool) -> SubjectSide | None:
        subject = self._policies.subjects.get(EndpointId(endpoint))
        return (subject.ingress if ingress else subject.egress) if subject else None

    def _subject_party(self, endpoint: int) -> Party | None:
        found = self._endpoints.all().get(EndpointId(endpoint))
        return self._policies.engine.party(found.identity) if found else None
