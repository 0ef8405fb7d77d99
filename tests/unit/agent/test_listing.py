"""What proxies listen on, as people see it: why a listener is there, and what its proxy says."""

from __future__ import annotations

import pytest

from mycel.agent import dbg, views
from mycel.agent.proxy.listing import Listener, Proxy, State, bound, of_config, of_policies
from mycel.envoy.config.read import read
from mycel.envoy.delta import Outcome
from mycel.envoy.resources import LISTENER, Version
from tests.unit.envoy.config.objects import cluster, config, listener, routes
from tests.unit.policy.test_engine import DB, WEB, engine
from tests.unit.policy.worlds import cnp, pods


def ports(number: int, **rules: object) -> list[dict[str, object]]:
    """toPorts with rules for a proxy."""
    return [{"ports": [{"port": str(number), "protocol": "ANY" if "dns" in rules else "TCP"}], "rules": rules}]


HTTP = ports(80, http=[{"method": "GET", "path": "/a"}, {"headers": ["X-Team: a"]}, {}])
DNS = ports(53, dns=[{"matchName": "a.example"}])
POLICY = cnp(
    {
        "endpointSelector": pods(app="web"),
        "ingress": [{"fromEndpoints": [pods(app="cart")], "toPorts": HTTP}, {"fromEndpoints": [pods(app="db")]}],
        "egress": [{"toEntities": ["world"], "toPorts": DNS}],
    }
)


@pytest.mark.parametrize(
    ("version", "error", "state"),
    [
        (None, None, State.WAITING),
        (Version("1"), None, State.ACKNOWLEDGED),
        (Version("1"), "bad address", State.REFUSED),
    ],
)
def test_listeners_of_policies(version: Version | None, error: str | None, state: State) -> None:
    """Each with the rules that want it, and Envoy's words where it refuses."""
    made = engine(POLICY)
    subjects = [made.subject(WEB), made.subject(DB)]
    ((port, http),) = made.http_listeners.items()
    name = f"policy/ingress/{port}"
    outcome = Outcome(LISTENER, name, version, error) if version else None
    envoy, dns = of_policies(made, subjects, lambda *_: outcome, frozenset())
    assert http.direction.name.lower() == envoy.direction == "ingress"
    assert (envoy.port, envoy.proxy, envoy.name, envoy.state, envoy.words) == (
        port,
        Proxy.ENVOY,
        name,
        state,
        error or "",
    )
    assert envoy.origins == (f"{POLICY['kind']} shop/{POLICY['metadata']['name']} spec.ingress[0]",)
    assert envoy.rules == ("GET /a", "header X-Team: a", "every request")
    assert (dns.proxy, dns.direction, dns.rules, dns.state) == (Proxy.DNS, "egress", ("a.example.",), State.WAITING)
    assert dns.origins == (f"{POLICY['kind']} shop/{POLICY['metadata']['name']} spec.egress[0]",)
    assert of_policies(made, subjects, lambda *_: outcome, frozenset({dns.port}))[1].state is State.ACKNOWLEDGED


def of_tls(section: dict[str, object]) -> Listener:
    """The listener of a section about TLS."""
    tls = [{"ports": [{"port": "443", "protocol": "TCP"}], **section}]
    made = engine(cnp({"endpointSelector": pods(app="web"), "egress": [{"toPorts": tls}]}))
    (found,) = of_policies(made, [made.subject(WEB)], lambda *_: None, frozenset())
    return found


def test_names_of_servers() -> None:
    found = of_tls({"serverNames": ["B.example.", "*.a.example"]})
    assert (found.rules, found.state) == (("TLS *.a.example", "TLS b.example"), State.WAITING)


@pytest.mark.parametrize(
    "section", [{"terminatingTLS": {"secret": {"name": "s"}}}, {"serverNames": ["a.test", "a.*.test"]}]
)
def test_rules_no_listener_can_serve_say_so(section: dict[str, object]) -> None:
    """In our words: Envoy was never asked."""
    found = of_tls(section)
    assert (found.state, "not supported" in found.words) == (State.REFUSED, True)


def test_listeners_of_a_config() -> None:
    """And the one for clients of the outside, where that is another."""
    item = config(listener(), routes(), cluster(), services=[{"name": "api", "ports": [80]}])
    item["metadata"]["labels"] = {"cilium.io/use-original-source-address": "false"}
    numbers = iter((20001, 20002))
    made = read(item, lambda _name: next(numbers), ingress="10.244.1.254")
    found = of_config(made, listens=True, words="")
    assert [(each.port, each.direction, each.rules) for each in found] == [
        (20001, "service", ("service shop/api",)),
        (20002, "outside", ("service shop/api",)),
    ]
    assert {each.origins for each in found} == {("CiliumEnvoyConfig shop/mesh",)}
    assert {each.state for each in of_config(made, listens=False, words="")} == {State.WAITING}
    assert {each.state for each in of_config(made, listens=False, words="no")} == {State.REFUSED}


def test_who_is_bound() -> None:
    """Of the kernel's table, only what is at the proxies' address."""
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr uid timeout inode\n"
    rows = " 13: 080000C0:3A99 00000000:0000 07 0:0 0:0 0 0 0 7\n 14: 0100007F:0035 00000000:0000 07 0:0 0:0 0 0 0 8\n"
    assert bound(head) == frozenset()
    assert bound(head + rows) == {15001}


def test_they_are_in_status_and_lists() -> None:
    """In the shape stock tools read, and as a table."""
    made = engine(POLICY)
    found = of_policies(made, [made.subject(WEB)], lambda *_: None, frozenset())
    status = views.status(
        waiting_for=(),
        problems=(),
        kubernetes="",
        hubble="",
        flows_lost="",
        redirects=[each.as_redirect() for each in found],
        node="n1",
        cluster="default",
        addresses_used=(1, 254),
        router="10.244.1.1",
        targets=(),
        version="1.19.4",
        nodes=["n1"],
    )
    assert status["proxy"]["total-redirects"] == len(status["proxy"]["redirects"]) == 2
    assert {each["proxy-port"] for each in status["proxy"]["redirects"]} == {each.port for each in found}
    assert "2 redirects" in dbg.show_status(status)
    table = dbg.show_proxy([each.as_json() for each in found]).splitlines()
    assert table[0].split()[:3] == ["Port", "Proxy", "Direction"]
    assert "GET /a; header X-Team: a; every request" in table[1]
