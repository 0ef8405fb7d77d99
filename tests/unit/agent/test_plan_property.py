"""However a state came about, the plan is that of an agent which finds it at its start.

Seeded sequences of changes of all that a plan is made of; after each the plan of the agent that lived through them is
compared with that of a new one, which is told of the same objects in another order.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from mycel.abi import PolicyValue
from mycel.agent.named_secrets import NamedSecrets
from mycel.agent.planner import Part, Planner
from mycel.agent.policies import Policies
from mycel.agent.policy_files import PolicyFiles
from mycel.agent.policy_objects import PolicyObjects
from mycel.agent.referents import Referents
from mycel.agent.rule_names import RuleNames
from mycel.agent.sources import StoreSources, touch_on_change
from mycel.identity.labels import identity_labels
from mycel.k8s.informer import Key
from mycel.model.address import parse_address, parse_prefix
from mycel.model.node import Node, PublishedNode
from mycel.model.service import EndpointSlice, Protocol, Service, ServicePort, ServiceRef, SliceEndpoint, SlicePort
from mycel.model.workload import (
    EndpointId,
    Identity,
    IdentityId,
    LocalEndpoint,
    NamedPort,
    PodRef,
    PublishedEndpoint,
)
from mycel.plan.rows import ThisNode
from mycel.policy.engine import Engine
from mycel.policy.held import ALL_IPV4
from mycel.policy.names import Named
from mycel.policy.resolve import Resolution
from mycel.policy.rules import Party, host_network
from tests.oracle import generate
from tests.unit.policy.worlds import cnp

KINDS = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
THIS = ThisNode(
    name="n1",
    addresses=(parse_address("172.18.0.1"),),
    router_addresses=(parse_address("10.244.0.1"),),
    pod_networks=(parse_prefix("10.244.0.0/24"),),
    service_networks=(parse_prefix("10.96.0.0/16"),),
    ingress_addresses=(parse_address("10.244.0.254"),),
)
OTHERS = ("n2", "n3")
STEPS, SEEDS = 30, 12


class Shelf:
    """An informer's store, with listeners, without a server."""

    def __init__(self, kind: str = "", items: Iterable[tuple[Key, Any]] = ()) -> None:
        self.resource = SimpleNamespace(kind=kind)
        self.store: dict[Key, Any] = dict(items)
        self._listeners: list[Callable[[Key, Any, Any], None]] = []

    def subscribe(self, listener: Callable[[Key, Any, Any], None]) -> None:
        self._listeners.append(listener)

    def get(self, name: str, namespace: str = "") -> Any:
        return self.store.get(Key(namespace, name))

    def put(self, key: Key, new: Any) -> None:
        """The object is so from now on; None: gone."""
        old = self.store.pop(key, None)
        if new is not None:
            self.store[key] = new
        if old != new:
            for listener in self._listeners:
                listener(key, old, new)


class Local:
    """This node's endpoints."""

    def __init__(self, endpoints: Iterable[tuple[EndpointId, LocalEndpoint]] = ()) -> None:
        self._by_id = dict(endpoints)
        self._listeners: list[Callable[[Any, Any], None]] = []

    def all(self) -> Mapping[EndpointId, LocalEndpoint]:
        return self._by_id

    def subscribe(self, listener: Callable[[Any, Any], None]) -> None:
        self._listeners.append(listener)

    def put(self, number: EndpointId, new: LocalEndpoint | None) -> None:
        old = self._by_id.pop(number, None)
        if new is not None:
            self._by_id[number] = new
        for listener in self._listeners:
            listener(old, new)


class NoListeners:
    """Where there are no proxies, nothing waits for them."""

    def pending(self, numbers: tuple[int, int]) -> bool:
        return False

    def refused(self, number: int) -> str:
        return ""

    def planned(self) -> None: ...

    def subscribe(self, hearer: Callable[[], None]) -> None: ...


class Agent:
    """What of an agent makes plans."""

    def __init__(self, stores: Mapping[str, Shelf], local: Local, folder: Path, modes: frozenset[str]) -> None:
        self.stores, self.local = stores, local
        watches: Any = SimpleNamespace(**stores)
        endpoints: Any = local
        self.planner = Planner()
        self.endpoints = endpoints
        resolution = Resolution()
        engine = Engine(resolve=resolution.resolve, cidr_modes=modes)

        def touch() -> None:
            self.planner.touch(Part.POLICY)

        self.policies = Policies(
            engine,
            PolicyObjects(
                engine, watches, secrets=NamedSecrets(), files=PolicyFiles(folder), cluster="default", touch=touch
            ),
            Referents(engine, resolution, watches, touch=touch),
            watches=watches,
            endpoints=endpoints,
            listeners=NoListeners(),
            visible=lambda _ref: (),
            touch=touch,
        )
        sources = StoreSources(
            watches,
            endpoints,
            THIS,
            policy=self.policies.plan,
            apiservers=lambda: self.policies.apiservers,
            announced=lambda: (),
            underlays=(),
            redirects=lambda _frontends: {},
            proxies=dict,
        )
        self.planner.begin(sources)
        touch_on_change(self.planner, watches, endpoints)

    def plan(self) -> dict[str, Any]:
        """Everything it plans, once nothing is left to be forgotten, under numbers that do not depend on its past."""
        self.planner.replan()
        while self.policies.engine.forget_retired():
            self.planner.touch(Part.POLICY)
            self.planner.replan()
        return told(self.planner, self.policies, RuleNames(self.policies, self.endpoints))

    def again(self, random: Random, folder: Path, modes: frozenset[str]) -> Agent:
        """An agent that starts now, told of the same in another order."""
        stores: dict[str, Shelf] = {}
        for name, shelf in self.stores.items():
            items = list(shelf.store.items())
            random.shuffle(items)
            stores[name] = Shelf(shelf.resource.kind, items)
        made = Agent(stores, Local(self.local.all().items()), folder, modes)
        made.policies.engine.names.adopt(self.policies.engine.names.identities)
        return made


def told(planner: Planner, policies: Policies, rules: RuleNames) -> dict[str, Any]:
    """A plan, and what is said of it, with content in place of numbers that are given in order."""
    engine, maps = policies.engine, dict(planner.desired.value)
    groups = {value.service_id: key for key, value in sorted(maps["services"].items(), reverse=True)}
    backends = {key.backend_id: value for key, value in maps["backends"].items()}
    maps["services"] = {key: value._replace(service_id=0) for key, value in maps["services"].items()}
    maps["service_slots"] = {
        (groups[key.service_id], key.slot): backends[value.backend_id] for key, value in maps["service_slots"].items()
    }
    maps["backends"] = set(backends.values())
    for name in ("endpoints", "interfaces"):
        maps[name] = {key: value._replace(policy_revision=0) for key, value in maps[name].items()}
    maps["policy"] = {
        number: {key: row(engine, value) for key, value in rows.items()} for number, rows in maps["policy"].items()
    }
    switched = {
        (number, ingress): rules.of_verdict(0, number, ingress=ingress, denied=True)
        for number in policies.subjects
        for ingress in (False, True)
    }
    return maps | {"switched on by": switched, "full": policies.overflows()}


def row(engine: Engine, value: PolicyValue) -> tuple[Any, ...]:
    """A row with what its numbers stand for. The listener it names is there (and may outlive it: sets keep theirs)."""
    sections = engine.proxy_rules(value.proxy_port) if value.proxy_port else ()
    assert not value.proxy_port or sections
    assert not value.proxy_port or value.proxy_port in engine.http_listeners or value.proxy_port in engine.dns_listeners
    return value._replace(rule=0, proxy_port=0), engine.rule(value.rule), sections


def differences(lived: Any, found: Any, path: str = "") -> list[str]:
    """Where two plans differ."""
    if isinstance(lived, dict) and isinstance(found, dict):
        absent = "nothing"
        pairs = ((key, lived.get(key, absent), found.get(key, absent)) for key in {**lived, **found})
        return [each for key, one, other in pairs for each in differences(one, other, f"{path} {key}") if one != other]
    return [] if lived == found else [f"{path}: {lived} after all that, {found} at a start"]


def labels_of(party: Party) -> set[str]:
    """Sources and keys."""
    return {word for key, found in party.labels.items() for word in (key, *(source for source, _ in found))}


class Pod(NamedTuple):
    """A pod's place among those that may be there, and where its identity is."""

    number: int
    namespace: str

    @property
    def here(self) -> bool:
        return self.number % 2 == 0

    @property
    def ref(self) -> PodRef:
        return PodRef(self.namespace, f"pod-{self.number}")

    @property
    def address(self) -> str:
        return f"10.244.{0 if self.here else 1 + self.number % 3 % 2}.{10 + self.number}"


PODS = [Pod(number, generate.NAMESPACES[number % 3]) for number in range(12)]


class Story:
    """A seed's changes, one after the other."""

    def __init__(self, seed: int, agent: Agent) -> None:
        self.random, self.agent, self.happened = Random(seed), agent, Counter[str]()
        self._numbers: dict[tuple[str, ...], IdentityId] = {}

    def change(self) -> str:
        """Make one; returns which."""
        change = self.random.choice(
            [self.policy] * 8
            + [self.names_policy, self.no_policy, self.broken_policy]
            + [self.pod] * 6
            + [self.service, self.addresses] * 2
            + [self.identity, self.group, self.node, self.name, self.nameless]
        )
        change()
        self.happened[change.__name__] += 1
        return change.__name__

    def policy(self) -> None:
        manifest = generate._policy(self.random, self.random.randrange(6))
        manifest["metadata"] |= {"uid": manifest["metadata"]["name"], "generation": 1}
        self._shelf(manifest["kind"]).put(self._key(manifest), manifest)

    def names_policy(self) -> None:
        """Of names, which are too rare among the others to be relied on."""
        names = [{"matchName": "example.org"}, {"matchPattern": "*.example.org"}]
        rule = {"toFQDNs": self.random.sample(names, self.random.randint(1, 2))}
        manifest = cnp({"endpointSelector": {}, "egress": [rule]}, place="shop/names")
        manifest["metadata"] |= {"uid": "names", "generation": 1}
        self._shelf(manifest["kind"]).put(self._key(manifest), manifest)

    def no_policy(self) -> None:
        shelf = self._shelf(self.random.choice(KINDS))
        if shelf.store:
            shelf.put(self.random.choice(sorted(shelf.store)), None)

    def broken_policy(self) -> None:
        """What was in force of it stays."""
        shelf = self._shelf("CiliumNetworkPolicy")
        if shelf.store:
            key = self.random.choice(sorted(shelf.store))
            shelf.put(key, {**shelf.store[key], "spec": {"endpointSelector": self.random.random()}, "specs": None})

    def pod(self) -> None:
        """Comes, goes, or has other labels."""
        pod = self.random.choice(PODS)
        gone = self.random.random() < 0.25
        labels = {"app": self.random.choice(generate.APPS), "tier": self.random.choice(("front", "back"))}
        identity = self._identity(pod.namespace, labels, self.random.choice((80, 8080)))
        if pod.here:
            self._local(pod, None if gone else identity)
            return
        node = f"172.18.0.{self.random.choice((2, 2, 3))}"
        number, of = identity
        made = PublishedEndpoint(pod.ref, EndpointId(pod.number), number, of, (pod.address,), node)
        self.agent.stores["endpoints"].put(Key(*pod.ref), None if gone else made)

    def identity(self) -> None:
        """The operator takes one away, or it stands for others now."""
        shelf = self.agent.stores["identities"]
        if shelf.store:
            key = self.random.choice(sorted(shelf.store))
            shelf.put(key, None)

    def service(self) -> None:
        name = self.random.choice(("front", "legacy"))
        namespace = self.random.choice(generate.NAMESPACES[:2])
        selector = {"app": self.random.choice(generate.APPS)} if name == "front" else {}
        made = Service(
            ServiceRef(namespace, name),
            (f"10.96.0.{9 + len(namespace)}",),
            (),
            (),
            (ServicePort("", Protocol.TCP, self.random.choice((80, 81)), 0),),
            (4,),
            0,
            local_external=False,
            local_internal=False,
            labels={"role": self.random.choice(("public", "private"))},
            selector=selector,
        )
        self.agent.stores["services"].put(Key(namespace, name), self._or_gone(made))

    def addresses(self) -> None:
        """Of a service, or of the API server."""
        namespace, name = self.random.choice((("shop", "legacy"), ("shop", "front"), ("default", "kubernetes")))
        addresses = self.random.sample(("192.0.2.10", "198.51.100.9", "172.18.0.1", "172.18.0.2", "10.244.0.10"), 2)
        made = EndpointSlice(
            ServiceRef(namespace, name),
            f"{name}-{self.random.randrange(2)}",
            (SlicePort("", Protocol.TCP, 8080),),
            tuple(SliceEndpoint(each, "n1", ready=True, serving=True, terminating=False) for each in addresses),
        )
        self.agent.stores["slices"].put(Key(namespace, made.name), self._or_gone(made))

    def group(self) -> None:
        name = self.random.choice(generate.GROUPS)
        blocks = self.random.sample(generate.BLOCKS, 3)
        made = {"kind": "CiliumCIDRGroup", "metadata": {"name": name}, "spec": {"externalCIDRs": blocks}}
        self.agent.stores["cidr_groups"].put(Key("", name), self._or_gone(made))

    def node(self) -> None:
        name = self.random.choice(OTHERS)
        number = OTHERS.index(name) + 2
        more = self.random.choice(((), (f"192.0.2.{number}",)))
        networks = (f"10.244.{number - 1}.0/24",)
        if self.random.random() < 0.5:
            made = Node(name, name, {}, (f"172.18.0.{number}",), more, networks, ())
            self.agent.stores["nodes"].put(Key("", name), self._or_gone(made))
        else:
            published = PublishedNode(name, (f"172.18.0.{number}",), (f"10.244.{number - 1}.1",), networks)
            self.agent.stores["published_nodes"].put(Key("", name), self._or_gone(published))

    def name(self) -> None:
        """DNS answers with an address whose names satisfy selectors."""
        engine = self.agent.policies.engine
        if selectors := sorted(engine.names.selectors):
            some = tuple(sorted(self.random.sample(selectors, min(2, len(selectors)))))
            own = host_network(parse_address(self.random.choice(("192.0.2.10", "198.51.100.9", "203.0.113.1"))))
            over = [each for each in engine.networks if each.contains(own)]
            engine.names.identity(Named(some, max(over, key=lambda each: each.length, default=ALL_IPV4)))
            self.agent.planner.touch(Part.POLICY)

    def nameless(self) -> None:
        """Names are forgotten."""
        engine = self.agent.policies.engine
        used = [each for each in engine.names.identities.values() if self.random.random() < 0.5]
        if engine.names.keep(used):
            self.agent.planner.touch(Part.POLICY)

    def _shelf(self, kind: str) -> Shelf:
        return next(each for each in self.agent.stores.values() if each.resource.kind == kind)

    @staticmethod
    def _key(manifest: Mapping[str, Any]) -> Key:
        return Key(manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"])

    def _or_gone(self, made: Any) -> Any:
        return None if self.random.random() < 0.3 else made

    def _identity(self, namespace: str, labels: Mapping[str, str], port: int) -> tuple[IdentityId, tuple[str, ...]]:
        """Its number; its object is there unless it is late."""
        of = identity_labels(
            labels,
            namespace,
            namespace_labels={"env": "prod"},
            service_account="default",
            named_ports=[NamedPort("http", port, "TCP")],
        )
        number = self._numbers.setdefault(of, IdentityId(300 + len(self._numbers)))
        if self.random.random() < 0.9:
            self.agent.stores["identities"].put(Key("", str(number)), Identity(number, of))
        return number, of

    def _local(self, pod: Pod, identity: tuple[IdentityId, tuple[str, ...]] | None) -> None:
        number = EndpointId(pod.number + 1)
        if identity is None:
            self.agent.local.put(number, None)
            return
        known = self.random.random() < 0.9
        made = LocalEndpoint(
            ref=pod.ref,
            uid="",
            container_id="",
            endpoint_id=number,
            addresses=(parse_address(pod.address),),
            interface="",
            ifindex=100 + pod.number,
            mac=bytes(6),
            node_mac=bytes(6),
            netns="",
            identity=identity[0] if known else IdentityId(0),
            labels=identity[1] if known else (),
        )
        self.agent.local.put(number, made)


def stores() -> dict[str, Shelf]:
    kinds = {"network_policies": KINDS[0], "cilium_policies": KINDS[1], "clusterwide_policies": KINDS[2]}
    names = ("pods", "nodes", "published_nodes", "services", "slices", "endpoints", "identities", "cidr_groups")
    return {name: Shelf(kind) for name, kind in kinds.items()} | {name: Shelf() for name in names}


@pytest.mark.parametrize("seeds", [range(SEEDS), pytest.param(range(SEEDS, SEEDS + 200), marks=pytest.mark.long)])
async def test_a_plan_does_not_depend_on_how_it_came_about(
    tmp_path: Path, seeds: range, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # broken policies are told, each time
    happened, seen = Counter[str](), Counter[str]()
    for seed in seeds:
        random = Random(seed)
        modes = frozenset(random.choice(((), (), ("nodes",), ("pods",), ("nodes", "pods"))))
        agent = Agent(stores(), Local(), tmp_path / str(seed), modes)
        story = Story(seed, agent)
        for step in range(STEPS):
            for _ in range(random.choice((1, 1, 3))):  # some changes become one plan
                last = story.change()
            lived = agent.plan()
            found = agent.again(random, tmp_path / str(seed), modes).plan()
            assert not (differ := differences(lived, found)), f"seed {seed}, step {step} ({last}): {differ[:4]}"
            rows = [each for rows in lived["policy"].values() for each in rows.values()]
            seen["rows"] += len(rows)
            seen["listeners"] += sum(bool(sections) for _, _, sections in rows)
            named = set(agent.policies.engine.names.identities.values())
            seen["names"] += sum(key.identity in named for rows in lived["policy"].values() for key in rows)
            for party in agent.policies.engine.parties:
                if "kube-apiserver" in party.labels:
                    seen[f"API server {' '.join(sorted({'host', 'world', 'fqdn'} & labels_of(party)))}"] += 1
            seen.update(name for name, planned in lived.items() if planned)
        happened += story.happened
    print(dict(happened), dict(seen))
    assert min(happened.values()) > len(seeds) / 2
    assert seen["rows"] > 1000 * len(seeds)
    assert min(
        seen[name] for name in ("aliases", "ipcache_lpm", "listeners", "names", "services", "service_slots")
    ) > len(seeds)
    assert min(seen["API server host"], seen["API server world"]) > len(seeds) and seen["API server fqdn world"]
