"""What services stand for."""

from __future__ import annotations

from itertools import permutations

from mycel.policy.labels import Selector
from mycel.policy.resolve import Resolution, ServiceFacts
from mycel.policy.rules import ServicePeer


def test_the_order_services_are_told_in_does_not_matter() -> None:
    """The rows' set is named after what a peer stands for: it is the same on every node, and after every restart."""
    told = [ServiceFacts(space, "db", {}, {"app": "db", "of": space}) for space in ("shop", "bank", "ads")]
    meant = ServicePeer("", "", Selector(()))
    found = {
        Resolution(services={(each.namespace, each.name): each for each in order}).resolve(meant)
        for order in permutations(told)
    }
    assert len(found) == 1
    assert len(found.pop()) == 3
