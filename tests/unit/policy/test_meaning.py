"""What policies mean, line by line: who is selected, what absent and empty say, who wins."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.worlds import ask, ccnp, cnp, into, knp, out_of, pods, to_ports, verdict

FROM_DB = {"fromEndpoints": [pods(app="db")]}
A, D, P = "allowed", "denied", "l7"

# ---- default deny

DEFAULT_DENY = [
    ("no policy", [], A),
    ("a selecting policy without a match", [cnp(into(FROM_DB, app="web"))], D),
    ("another direction", [cnp(out_of({"toEndpoints": [pods(app="db")]}))], A),
    ("another namespace", [cnp(into(FROM_DB), place="bank/p")], A),
    ("an empty entry", [cnp(into({}))], D),
    ("an empty denial", [cnp({"endpointSelector": {}, "ingressDeny": [{}]})], D),
    ("a denial of others", [cnp({"endpointSelector": {}, "ingressDeny": [FROM_DB]})], D),
    (
        "a denial of others without default deny",
        [cnp({"endpointSelector": {}, "ingressDeny": [FROM_DB], "enableDefaultDeny": {"ingress": False}})],
        A,
    ),
    ("an allowance without default deny", [cnp(into(FROM_DB, enableDefaultDeny={"ingress": False}))], A),
    (
        "one policy with default deny is enough",
        [cnp(into(FROM_DB, enableDefaultDeny={"ingress": False})), cnp(into(FROM_DB), place="shop/q")],
        D,
    ),
    (
        "switched on for a direction without entries",
        [cnp(out_of({"toEntities": ["all"]}, enableDefaultDeny={"ingress": True}))],
        D,
    ),
    ("of nodes", [ccnp({"nodeSelector": {}, "ingress": [{"fromEntities": ["none"]}]})], A),
    ("Kubernetes: nothing said of ingress", [knp({"podSelector": {}})], D),
    ("Kubernetes: egress only", [knp({"podSelector": {}, "policyTypes": ["Egress"], "egress": []})], A),
]


@pytest.mark.parametrize(
    ("policies", "expected"), [row[1:] for row in DEFAULT_DENY], ids=[row[0] for row in DEFAULT_DENY]
)
def test_default_deny(policies: list[Any], expected: str) -> None:
    """bank/web to shop/web."""
    assert verdict(policies, "bank/web", "shop/web") == expected


# ---- absent and empty

EMPTY = [
    ("fromEndpoints", {"fromEndpoints": [], "toPorts": to_ports("80/TCP")}, D),
    ("fromEntities", {"fromEntities": [], "toPorts": to_ports("80/TCP")}, D),
    ("fromCIDR", {"fromCIDR": [], "toPorts": to_ports("80/TCP")}, D),
    ("fromCIDRSet", {"fromCIDRSet": [], "toPorts": to_ports("80/TCP")}, D),
    ("fromNodes", {"fromNodes": [], "toPorts": to_ports("80/TCP")}, D),
    ("fromGroups is as absent", {"fromGroups": [], "toPorts": to_ports("80/TCP")}, A),
    ("null is absent", {"fromEndpoints": None, "toPorts": to_ports("80/TCP")}, A),
    ("ports alone", {"toPorts": to_ports("80/TCP")}, A),
    ("toPorts is as absent", {"fromEntities": ["cluster"], "toPorts": []}, A),
    ("ports empty", {"fromEntities": ["cluster"], "toPorts": [{"ports": []}]}, D),
    ("ports absent", {"fromEntities": ["cluster"], "toPorts": [{}]}, D),
    ("icmps is as absent", {"fromEntities": ["cluster"], "icmps": []}, A),
    ("icmps without fields", {"fromEntities": ["cluster"], "icmps": [{}]}, D),
    ("none", {"fromEntities": ["none"]}, D),
    ("rules without rules", {"toPorts": to_ports("80/TCP", rules={})}, A),
    ("http without requests", {"toPorts": to_ports("80/TCP", rules={"http": []})}, A),
    ("http", {"toPorts": to_ports("80/TCP", rules={"http": [{}]})}, P),
]


@pytest.mark.parametrize(("entry", "expected"), [row[1:] for row in EMPTY], ids=[row[0] for row in EMPTY])
def test_absent_and_empty(entry: Any, expected: str) -> None:
    """One ingress entry about shop/web; bank/web asks on port 80."""
    assert verdict([cnp(into(entry))], "bank/web", "shop/web") == expected


def test_empty_lists_of_egress_that_say_nothing() -> None:
    """toServices and toFQDNs are not among the lists that select nobody."""
    for name in ("toServices", "toFQDNs"):
        assert verdict([cnp(out_of({name: [], "toPorts": to_ports("80")}))], "shop/web", "bank/web") == A
    named = [{"matchName": "example.com"}]
    assert verdict([cnp(out_of({"toFQDNs": named}))], "shop/web", "1.2.3.4") == D


def test_kubernetes_empties_are_everybody() -> None:
    """Other than in Cilium's own policies."""
    for rule in ({}, {"from": []}, {"from": [], "ports": []}):
        assert verdict([knp({"podSelector": {}, "ingress": [rule]})], "bank/web", "shop/web") == A


# ---- who is meant

SCOPES = [
    ("{} is the policy's namespace", cnp(into({"fromEndpoints": [{}]})), D),
    (
        "another namespace named",
        cnp(into({"fromEndpoints": [pods(**{"k8s__io.kubernetes.pod.namespace": "bank"})]})),
        A,
    ),
    (
        "a namespace's label named",
        cnp(into({"fromEndpoints": [pods(**{"io.cilium.k8s.namespace.labels.team": "b"})]})),
        A,
    ),
    ("clusterwide {} is every pod", ccnp(into({"fromEndpoints": [{}]})), A),
    ("another cluster", ccnp(into({"fromEndpoints": [pods(**{"io.cilium.k8s.policy.cluster": "west"})]})), D),
    ("service account", ccnp(into({"fromEndpoints": [pods(**{"io.cilium.k8s.policy.serviceaccount": "sa"})]})), A),
    ("a pod has no labels of other sources", ccnp(into({"fromEndpoints": [pods(node__app="web")]})), D),
    (
        "reserved is taken as written",
        cnp(into({"fromEndpoints": [{"matchExpressions": [{"key": "reserved:init", "operator": "DoesNotExist"}]}]})),
        A,
    ),
    ("Kubernetes: pods of the namespace", knp({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}), D),
    (
        "Kubernetes: a namespace's pods",
        knp({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": pods(team="b")}]}]}),
        A,
    ),
    (
        "Kubernetes: both at once",
        knp({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": pods(app="db")}]}]}),
        D,
    ),
]


@pytest.mark.parametrize(("policy", "expected"), [row[1:] for row in SCOPES], ids=[row[0] for row in SCOPES])
def test_scopes(policy: Any, expected: str) -> None:
    """bank/web to shop/web."""
    assert verdict([policy], "bank/web", "shop/web") == expected


def test_a_subject_stays_in_its_namespace() -> None:
    """Whatever the selector says (CVE-2023-41333), reserved labels included."""
    for selector in (
        pods(**{"k8s__io.kubernetes.pod.namespace": "bank"}),
        {"matchExpressions": [{"key": "reserved:init", "operator": "DoesNotExist"}]},
    ):
        policy = cnp({"endpointSelector": selector, "ingress": [{}]})
        assert verdict([policy], "shop/web", "bank/web") == A
        assert verdict([policy], "bank/web", "shop/web") == D


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ["web", "x"], A),
        ("In", ["x"], D),
        ("NotIn", ["web"], D),
        ("NotIn", ["x"], A),
        ("Exists", [], A),
        ("DoesNotExist", [], D),
    ],
)
def test_expressions(operator: str, values: list[str], expected: str) -> None:
    """On the label app of bank/web; on a label nobody has, NotIn matches."""
    expression = {"key": "app", "operator": operator} | ({"values": values} if values else {})
    assert (
        verdict([ccnp(into({"fromEndpoints": [{"matchExpressions": [expression]}]}))], "bank/web", "shop/web")
        == expected
    )
    missing = {"key": "colour", "operator": "NotIn", "values": ["red"]}
    assert verdict([ccnp(into({"fromEndpoints": [{"matchExpressions": [missing]}]}))], "bank/web", "shop/web") == A


ENTITIES = {
    "shop/db": {"cluster", "cluster-mesh", "all"},
    "1.2.3.4": {"world", "world-ipv4", "all"},
    "2001:db8::1": {"world", "world-ipv6", "all"},
    "remote-node": {"remote-node", "cluster", "cluster-mesh", "all"},
    "kube-apiserver": {"kube-apiserver", "host", "cluster", "cluster-mesh", "all"},
    "172.18.0.3": {"remote-node", "cluster", "cluster-mesh", "all"},
}


@pytest.mark.parametrize("peer", ENTITIES)
def test_entities(peer: str) -> None:
    """Which entities an end of a connection is among; the API server runs on the subject's node."""
    names = (
        "all",
        "cluster",
        "cluster-mesh",
        "world",
        "world-ipv4",
        "world-ipv6",
        "host",
        "remote-node",
        "kube-apiserver",
        "health",
        "none",
    )
    allowed = {name for name in names if verdict([cnp(out_of({"toEntities": [name]}))], "shop/web", peer) == A}
    assert allowed == ENTITIES[peer]


API_OUTSIDE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {
        "name": "kubernetes",
        "namespace": "default",
        "labels": {"kubernetes.io/service-name": "kubernetes"},
    },
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["1.2.3.4"]}],
}


@pytest.mark.parametrize("peer", ["1.2.3.4", "kube-apiserver"])
def test_an_api_server_outside_is_of_the_world(peer: str) -> None:
    """By its labels: world and kube-apiserver, so of the cluster, too, and of no node; CIDRs are about its address."""
    cluster_of_it: list[dict[str, Any]] = [
        {"toEntities": [name]} for name in ("world", "world-ipv4", "kube-apiserver", "cluster", "all")
    ]
    by_address: list[dict[str, Any]] = [
        {"toCIDR": ["1.2.3.4"]},
        {"toCIDR": ["1.0.0.0/8"]},
        {"toCIDRSet": [{"cidr": "0.0.0.0/0", "except": ["1.2.3.5/32"]}]},
        {"toServices": [{"k8sService": {"serviceName": "kubernetes", "namespace": "default"}}]},
    ]
    service = {"kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {}}
    for entry in (*cluster_of_it, *by_address):
        assert verdict([cnp(out_of(entry))], "shop/web", peer, extra=[API_OUTSIDE, service]) == A, entry
    block = {"ipBlock": {"cidr": "1.2.0.0/16"}}
    kubernetes = knp({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [block]}]})
    assert verdict([kubernetes], "shop/web", peer, extra=[API_OUTSIDE]) == A
    denied: list[dict[str, Any]] = [
        *({"toEntities": [name]} for name in ("remote-node", "host", "world-ipv6", "none")),
        {"toCIDRSet": [{"cidr": "1.0.0.0/8", "except": ["1.2.3.4/32"]}]},
        {"toEndpoints": [{}]},
    ]
    for entry in denied:
        assert verdict([cnp(out_of(entry))], "shop/web", peer, extra=[API_OUTSIDE]) == D, entry
    assert verdict([cnp(out_of({"toEntities": ["kube-apiserver"]}))], "shop/web", "1.2.3.5", extra=[API_OUTSIDE]) == D
    assert verdict([cnp(out_of({"toEntities": ["kube-apiserver"]}))], "shop/web", "host", extra=[API_OUTSIDE]) == D


def test_the_node_enters_its_pods_and_only_its_own() -> None:
    """Probes come from there; only a denial stops them, by whatever it names the node."""
    policy = cnp({"endpointSelector": {}, "ingress": [{"fromEntities": ["none"]}]})
    assert ask([policy], "172.18.0.2", "shop/web")["ingress"] == {"verdict": A, "reason": A, "rules": []}
    assert verdict([policy], "172.18.0.3", "shop/web") == D
    denied = {"verdict": D, "reason": "deny-rule", "rules": ["CiliumNetworkPolicy shop/p spec.ingressDeny[0]"]}
    by = [{"fromEntities": [entity]} for entity in ("all", "host", "cluster", "kube-apiserver")]
    for denial in (*by, {"toPorts": to_ports("80/TCP")}, {"fromEndpoints": [pods(**{"reserved:host": ""})]}):
        policy = cnp({"endpointSelector": {}, "ingressDeny": [denial]})
        assert ask([policy], "172.18.0.2", "shop/web")["ingress"] == denied, denial
        assert verdict([policy], "shop/web", "shop/web") == A
    settings = {"kind": "ConfigMap", "metadata": {"name": "cilium-config"}, "data": {"policy-cidr-match-mode": "nodes"}}
    outside = cnp({"endpointSelector": {}, "ingressDeny": [{"fromCIDR": ["172.18.0.0/24"]}]})
    assert ask([outside], "172.18.0.2", "shop/web")["ingress"]["verdict"] == A
    assert ask([outside, settings], "172.18.0.2", "shop/web")["ingress"] == denied


# ---- addresses


def test_cidr_is_about_the_outside() -> None:
    """Not about pods and nodes, however well it fits; except takes out, and denies nothing."""
    entry = {"toCIDRSet": [{"cidr": "0.0.0.0/0", "except": ["1.2.0.0/16"]}]}
    policy = cnp(out_of(entry))
    for peer, expected in (("1.1.1.1", A), ("1.2.3.4", D), ("shop/db", D), ("172.18.0.3", D), ("2001:db8::1", D)):
        assert verdict([policy], "shop/web", peer) == expected
    more = cnp(out_of({"toCIDR": ["1.2.3.4"]}), place="shop/q")
    assert verdict([policy, more], "shop/web", "1.2.3.4") == A
    assert verdict([policy, more], "shop/web", "1.2.3.5") == D


def test_a_denied_prefix_beats_a_narrower_allowance() -> None:
    """CVE-2024-47825: also where the allowance is for everybody, or nothing is denied by default."""
    deny = {"egressDeny": [{"toCIDR": ["10.1.0.0/16"]}], "endpointSelector": {}}
    for allow in ({"toCIDR": ["10.1.2.3/32"]}, {"toEntities": ["all"]}, {"toEntities": ["world"]}):
        for default in ({}, {"enableDefaultDeny": {"egress": False}}):
            policy = cnp(deny | {"egress": [allow]} | default)
            assert ask([policy], "shop/web", "10.1.2.3")["egress"]["reason"] == "deny-rule"


def test_ip_block_is_about_pods_too() -> None:
    """Kubernetes: by their address, so that two pods of one identity can differ."""
    block = {"cidr": "10.0.0.0/24", "except": ["10.0.0.2/32"]}
    policy = knp({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": block}]}]}, "bank/k")
    assert verdict([policy], "bank/web", "shop/web") == A
    assert verdict([policy], "bank/web", "shop/db") == D
    assert verdict([policy], "bank/web", "10.0.0.77") == A


def test_services_are_the_pods_behind_them() -> None:
    """By the service's selector, in its namespace; without one, by its slices' addresses."""
    service = {"kind": "Service", "metadata": {"name": "s", "namespace": "bank"}, "spec": {"selector": {"app": "web"}}}
    outside = {"kind": "Service", "metadata": {"name": "o", "namespace": "shop"}, "spec": {}}
    addresses = {
        "kind": "EndpointSlice",
        "metadata": {"name": "o-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "o"}},
        "endpoints": [{"addresses": ["9.9.9.9"]}],
    }
    extra = [service, outside, addresses]

    def to(name: str, space: str = "") -> Any:
        return [cnp(out_of({"toServices": [{"k8sService": {"serviceName": name, "namespace": space}}]}))]

    assert verdict(to("s", "bank"), "shop/web", "bank/web", extra=extra) == A
    assert verdict(to("s", "bank"), "shop/web", "shop/db", extra=extra) == D
    assert verdict(to("s"), "shop/web", "bank/web", extra=extra) == D
    assert verdict(to("o"), "shop/web", "9.9.9.9", extra=extra) == A
    assert verdict(to("o"), "shop/web", "9.9.9.8", extra=extra) == D


def test_cidr_groups_by_name_and_labels() -> None:
    """A group that is not there stands for nothing."""
    group = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "office", "labels": {"site": "a"}},
        "spec": {"externalCIDRs": ["5.5.0.0/16"]},
    }
    for item in ({"cidrGroupRef": "office"}, {"cidrGroupSelector": pods(site="a")}):
        policy = cnp(out_of({"toCIDRSet": [item]}))
        assert verdict([policy], "shop/web", "5.5.1.1", extra=[group]) == A
        assert verdict([policy], "shop/web", "5.6.1.1", extra=[group]) == D
        assert verdict([policy], "shop/web", "5.5.1.1") == D


# ---- ports

PORTS = [
    ("80/TCP", "80/TCP", A),
    ("80/TCP", "80/UDP", D),
    ("80", "80/UDP", A),
    ("80", "80/SCTP", A),
    ("0", "81/SCTP", A),
    ("0", "8/ICMP", D),
    ("0/UDP", "53/UDP", A),
    ("0/UDP", "53/TCP", D),
    ("1000-1999/TCP", "1999/TCP", A),
    ("1000-1999/TCP", "2000/TCP", D),
    ("80-7/TCP", "80/TCP", A),
    ("80-7/TCP", "7/TCP", D),
    ("http/TCP", "80/TCP", A),
    ("HTTP", "80/TCP", A),
    ("http/UDP", "80/UDP", D),
    ("nosuch/TCP", "80/TCP", D),
]


@pytest.mark.parametrize(("allowed", "asked", "expected"), PORTS)
def test_ports(allowed: str, asked: str, expected: str) -> None:
    """Into shop/web, whose port http is 80/TCP."""
    assert verdict([cnp(into({"toPorts": to_ports(allowed)}))], "bank/web", "shop/web", asked) == expected


def test_named_ports_of_egress_are_the_destinations() -> None:
    """The same name is 80 at shop/web and 8080 at shop/db; beside it numbers are everybody's."""
    policy = [ccnp({"endpointSelector": pods(app="web"), "egress": [{"toPorts": to_ports("http/TCP", "53/UDP")}]})]
    assert [
        verdict(policy, "bank/web", to, f"{port}/TCP") for to in ("shop/web", "shop/db") for port in (80, 8080)
    ] == [A, D, D, A]
    assert verdict(policy, "bank/web", "1.1.1.1", "53/UDP") == A


def test_rules_without_ports_are_about_everything() -> None:
    """ICMP among it."""
    policy = [cnp(into({"fromEntities": ["cluster"]}))]
    assert [verdict(policy, "bank/web", "shop/web", what) for what in ("8/ICMP", "7/UDP", "9/SCTP")] == [A, A, A]


def test_icmp_types() -> None:
    """By number and name, by family; type 0 is echo reply and nothing else."""
    for kind, allowed in ((8, 8), ("EchoRequest", 8), (0, 0), ("EchoReply", 0)):
        policy = [cnp(into({"icmps": [{"fields": [{"type": kind}]}]}))]
        assert {number for number in (0, 3, 8) if verdict(policy, "bank/web", "shop/web", f"{number}/ICMP") == A} == {
            allowed
        }
        assert verdict(policy, "bank/web", "shop/web") == D


# ---- who wins


def test_a_denial_wins_always() -> None:
    """Over narrower ports, named peers, proxies, and allowances of other APIs."""
    deny = cnp({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["cluster"]}]})
    for allow in (
        cnp(into({"fromEndpoints": [{}], "toPorts": to_ports("80/TCP")}), place="shop/a"),
        ccnp(into({"fromEndpoints": [{}], "toPorts": to_ports("80/TCP", rules={"http": [{"path": "/"}]})})),
        knp({"podSelector": {}, "ingress": [{}]}),
    ):
        assert ask([deny, allow], "shop/db", "shop/web")["ingress"]["reason"] == "deny-rule"


def test_a_denial_of_a_port_leaves_the_others() -> None:
    """And of a range what lies in it."""
    allow = {"fromEntities": ["cluster"]}
    policy = [cnp(into(allow, ingressDeny=[{"toPorts": to_ports("100-200/TCP")}]))]
    found = [verdict(policy, "shop/db", "shop/web", f"{port}/TCP") for port in (99, 100, 150, 200, 201)]
    assert found == [A, D, D, D, A]


def test_a_proxy_for_anybody_takes_who_may_do_anything() -> None:
    """The proxy's rule set is whole for them: their own allowance is in it (costs latency, not access)."""
    http = {"toPorts": to_ports("80/TCP", rules={"http": [{"path": "/a"}]})}
    plain = {"fromEndpoints": [pods(app="db")]}
    policy = [cnp(into(http, plain))]
    assert verdict(policy, "shop/db", "shop/web") == P
    assert verdict(policy, "shop/db", "shop/web", "81/TCP") == A
    assert verdict(policy, "bank/web", "shop/web") == P


def test_a_port_of_a_range_keeps_its_proxy() -> None:
    """CVE-2024-52529: a plain range must not hide it."""
    http = {"toPorts": to_ports("80/TCP", rules={"http": [{"path": "/a"}]})}
    for plain in ({"toPorts": to_ports("1-1000/TCP")}, {"fromEntities": ["cluster"]}):
        assert verdict([cnp(into(http, plain))], "shop/db", "shop/web") == P


def test_order_means_nothing() -> None:
    """Of policies and of rules."""
    rules = [{"fromEndpoints": [pods(app="db")], "toPorts": to_ports("80/TCP")}, {"fromCIDR": ["1.0.0.0/8"]}]
    one = [cnp(into(*rules)), knp({"podSelector": {}, "ingress": [{"ports": [{"port": 81}]}]})]
    other = [one[1], cnp(into(*reversed(rules)))]
    for source, what in (("shop/db", "80/TCP"), ("1.1.1.1", "7/UDP"), ("bank/web", "81/TCP"), ("bank/web", "80/TCP")):
        assert verdict(one, source, "shop/web", what) == verdict(other, source, "shop/web", what)
