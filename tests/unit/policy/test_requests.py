"""Which rules a proxy's verdict came from."""

import pytest

from mycel.model.workload import IdentityId
from mycel.policy.parse import parse_policy
from mycel.policy.parties import party_of
from mycel.policy.requests import Asked, deciding
from mycel.policy.rules import L7, ContainerPort, Rule
from tests.unit.policy.worlds import cnp, into, out_of, pods, to_ports

HTTP = to_ports("80/TCP", rules={"http": [{"method": "GET"}, {"method": "PUT"}]})
OTHER = to_ports("80/TCP", rules={"http": [{"path": "/x"}]})
NAMES = to_ports("53/UDP", rules={"dns": [{"matchPattern": "*.a"}]})
POD = ("k8s:io.kubernetes.pod.namespace=shop", "k8s:io.cilium.k8s.policy.cluster=default")
WEB, JOB = (party_of(IdentityId(number), (f"k8s:app={app}", *POD)) for number, app in ((300, "web"), (301, "job")))


def rules(*policies: dict[str, object]) -> list[Rule]:
    sides = [side for each in policies for policy in parse_policy(each) for side in policy.sides]
    return [rule for side in sides for rule in side.rules]


INGRESS = rules(
    cnp(
        into(
            {"fromEndpoints": [pods(app="web")], "toPorts": [*to_ports("81/TCP"), *HTTP]},
            {"fromEndpoints": [pods(app="job")], "toPorts": HTTP},
            {"toPorts": OTHER},
        )
    )
)
BY_HTTP, BY_OTHER = (next(each.l7 for each in INGRESS if each.l7 and word in each.l7.rules) for word in ("GET", "/x"))


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        (Asked(6, 80, denied=False, rule="0/1"), ["spec.ingress[0].toPorts[1].rules.http[1]"]),
        (Asked(6, 80, denied=False, rule="1/0"), ["spec.ingress[2].toPorts[0].rules.http[0]"]),
        (
            Asked(6, 80, denied=True),
            ["spec.ingress[0].toPorts[1].rules.http", "spec.ingress[2].toPorts[0].rules.http"],
        ),
        (Asked(6, 80, denied=False, rule="7/0"), []),
        (Asked(6, 80, denied=False, rule="none"), []),
        (Asked(6, 80, denied=False), []),
        (Asked(6, 82, denied=True), []),
    ],
)
def test_by_what_envoy_calls_its_rules(asked: Asked, fields: list[str]) -> None:
    """Only those about the peer and port, though others have equal sections; a denial names all that were asked."""
    found = deciding(INGRESS, (BY_HTTP, BY_OTHER), asked, peer=WEB)
    assert [each.field for each in found] == fields


def test_a_rule_without_requests() -> None:
    """Lets every request pass, and is told apart from others of its peer."""
    everything = rules(cnp(into({"fromEndpoints": [pods(app="job")]}, {"toPorts": OTHER})))
    sections: tuple[L7 | None, ...] = (None, BY_OTHER)
    assert [
        each.field for each in deciding(everything, sections, Asked(6, 80, denied=False, rule="any"), peer=JOB)
    ] == ["spec.ingress[0]"]


def test_names_that_were_asked_for() -> None:
    """By the selectors; peers of the outside may be known by more than their address."""
    egress = rules(cnp(out_of({"toFQDNs": [{"matchName": "dns.example"}], "toPorts": NAMES})))
    section = egress[0].l7
    outside = party_of(IdentityId(2), ("reserved:world",))
    for query, denied, fields in (
        ("x.a.", False, ["spec.egress[0].toPorts[0].rules.dns"]),
        ("x.b.", False, []),
        ("x.b.", True, ["spec.egress[0].toPorts[0].rules.dns"]),
    ):
        found = deciding(egress, (section,), Asked(17, 53, denied=denied, query=query), peer=outside)
        assert [each.field for each in found] == fields


def test_names_of_tls_servers() -> None:
    """Whichever of its names was asked for; a connection with another is denied by all that were asked."""
    egress = rules(
        cnp(
            out_of(
                {"toPorts": to_ports("443/TCP", serverNames=["a.test", "*.b.test"])},
                {"toPorts": to_ports("443/TCP", serverNames=["c.test"])},
            )
        )
    )
    sections = tuple(each.l7 for each in egress)
    outside = party_of(IdentityId(2), ("reserved:world",))
    fields = [f"spec.egress[{number}].toPorts[0].serverNames" for number in range(2)]
    for asked, expected in (
        (Asked(6, 443, denied=False, rule="1/0"), fields[1:]),
        (Asked(6, 443, denied=True), fields),
    ):
        assert [each.field for each in deciding(egress, sections, asked, peer=outside)] == expected


def test_named_ports_are_the_servers() -> None:
    named = rules(cnp(into({"toPorts": to_ports("web/TCP", rules={"http": [{}]})})))
    ports = [ContainerPort("web", 8080, 6)]
    asked = Asked(6, 8080, denied=False, rule="0/0")
    found = deciding(named, (named[0].l7,), asked, peer=None, named_ports=ports)
    assert [each.field for each in found] == ["spec.ingress[0].toPorts[0].rules.http[0]"]
    assert deciding(named, (named[0].l7,), asked, peer=None) == ()
