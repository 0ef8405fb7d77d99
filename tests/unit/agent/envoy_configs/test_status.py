"""What an object's status says, and when nothing has to be written."""

from __future__ import annotations

from typing import Any

from mycel.agent.envoy_configs.status import View, judged, node_entry, status_patch

NOW = "2026-01-01T00:00:00Z"
GOOD = View(2, taken=True)
HOLDS = {"programmed": True, "observedGeneration": 2}
NODES = ["n1", "n2", "n3"]


def conditions(view: View, entries: dict[str, Any], nodes: list[str] = NODES) -> dict[str, tuple[str, str, str]]:
    """(status, reason, message) by type."""
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in judged(view, entries, nodes)}


def test_every_node_holds_it():
    found = conditions(GOOD, dict.fromkeys(NODES, HOLDS))
    assert found == {
        "Accepted": ("True", "Accepted", "valid"),
        "ResolvedRefs": ("True", "ResolvedRefs", "all it names is there"),
        "Programmed": ("True", "Programmed", "on 3 of 3 nodes"),
    }


def test_a_node_that_has_not_said_and_one_that_speaks_of_an_older_object_are_waited_for():
    found = conditions(GOOD, {"n1": HOLDS, "n2": HOLDS | {"observedGeneration": 1}})
    assert found["Programmed"] == ("Unknown", "Pending", "on 1 of 3 nodes; waiting for Envoy of n2, n3")


def test_envoys_words_are_there_with_the_node():
    refused = {"programmed": False, "observedGeneration": 2, "error": "shop/mesh/routes: Only a single wildcard"}
    found = conditions(GOOD, {"n1": HOLDS, "n2": refused, "n3": HOLDS})
    assert found["Programmed"] == (
        "False",
        "Refused",
        "on 2 of 3 nodes; n2: shop/mesh/routes: Only a single wildcard",
    )


def test_clusters_without_endpoints_are_named():
    view = GOOD._replace(empty=["cilium-test/echo-other-node"])
    found = conditions(view, dict.fromkeys(NODES, HOLDS))
    assert found["Programmed"] == (
        "True",
        "NoEndpoints",
        "on 3 of 3 nodes; no endpoints: cluster cilium-test/echo-other-node",
    )


def test_what_cannot_be_used_says_the_field():
    view = View(2, problem="spec.resources[0].address: leave it out", taken=False)
    entry = node_entry(view)
    assert entry == {"programmed": False, "observedGeneration": 2, "error": view.problem}
    found = conditions(view, dict.fromkeys(NODES, entry))
    assert found["Accepted"] == ("False", "Invalid", view.problem)
    assert found["Programmed"][:2] == ("False", "Refused")


def test_references_are_told():
    view = GOOD._replace(unresolved=["Service a/b is in another namespace", "Secret a/c is not there"])
    found = conditions(view, dict.fromkeys(NODES, HOLDS))
    assert found["ResolvedRefs"][0] == "False"
    assert found["ResolvedRefs"][2] == "Service a/b is in another namespace; Secret a/c is not there"
    assert found["Accepted"][0] == "True"


def patch(status: dict[str, Any], view: View, *, judge: bool = True, now: str = NOW) -> dict[str, Any]:
    entry = node_entry(view)
    entries = (status.get("nodes") or {}) | ({"n1": entry} if entry else {})
    made = judged(view, entries, ["n1"]) if judge else []
    return status_patch(status, node="n1", entry=entry, conditions=made, now=now).get("status", {})


def test_what_is_said_is_not_said_again():
    first = patch({}, GOOD)
    assert first["nodes"]["n1"] == HOLDS | {"lastUpdated": NOW}
    assert {each["lastTransitionTime"] for each in first["conditions"]} == {NOW}
    assert patch(first, GOOD, now="2027-01-01T00:00:00Z") == {}


def test_only_the_judge_writes_conditions():
    assert patch({}, GOOD, judge=False).keys() == {"nodes"}


def test_a_change_keeps_the_time_of_what_did_not_change_and_others_conditions():
    other = {"type": "Other", "status": "True"}
    first = patch({}, GOOD)
    first["conditions"].append(other)
    said = patch(first, GOOD._replace(taken=False, refusals=["x: no"]), now="2027-01-01T00:00:00Z")
    times = {each["type"]: each.get("lastTransitionTime") for each in said["conditions"]}
    assert times == {"Other": None, "Accepted": NOW, "ResolvedRefs": NOW, "Programmed": "2027-01-01T00:00:00Z"}
    assert said["nodes"]["n1"]["error"] == "x: no"
    assert patch(first | said, GOOD)["nodes"]["n1"]["error"] is None


def test_a_node_it_is_not_for_takes_its_word_back():
    first = patch({}, GOOD)
    assert patch(first, GOOD._replace(taken=None), judge=False) == {"nodes": {"n1": None}}
    assert patch({}, GOOD._replace(taken=None), judge=False) == {}
