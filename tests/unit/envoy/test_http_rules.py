"""HTTP rules as routes and as RBAC: which are said how, what is refused, and what is the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
import re2

from mycel.abi import Direction
from mycel.envoy.header_matches import changing, deciding, remembering
from mycel.envoy.http_routes import allowing, routes
from mycel.envoy.http_rules import Compiled, compiled, underscores
from mycel.envoy.listeners import ORIGINAL_DESTINATION, snapshot, unserved
from mycel.envoy.resources import CLUSTER, LISTENER
from mycel.policy.http import SecretRef
from mycel.policy.proxy_ports import HttpSections
from mycel.policy.rules import L7


def http(*rules: Any, **others: Any) -> L7:
    return L7("http", json.dumps({"rules": list(rules), **others}))


def passes(rule: Any, request: dict[str, str]) -> bool:
    """Whether a rule lets a request through, which is its headers; by RBAC and by routes, and both say the same."""
    made = compiled([http(rule)])
    ((policy,),) = [each["permissions"] for each in policies(made).values()]
    found = by_rbac(policy, request)
    assert by_routes(made, request) == found
    return found


def policies(made: Compiled) -> dict[str, Any]:
    """What the RBAC filter allows."""
    found: dict[str, Any] = allowing(made)["typed_config"]["rules"]["policies"]
    return found


def by_rbac(allowed: Any, request: dict[str, str]) -> bool:
    """What RBAC does with what rules may say."""
    kind, inner = next(iter(allowed.items()))
    match kind:
        case "and_rules" | "or_rules":
            return (all if kind == "and_rules" else any)(by_rbac(each, request) for each in inner["rules"])
        case "url_path":
            return said(inner["path"], without_query(request))
        case "not_rule":
            return not by_rbac(inner, request)
        case "any":
            return True
        case _:
            return has(inner, request)


def by_routes(made: Compiled, request: dict[str, str]) -> bool:
    """Whether the first route that a request matches sends it on."""
    for each in routes(made, {}):
        match = each["match"]
        path = without_query(request)
        if "connect_matcher" in match or not path.startswith(match.get("prefix", "")):
            continue
        if ("path" in match or "safe_regex" in match) and not said({"exact": match.get("path")} | match, path):
            continue
        if all(has(header, request) for header in match.get("headers", ())):
            return "route" in each
    raise AssertionError("there is a last route for everything")


def without_query(request: dict[str, str]) -> str:
    return request.get(":path", "/").partition("?")[0]


def has(header: Any, request: dict[str, str]) -> bool:
    """Envoy's HeaderMatcher."""
    value = request.get(header["name"])
    return value is not None and ("present_match" in header or said(header["string_match"], value))


def said(match: Any, value: str) -> bool:
    """Envoy's StringMatcher."""
    expression = match.get("safe_regex")
    return value == match["exact"] if expression is None else re2.fullmatch(expression["regex"], value) is not None


@pytest.mark.parametrize("rule", [{}, {"method": ""}, {"headers": [], "headerMatches": []}, {"path": "", "host": ""}])
def test_what_is_empty_matches_everything(rule: dict[str, Any]):
    assert passes(rule, {})
    assert passes(rule, {":method": "OPTIONS", ":path": "*"})


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [
        ("/a", "/a", True),
        ("/a", "/a?/b", True),
        ("/.*", "/a?\xff", True),
        ("/.*", "/a?//;\n", True),
        ("/a?", "/a?b", True),
        ("//a", "//a", False),
        ("a", "a", False),
        ("/a.", "/ab", True),
        ("/a_-Z9/", "/a_-Z9/", True),
        ("/a", "/A", False),
        ("/a", "*", False),
        ("/a", "/a/b", False),
        ("/a|/b", "/b", True),
        (".*\\.css", "/admin;.css", False),
        (".*\\.css", "/admin%3B.css", False),
        (".*\\.css", "/a%3a.css", True),
        ("/.*", "/a;b/../c", False),
        ("/a;.*", "/a;b=c", True),
        ("/a;.*", "/a;b/c", False),
        ("/.*", "/%zz", False),
        ("/.*", "/\xff", False),
        ("/.*", "/a#b", False),
        ("/.+", "//", False),
        ("/.*", "/", True),
        ("/.*", "/!$&'()*+,-.:<=>@[]^_`{|}~%20%ff", True),
    ],
)
def test_paths(rule: str, path: str, expected: bool):
    assert passes({"path": rule}, {":path": path}) == expected


@pytest.mark.parametrize(
    ("rule", "host", "expected"),
    [
        ("a.example", "A.example.:8080", True),
        ("A.example$", "a.example", True),
        ("svc-.*5", "svc-1:8085", False),
        ("svc-.*5", "svc-15:80", True),
        (".*[^a-z]", "evil.", False),
        ("a.example:80", "a.example:80", True),
        ("a.example:80", "a.example", False),
        ("(?:a|b):80", "b:80", True),
        ("(?:a|b)", "b:80", True),
        (".*", "a@b", False),
        (".*", "a,b", False),
        (".*", "a..", False),
        (".*", "[fd00::1]:80", True),
    ],
)
def test_hosts(rule: str, host: str, expected: bool):
    assert passes({"host": rule}, {":authority": host}) == expected


@pytest.mark.parametrize(
    ("rule", "headers", "expected"),
    [
        ({"headers": ["X-Role: user"]}, {"x-role": "user"}, True),
        ({"headers": ["X-Role: user"]}, {"x-role": "user,admin"}, False),
        ({"headers": ["X-Role: user"]}, {}, False),
        ({"headers": ["X-Role"]}, {"x-role": ""}, True),
        ({"headerMatches": [{"name": "X-Role", "value": "user"}]}, {"x-role": "admin"}, False),
        ({"headerMatches": [{"name": "X-Role", "value": "user", "mismatch": "LOG"}]}, {}, True),
        ({"headerMatches": [{"name": "X-Role"}], "method": "GET|HEAD"}, {"x-role": "a", ":method": "HEAD"}, True),
        ({"headerMatches": [{"name": "X-Role"}], "method": "GET"}, {"x-role": "a", ":method": "GETS"}, False),
    ],
)
def test_headers_and_methods(rule: dict[str, Any], headers: dict[str, str], expected: bool):
    assert passes(rule, headers) == expected


def test_names_with_underscores_are_refused_where_rules_read_their_twins():
    assert underscores([http({"path": "/a"}, {"headers": ["X-Role: a"]})]) == "REJECT_REQUEST"
    assert underscores([None, http({"headerMatches": [{"name": "x-role"}]})]) == "REJECT_REQUEST"
    assert underscores([http({"headers": ["role: a-b"]}, {"path": "/a-b"})]) == "ALLOW"
    assert underscores([None]) == "ALLOW"


def test_sections_add_up_and_one_without_rules_allows_everything():
    assert list(compiled([http({"path": "/a"}), http({"path": "/b"}, {"path": "/c"})]).rules) == [
        "0/0",
        "1/0",
        "1/1",
    ]
    assert list(compiled([http({"path": "/a"}), None]).rules) == ["any"]
    assert compiled([http()]).rules == {}  # nothing is allowed


def changed(rule: Any, headers: dict[str, str], there: Any = ()) -> list[str]:
    """The actions of a rule on such a request, in order."""
    return [
        match.mismatch
        for match, when in compiled([http(rule)], there).changes.items()
        if any(by_rbac(each["permissions"][0], headers) for each in when)
    ]


@pytest.mark.parametrize(
    ("matches", "headers", "expected"),
    [
        ([{"name": "X-A", "value": "1", "mismatch": "ADD"}], {}, ["ADD"]),
        ([{"name": "X-A", "value": "1", "mismatch": "ADD"}], {"x-a": "1"}, []),
        ([{"name": "X-A", "value": "1", "mismatch": "ADD"}], {"x-a": "1,1"}, ["ADD"]),
        ([{"name": "x-a", "mismatch": "REPLACE"}], {}, ["REPLACE"]),
        ([{"name": "x-a", "mismatch": "REPLACE"}], {"x-a": ""}, []),
        ([{"name": "x-a", "mismatch": "DELETE"}], {"x-a": ""}, []),
        ([{"name": "x-a", "value": "1", "mismatch": "LOG"}], {}, []),
        (
            [{"name": "x-a", "value": "1", "mismatch": each} for each in ("ADD", "REPLACE", "DELETE")],
            {"x-a": "2"},
            ["DELETE", "REPLACE", "ADD"],
        ),
    ],
)
def test_what_is_changed(matches: list[dict[str, str]], headers: dict[str, str], expected: list[str]):
    assert changed({"headerMatches": matches}, headers) == expected
    assert passes({"headerMatches": matches}, headers)  # it passes all the same


def test_only_what_matches_is_changed():
    """Also where another rule lets every request through; a match that fails without an action leaves all as it is."""
    add = {"name": "x-a", "value": "1", "mismatch": "ADD"}
    rule = {"method": "GET", "headerMatches": [add, {"name": "x-b", "value": "2"}]}
    assert changed(rule, {":method": "GET", "x-b": "2"}) == ["ADD"]
    assert changed(rule, {":method": "GET", "x-b": "3"}) == []
    assert changed(rule, {":method": "PUT", "x-b": "2"}) == []
    both = compiled([None, http(rule), http({"path": "/a", "headerMatches": [add]})])
    assert list(both.rules) == ["any"]
    ((match, when),) = both.changes.items()  # once, for either
    assert (match.mismatch, len(when), len(deciding(both.changes)), len(changing(both.changes))) == ("ADD", 2, 1, 1)


TOKEN = SecretRef("shop", "token")
NAMED = {"namespace": "shop", "name": "token"}


@pytest.mark.parametrize("mismatch", ["", "LOG", "ADD", "DELETE", "REPLACE"])
def test_a_rule_whose_secret_is_not_there_never_matches(mismatch: str):
    """But for a value that stands in; other rules go on."""
    match = {"name": "x-a", "secret": NAMED, "mismatch": mismatch}
    section = http({"headerMatches": [match]}, {"path": "/b"})
    without = compiled([section])
    assert list(without.rules) == ["0/1"] and not without.changes and not without.secrets
    other = compiled([section], {SecretRef("shop", "token", foreign=True)})
    assert other == without
    stands_in = compiled([http({"headerMatches": [match | {"value": "1"}]})])
    assert list(stands_in.rules) == ["0/0"] and not stands_in.secrets
    there = compiled([section], {TOKEN})
    assert list(there.rules) == ["0/0", "0/1"] and there.secrets == {TOKEN}
    assert "condition" in policies(there)["0/0"] and "condition" not in policies(there)["0/1"]
    assert [each.mismatch for each in there.changes] == ([mismatch] if mismatch in ("ADD", "DELETE", "REPLACE") else [])
    assert "shop/token:value" in json.dumps(remembering(there.secrets))


def test_values_are_no_formats():
    """A percent sign in a rule is one."""
    made = changing(compiled([http({"headerMatches": [{"name": "a", "value": "%X%", "mismatch": "ADD"}]})]).changes)
    assert '"value": "%%X%%"' in json.dumps(made)


UNSUPPORTED = [
    http({}, terminatingTLS={"secret": {"name": "s"}}),
    L7("dns", json.dumps({"rules": ["a."]})),
    L7("listener", json.dumps({"rules": {}})),
    L7("tls", json.dumps({"serverNames": ["a.test"], "originatingTLS": {"secret": {"name": "s"}}})),
]


@pytest.mark.parametrize("section", UNSUPPORTED)
def test_what_envoy_cannot_be_given_has_no_listener(section: L7):
    assert "not supported" in unserved(HttpSections(Direction.INGRESS, (section,)))
    good = HttpSections(Direction.EGRESS, (http({"path": "/a"}),))
    made = snapshot({10001: HttpSections(Direction.INGRESS, (section,)), 10002: good})
    assert list(made[LISTENER]) == ["policy/egress/10002"]
    assert list(made[CLUSTER]) == [ORIGINAL_DESTINATION]


@pytest.mark.parametrize("section", [section for section in UNSUPPORTED if section.parser != "http"])
def test_what_is_no_http_has_no_listener_beside_a_rule_for_everything_either(section: L7):
    both = HttpSections(Direction.EGRESS, (None, section))
    assert "not supported" in unserved(both)
    assert snapshot({10001: both})[LISTENER] == {}


def test_a_change_leaves_other_listeners_as_they_are():
    """They are not made again: with many, that would take seconds in which the agent does nothing else."""
    one, two = (HttpSections(Direction.INGRESS, (L7("http", f'{{"rules": [{{"path": "/{n}"}}]}}'),)) for n in (1, 2))
    before = snapshot({10001: one, 10002: two})[LISTENER]
    after = snapshot({10001: one, 10003: two})[LISTENER]
    assert after["policy/ingress/10001"] is before["policy/ingress/10001"]
    assert after["policy/ingress/10003"] != before["policy/ingress/10002"]
    assert snapshot({10001: one}, shown=("x-team",))[LISTENER] != snapshot({10001: one})[LISTENER]
