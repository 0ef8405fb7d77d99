"""Which rules decided on a request, once a proxy has said what it did with it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mycel.policy.fqdn import canonical_name, selects
from mycel.policy.rows import numbered
from mycel.policy.rules import L7, ContainerPort, Party, Rule, RuleRef, peer_matches

ANY_REQUEST = "any"
"""What Envoy calls the rule of a listener that lets every request pass (`envoy/http_rules.py`)."""


class Asked(NamedTuple):
    """A request at a listener. `rule` is what Envoy said of HTTP, `query` what was asked of DNS."""

    protocol: int
    port: int
    denied: bool
    rule: str = ""
    query: str = ""


def deciding(
    rules: Iterable[Rule],
    sections: Sequence[L7 | None],
    asked: Asked,
    *,
    peer: Party | None,
    named_ports: Sequence[ContainerPort] = (),
) -> tuple[RuleRef, ...]:
    """The rules that let a request through; of a denied one those that would have had to. None of `sections` is "any
    request"; both belong to one subject and direction.
    """
    about = [each for each in rules if not each.deny and (each.l7 is None or each.l7 in sections)]
    about = [each for each in about if _is_about(each, asked, named_ports)]
    if peer is not None:  # who is outside may be known by a name or prefix that its address alone does not tell
        about = [each for each in about if _is_peer(each, peer)] or about
    if asked.denied:
        return _distinct(_section(each) for each in about if each.l7)
    if asked.query:
        return _distinct(_section(each) for each in about if each.l7 is None or _means(each.l7, asked.query))
    number, _, place = asked.rule.partition("/")
    if asked.rule == ANY_REQUEST:
        return _distinct(each.ref for each in about if each.l7 is None)
    if not (number.isdecimal() and place.isdecimal() and int(number) < len(sections)):
        return ()
    by = sections[int(number)]
    return _distinct(_section(each, f"[{place}]") for each in about if each.l7 is not None and each.l7 == by)


def _section(rule: Rule, place: str = "") -> RuleRef:
    if rule.l7 is None or not rule.section:
        return rule.ref
    if rule.l7.parser == "tls":
        return rule.ref._replace(field=f"{rule.section}.serverNames")
    return rule.ref._replace(field=f"{rule.section}.rules.{rule.l7.parser}{place}")


def _is_about(rule: Rule, asked: Asked, named_ports: Sequence[ContainerPort]) -> bool:
    return rule.ports is None or any(m.covers(asked.protocol, asked.port) for m in numbered(rule.ports, named_ports))


def _is_peer(rule: Rule, party: Party) -> bool:
    return rule.peers is None or any(peer_matches(peer, party) for peer in rule.peers)


def _means(section: L7, query: str) -> bool:
    selectors = json.loads(section.rules).get("rules", ()) if section.parser == "dns" else ()
    return any(selects(each, canonical_name(query)) for each in selectors)


def _distinct(refs: Iterable[RuleRef]) -> tuple[RuleRef, ...]:
    return tuple(dict.fromkeys(refs))
