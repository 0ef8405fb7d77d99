"""Rules about names and prefixes, over addresses with names: rows say what a loop over the manifests says."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network
from typing import Any

from mycel.model.address import parse_address, parse_prefix
from mycel.model.workload import IdentityId
from mycel.policy.engine import Engine, PolicyKeyRef
from mycel.policy.fqdn import Selectors, canonical_name
from mycel.policy.lookup import Lookup
from mycel.policy.names import Named
from mycel.policy.parse import parse_policy
from mycel.policy.parties import party_of
from mycel.policy.rules import Network, host_network
from tests.oracle.names import means

POD = party_of(IdentityId(300), ("k8s:app=x", "k8s:io.kubernetes.pod.namespace=default"))
PIECES = ("a", "b", "*", "a*", "**")
PREFIXES = ("0.0.0.0/0", "192.0.2.0/24", "192.0.2.128/25", "198.51.100.0/24", "192.0.2.200/32")
ADDRESSES = ("192.0.2.1", "192.0.2.129", "192.0.2.200", "198.51.100.7", "203.0.113.1")


def policy(dice: random.Random, number: int) -> dict[str, Any]:
    """Some rules about names, some about prefixes, some of those denials."""

    def pattern() -> dict[str, str]:
        text = ".".join(dice.choice(PIECES) for _ in range(dice.randint(1, 3)))
        return {"matchPattern" if "*" in text else "matchName": text}

    egress: list[dict[str, Any]] = [
        {"toFQDNs": [pattern() for _ in range(dice.randint(1, 3))]} for _ in range(dice.randint(0, 2))
    ]
    deny: list[dict[str, Any]] = []
    for rules, chance in ((egress, 0.3), (deny, 0.4)):
        if dice.random() < chance:
            rules.append({"toCIDR": [dice.choice(PREFIXES[1:])]})
    spec = {"endpointSelector": {}, "egress": egress or [{}], "egressDeny": deny}
    metadata = {"name": f"p{number}", "namespace": "default"}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}


def expected(policies: list[dict[str, Any]], address: str, names: list[str]) -> bool:
    """Whether a connection is allowed, rule by rule as written."""

    def fits(rule: dict[str, Any]) -> bool:
        if any(ip_address(address) in ip_network(each) for each in rule.get("toCIDR", ())):
            return True
        patterns = [next(iter(each.values())) for each in rule.get("toFQDNs", ())]
        return any(means(pattern, name) for pattern in patterns for name in names)

    if any(fits(rule) for each in policies for rule in each["spec"]["egressDeny"]):
        return False
    return any(fits(rule) for each in policies for rule in each["spec"]["egress"])


def test_rows_say_what_the_rules_say() -> None:
    dice = random.Random(11)
    asked = allowed = 0
    for _ in range(300):
        engine = Engine()
        policies = [policy(dice, number) for number in range(dice.randint(1, 3))]
        for each in policies:
            parsed = parse_policy(each)
            engine.set_policy(PolicyKeyRef(parsed[0].ref.kind, "default", parsed[0].ref.name), parsed)
        side = engine.subject(POD).egress
        for address in ADDRESSES:
            names = [".".join(dice.choice("ab") for _ in range(dice.randint(1, 3))) for _ in range(dice.randint(0, 3))]
            selectors = {
                each for name in names for each in Selectors(engine.names.selectors).matching(canonical_name(name))
            }
            own = host_network(parse_address(address))
            within = [each for each in engine.networks if each.contains(own) and each.is_ipv4]
            network = max(within, key=lambda each: each.length, default=Network(*parse_prefix("0.0.0.0/0")))
            identity = engine.networks.get(network, IdentityId(2))
            if selectors:
                identity = engine.names.identity(Named(tuple(sorted(selectors)), network))
            row = Lookup(engine.one_set(side.number).rows).find(identity, 6, 443)
            found = row is not None and not row.deny
            assert found == expected(policies, address, names), (policies, address, names)
            asked, allowed = asked + 1, allowed + found
    assert asked == 1500
    assert 200 < allowed < 1300
