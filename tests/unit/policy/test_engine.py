"""The engine as things come and go: always what a fresh one says, and no more work than needed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mycel.abi import Direction, PolicyKey, PolicyMatch, PolicyValue
from mycel.model.address import parse_address, parse_prefix
from mycel.model.workload import IdentityId
from mycel.policy.engine import Engine, PolicyKeyRef
from mycel.policy.held import ALL_IPV4
from mycel.policy.lookup import Lookup
from mycel.policy.names import FIRST_LOCAL_IDENTITY, Named
from mycel.policy.parse import parse_policy
from mycel.policy.parties import party_of, reserved_parties
from mycel.policy.rows import Prefix, prefixes
from mycel.policy.rules import LAST_PORT, Network, Party, PortMatch
from mycel.policy.subjects import Enforcement, Subject
from tests.unit.policy.worlds import cnp, into, knp, out_of, pods, to_ports


def party(number: int, app: str, namespace: str = "shop") -> Party:
    """A pod's identity."""
    labels = (
        f"k8s:app={app}",
        f"k8s:io.kubernetes.pod.namespace={namespace}",
        "k8s:io.cilium.k8s.policy.cluster=default",
    )
    return party_of(IdentityId(number), labels)


WEB, DB, CART = party(300, "web"), party(301, "db"), party(302, "cart")


def put(engine: Engine, manifest: dict[str, Any]) -> None:
    """Take a policy in."""
    metadata = manifest["metadata"]
    key = PolicyKeyRef(manifest["kind"], metadata.get("namespace", ""), metadata["name"])
    engine.set_policy(key, parse_policy(manifest))


def drop(engine: Engine, manifest: dict[str, Any]) -> None:
    """Take a policy away."""
    metadata = manifest["metadata"]
    engine.set_policy(PolicyKeyRef(manifest["kind"], metadata.get("namespace", ""), metadata["name"]), None)


def engine(*manifests: dict[str, Any], parties: tuple[Party, ...] = (WEB, DB, CART), **options: Any) -> Engine:
    """An engine with parties and policies."""
    made = Engine(**options)
    for each in (*reserved_parties(), *parties):
        made.set_party(each)
    for manifest in manifests:
        put(made, manifest)
    return made


def rows(made: Engine, subject: Subject, direction: Direction = Direction.INGRESS) -> dict[PolicyKey, PolicyValue]:
    """The rows a subject's direction has."""
    side = subject.ingress if direction == Direction.INGRESS else subject.egress
    return dict(made.one_set(side.number).rows)


FROM_CART = cnp(into({"fromEndpoints": [pods(app="cart")], "toPorts": to_ports("80/TCP")}))


def test_rows_as_the_kernel_reads_them() -> None:
    """One named row, with its match type and a number that leads to its rule."""
    made = engine(FROM_CART)
    ((key, value),) = rows(made, made.subject(WEB)).items()
    assert key == PolicyKey(64, 302, 6, 80)
    assert (value.deny, value.proxy_port, value.match) == (0, 0, PolicyMatch.L3_L4)
    assert [str(rule) for rule in made.rule(value.rule)] == ["CiliumNetworkPolicy shop/p spec.ingress[0]"]


def test_nothing_is_enforced_where_no_policy_selects() -> None:
    """No set, so the kernel does not look."""
    made = engine(FROM_CART)
    assert not made.subject(WEB).egress.enforced
    assert not made.subject(DB).ingress.enforced


def test_subjects_of_equal_policy_share_their_set() -> None:
    """And another policy is another set, so that a switch is one write of the endpoint's row."""
    policy = cnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [pods(app="cart")]}]})
    made = engine(policy)
    before = made.subject(WEB).ingress.number
    assert made.subject(DB).ingress.number == before
    put(made, cnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [pods(app="db")]}]}))
    assert made.subject(WEB).ingress.number != before
    put(made, policy)
    assert made.subject(WEB).ingress.number == before == engine(policy).subject(WEB).ingress.number


def test_identities_come_and_go_under_one_set() -> None:
    """Their rows with them; the others' are untouched, and the rows in use are never changed in place."""
    made = engine(FROM_CART)
    number = made.subject(WEB).ingress.number
    before = made.one_set(number).rows
    made.set_party(party(400, "cart"))
    after = made.one_set(number).rows
    assert PolicyKey(64, 400, 6, 80) in after and PolicyKey(64, 400, 6, 80) not in before
    made.drop_party(IdentityId(400))
    assert made.one_set(number).rows == before
    made.set_party(party(401, "other"))
    assert made.one_set(number).rows is made.one_set(number).rows == before


def test_a_prefix_has_an_identity_until_no_address_leads_to_it() -> None:
    """Its rows stay while the last plan's addresses may still lead there."""
    first, second = cnp(out_of({"toCIDR": ["10.0.0.0/8"]})), cnp(out_of({"toCIDR": ["10.1.0.0/16"]}), place="shop/q")
    made = engine(first, second)
    wide, narrow = Network(*parse_prefix("10.0.0.0/8")), Network(*parse_prefix("10.1.0.0/16"))
    identities = made.networks
    assert set(identities) == {wide, narrow} and min(identities.values()) >= FIRST_LOCAL_IDENTITY
    drop(made, second)
    subject = made.subject(WEB)
    assert set(made.networks) == {wide}
    assert {key.identity for key in rows(made, subject, Direction.EGRESS)} == set(identities.values())
    assert made.forget_retired() and not made.forget_retired()
    assert {key.identity for key in rows(made, subject, Direction.EGRESS)} == {identities[wide]}


def test_identities_of_prefixes_are_the_same_after_a_restart() -> None:
    """By what they stand for, and by what the kernel still has."""
    policy = cnp(out_of({"toCIDR": ["10.0.0.0/8"]}))
    wide = Network(*parse_prefix("10.0.0.0/8"))
    assert engine(policy).networks == engine(policy).networks
    made = engine()
    made.adopt({wide: IdentityId(FIRST_LOCAL_IDENTITY + 5)})
    put(made, policy)
    assert made.networks[wide] == FIRST_LOCAL_IDENTITY + 5
    made.forget_retired()
    assert made.networks[wide] == FIRST_LOCAL_IDENTITY + 5


def test_identities_of_prefixes_nobody_names_after_a_restart_are_given_back() -> None:
    """To whoever wants the number; those of pods' networks are not ours to give."""
    narrow = Network(*parse_prefix("10.1.0.0/16"))
    number = engine(cnp(out_of({"toCIDR": ["10.0.0.0/8"]}))).networks[Network(*parse_prefix("10.0.0.0/8"))]
    made = engine()
    made.adopt({narrow: number, Network(*parse_prefix("10.244.0.0/16")): IdentityId(2)})
    assert made.forget_retired() and not made.forget_retired()
    put(made, cnp(out_of({"toCIDR": ["10.0.0.0/8"]})))
    assert list(made.networks.values()) == [number]


API = Network(*parse_prefix("10.9.9.9/32"))
TO_API = cnp(out_of({"toEntities": ["kube-apiserver"]}))


def out(made: Engine, identity: int) -> bool:
    """Whether web may connect to an identity."""
    return Lookup(rows(made, made.subject(WEB), Direction.EGRESS)).find(identity, 6, 443) is not None


def test_an_api_server_outside_is_of_the_world_and_an_api_server() -> None:
    """Its address is a prefix, though no policy names it; it goes as prefixes go, and comes back under its number."""
    made = engine(TO_API)
    assert not made.networks
    made.set_apiservers([API])
    (number,) = made.networks.values()
    found = made.party(number)
    assert found is not None and set(found.labels) == {"world", "world-ipv4", "kube-apiserver"} and out(made, number)
    made.set_apiservers([])
    assert not made.networks and out(made, number)  # an address may lead to it until the next plan is in the kernel
    assert made.forget_retired() and not out(made, number)
    made.set_apiservers([API])
    assert made.networks == {API: number}


def test_an_api_server_may_have_the_prefix_of_a_policy() -> None:
    """One identity, which has the label as long as the API server is there, whoever was there first."""
    by_address = cnp(out_of({"toCIDR": [str(API)]}), place="shop/q")
    made = engine(TO_API, by_address)
    (number,) = made.networks.values()
    made.set_apiservers([API])
    assert made.networks == {API: number} and "kube-apiserver" in made.party(number).labels  # type: ignore[union-attr]
    drop(made, by_address)
    assert not made.forget_retired() and out(made, number)
    put(made, by_address)
    made.set_apiservers([])
    assert made.networks == {API: number} and "kube-apiserver" not in made.party(number).labels  # type: ignore[union-attr]
    drop(made, by_address)
    assert made.forget_retired() and not made.networks


def test_an_api_server_of_a_known_name_is_still_one() -> None:
    """Labels follow the network: of identities given before it was known, and after."""
    made = engine(TO_API, cnp(out_of({"toFQDNs": [{"matchName": "api.example"}]}, app="db"), place="shop/q"))
    early, late = Named(("api.example.",), API), Named(("api.example.", "x."), API)
    before = made.names.identity(early)
    assert not out(made, before)
    made.set_apiservers([API])
    assert out(made, before) and out(made, made.names.identity(late))
    assert not out(made, made.names.identity(Named(("api.example.",), ALL_IPV4)))
    made.set_apiservers([])
    assert not out(made, before) and not out(made, made.names.identity(late))


def test_the_identity_of_an_api_server_is_the_same_after_a_restart() -> None:
    """By what the kernel still has."""
    made = engine(TO_API)
    made.adopt({API: IdentityId(FIRST_LOCAL_IDENTITY + 5)})
    made.set_apiservers([API])
    assert not made.forget_retired()
    assert made.networks == {API: FIRST_LOCAL_IDENTITY + 5} and out(made, FIRST_LOCAL_IDENTITY + 5)


def test_addresses_of_one_identity_are_told_apart() -> None:
    """Where an ipBlock does; the alias goes when nobody needs it."""
    block = knp({"podSelector": pods(app="web"), "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}]})
    made = engine(block)
    subject = made.subject(WEB)
    inside, outside = parse_address("10.0.0.1"), parse_address("10.0.0.2")
    aliases = made.aliases([(302, inside), (302, outside)])
    assert list(aliases) == [inside]
    lookup = Lookup(rows(made, subject))
    assert lookup.find(aliases[inside], 6, 80) is not None and lookup.find(302, 6, 80) is None
    drop(made, block)
    assert made.aliases([(302, inside), (302, outside)]) == {}
    assert made.forget_retired() and made.party(aliases[inside]) is None


def test_too_many_rows_close_the_set() -> None:
    """Rather than leave chance which are missing; it opens again when they fit."""
    policy = cnp(into({"fromEndpoints": [{}]}, ingressDeny=[{"toPorts": to_ports("22/TCP")}]))
    made = engine(policy, row_limit=3)
    number = made.subject(WEB).ingress.number
    assert made.one_set(number).overflows and made.one_set(number).rows == {}
    made.drop_party(CART.identity)
    made.drop_party(DB.identity)
    fits = made.one_set(number)
    assert not fits.overflows and Lookup(fits.rows).find(300, 6, 22) is not None
    made.set_party(DB)
    made.set_party(CART)
    assert made.one_set(number).overflows and made.one_set(number).rows == {}


@pytest.mark.parametrize(("mode", "enforced"), [(Enforcement.ALWAYS, True), (Enforcement.NEVER, False)])
def test_enforcement_modes(mode: Enforcement, enforced: bool) -> None:
    """`always` closes pods that no policy is about, `never` opens all."""
    made = engine(FROM_CART, enforcement=mode)
    assert made.subject(WEB).ingress.enforced == made.subject(DB).egress.enforced == enforced
    if enforced:
        assert rows(made, made.subject(DB)) == {}


def test_any_order_of_changes_ends_as_a_fresh_start() -> None:
    """Random policies and identities come, change and go."""
    for seed in range(20):
        chance = random.Random(seed)
        parties = [party(300 + number, chance.choice(("web", "db", "cart"))) for number in range(6)]
        peers = ([{}], [pods(app="db")], [pods(app="cart"), pods(app="web")])
        policies = [
            cnp(
                {
                    "endpointSelector": chance.choice(({}, pods(app="web"))),
                    chance.choice(("ingress", "ingressDeny")): [
                        {
                            "fromEndpoints": chance.choice(peers),
                            "toPorts": to_ports(chance.choice(("80/TCP", "1-99", "0/UDP"))),
                        },
                        {"fromCIDR": [chance.choice(("10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24"))]},
                    ],
                },
                place=f"shop/p{number}",
            )
            for number in range(6)
        ]
        made, there, known = engine(parties=()), dict[str, Any](), dict[int, Party]()
        for _ in range(40):
            policy, each = chance.choice(policies), chance.choice(parties)
            match chance.randrange(5):
                case 0:
                    drop(made, policy)
                    there.pop(policy["metadata"]["name"], None)
                case 1:
                    made.drop_party(each.identity)
                    known.pop(each.identity, None)
                case 2:
                    made.forget_retired()
                case 3:
                    made.set_party(each)
                    known[each.identity] = each
                    made.subject(each)
                case _:
                    put(made, policy)
                    there[policy["metadata"]["name"]] = policy
        made.forget_retired()
        fresh = engine(*there.values(), parties=tuple(known.values()))
        for each in known.values():
            now, then = made.subject(each), fresh.subject(each)
            assert now.ingress.number == then.ingress.number
            if now.ingress.enforced:
                assert rows(made, now) == rows(fresh, then), f"seed {seed}"


# ---- prefixes of ports


@pytest.mark.parametrize(
    ("first", "last"), [(0, 0), (80, 80), (1, 65535), (1000, 1999), (0, 32767), (65535, 65535), (7, 8)]
)
def test_a_range_is_cut_into_prefixes(first: int, last: int) -> None:
    """That cover it, each port once, and nothing else."""
    covered: list[int] = []
    for length, protocol, port in prefixes(PortMatch(6, first, last)):
        assert protocol == 6
        covered += range(port, port + (1 << (64 - length)))
    assert covered == list(range(first, last + 1))


def test_every_port_is_one_prefix() -> None:
    """That of the protocol."""
    assert list(prefixes(PortMatch(17, 0, LAST_PORT))) == [Prefix(40, 17, 0)]


def fqdn_policy(*items: dict[str, str], name: str = "names", dns: list[dict[str, str]] | None = None) -> dict[str, Any]:
    rules: list[dict[str, Any]] = [{"toFQDNs": list(items)}] if items else []
    if dns is not None:
        rules.append({"toPorts": [{"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": dns}}]})
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"endpointSelector": {}, "egress": rules},
    }


def rows_of(engine: Engine, identity: IdentityId) -> list[PolicyValue]:
    side = engine.subject(party(300, "web")).egress
    return [row for key, row in engine.one_set(side.number).rows.items() if key.identity == identity]


def test_single_selectors_have_their_identities_and_rows_before_any_answer() -> None:
    engine = Engine()
    put(engine, fqdn_policy({"matchPattern": "*.Example.com"}))
    assert engine.names.selectors == {"*.example.com."}
    ipv4 = engine.names.identities[Named(("*.example.com.",), ALL_IPV4)]
    assert ipv4 >> 24 == 1
    assert len(rows_of(engine, ipv4)) == 1
    assert rows_of(engine, IdentityId(2)) == []


def test_combinations_are_made_when_asked_for_and_are_the_same_everywhere() -> None:
    engines = Engine(), Engine()
    numbers: list[IdentityId] = []
    for engine in engines:
        put(engine, fqdn_policy({"matchName": "a.b"}, {"matchPattern": "*.b"}))
        engine.subject(party(300, "web"))
        numbers.append(engine.names.identity(Named(("*.b.", "a.b."), ALL_IPV4)))
        assert len(rows_of(engine, numbers[-1])) == 1
    assert numbers[0] == numbers[1]
    later = Engine()
    later.names.adopt(engines[0].names.identities)
    put(later, fqdn_policy({"matchName": "a.b"}, {"matchPattern": "*.b"}))
    assert later.names.identities == engines[0].names.identities


def test_prefixes_hold_for_addresses_with_names() -> None:
    engine = Engine()
    manifest = fqdn_policy({"matchName": "a.b"})
    manifest["spec"]["egressDeny"] = [{"toCIDRSet": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}]}]
    put(engine, manifest)
    of = {
        text: rows_of(engine, engine.names.identity(Named(("a.b.",), Network(*parse_prefix(text)))))
        for text in ("192.0.2.0/24", "192.0.2.128/25")
    }
    assert [row.deny for row in of["192.0.2.0/24"]] == [1]
    assert [row.deny for row in of["192.0.2.128/25"]] == [0]


def test_identities_of_names_go_when_no_address_has_them() -> None:
    engine = Engine()
    put(engine, fqdn_policy({"matchName": "a.b"}, {"matchName": "c.d"}))
    both = engine.names.identity(Named(("a.b.", "c.d."), ALL_IPV4))
    assert not engine.names.keep({both})
    assert engine.names.keep(set())
    assert engine.party(both) is None
    assert len(engine.names.identities) == 4
    drop(engine, fqdn_policy())
    assert engine.names.keep(set())
    assert (engine.names.selectors, engine.names.identities) == (frozenset(), {})


def test_dns_rules_have_listeners_of_their_own() -> None:
    engine = Engine()
    put(engine, fqdn_policy(dns=[{"matchPattern": "*.b"}, {"matchName": "a.b"}]))
    engine.sets([engine.subject(party(300, "web")).egress.number])
    ((port, names),) = engine.dns_listeners.items()
    assert 15000 <= port < 15999
    assert names == ("*.b.", "a.b.")
    engine.sets([])
    assert engine.dns_listeners == {}


# ---- listeners


def test_numbers_of_listeners_are_given_back() -> None:
    """More sets of rules than there are numbers, one after the other, and those in use keep theirs."""
    made = engine()
    kept: dict[int, object] = {}
    for number in range(60):
        rule = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"path": f"/{number}"}]}}]
        put(made, cnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}], "toPorts": rule}]}))
        made.sets([made.subject(WEB).ingress.number])
        kept = dict(made.http_listeners)
        assert len(kept) == 1
    assert len(made._sets.ports._http._numbers) == 1  # pyright: ignore[reportPrivateUsage]
