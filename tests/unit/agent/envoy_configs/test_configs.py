"""Objects on a node: what its Envoy is to hold of them, and when services go to their listeners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from mycel.agent.envoy_configs.configs import FIRST_PORT, PORTS, Configs
from mycel.agent.secrets import Secrets
from mycel.agent.watches import Watches
from mycel.envoy.config.model import ConfigRef
from mycel.envoy.config.read import read
from mycel.envoy.delta import Outcome
from mycel.envoy.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Snapshot, TypeUrl
from mycel.k8s.informer import Key
from mycel.model.node import Node
from mycel.plan.rows import Redirect
from mycel.service.balance import balance
from tests.unit.envoy.config.objects import Json, cluster, config, listener, message, routes
from tests.unit.envoy.config.test_endpoints import CLUSTER_IP, ENDS, REF, SERVICE, SLICE
from tests.unit.envoy.config.test_fill import secured

NODE = Node("n1", "u", {"zone": "a"}, (), (), (), ())
FRONTENDS = balance([SERVICE], [SLICE], "n1")


@dataclass
class Store:
    """An informer without an API server."""

    store: dict[Key, Any] = field(default_factory=dict[Key, Any])
    listeners: list[Callable[[Key, Any, Any], None]] = field(default_factory=list[Callable[[Key, Any, Any], None]])

    def subscribe(self, listener: Callable[[Key, Any, Any], None]) -> None:
        self.listeners.append(listener)

    def get(self, name: str, namespace: str = "") -> Any:
        return self.store.get(Key(namespace, name))

    def put(self, namespace: str, name: str, value: Any) -> None:
        key = Key(namespace, name)
        old = self.store.pop(key, None)
        if value is not None:
            self.store[key] = value
        for each in self.listeners:
            each(key, old, value)


class World:
    """Configs of node n1 with stores in place of an API server, and an Envoy that says what it is told to."""

    def __init__(self, *items: Json, adopt: dict[Any, Redirect] | None = None, only_ingress: bool = False) -> None:
        self.objects, self.services, self.slices, self.nodes = Store(), Store(), Store(), Store()
        watches = cast("Watches", self)
        self.envoy_configs = (self.objects,)
        self.nodes.put("", "n1", NODE)
        self.services.put(*REF, SERVICE)
        self.slices.put(REF.namespace, SLICE.name, SLICE)
        for item in items:
            self.put(item)
        self.secrets = Secrets(cast("Any", None))
        self.configs = Configs(watches, self.secrets, node="n1", ingress="10.244.1.254", only_ingress=only_ingress)
        self.configs.adopt(adopt or {})
        self.told: list[ConfigRef] = []
        self.configs.changed = self.told.append
        self.realized = 0
        self.answers: dict[tuple[TypeUrl, str], Outcome] = {}

    def put(self, item: Json, generation: int = 1, created: str = "2026-01-01T00:00:00Z") -> None:
        metadata = item["metadata"] | {"generation": generation, "uid": "u", "creationTimestamp": created}
        self.objects.put(metadata.get("namespace", ""), metadata["name"], item | {"metadata": metadata})

    def remove(self, name: str) -> None:
        self.objects.put("shop", name, None)

    async def snapshot(self) -> Snapshot:
        """What Envoy is to hold once all that has happened is taken in."""

        async def realize() -> None:
            self.realized += 1

        task = asyncio.create_task(self.configs.run(realize))
        await asyncio.sleep(0.05)
        task.cancel()
        return self.configs.snapshot.value

    def take(self, snapshot: Snapshot, *, refuse: Iterable[str] = ()) -> None:
        """Envoy takes everything but what is to be refused."""
        for kind, by_name in snapshot.items():
            for name, resource in by_name.items():
                error = "not this one" if name in refuse else None
                self.answers[(kind, name)] = Outcome(kind, name, resource.version, error)
        self.configs.answered(dict(self.answers))

    @property
    def port(self) -> int | None:
        """Where connections to the service go."""
        found = self.configs.redirects(FRONTENDS).get(CLUSTER_IP)
        return found.port if found else None


SERVED = config(services=[{"name": "api", "ports": [80]}])


def broken() -> Json:
    return config(cluster("nothing"), services=[])


async def test_an_object_becomes_a_part_of_the_snapshot():
    world = World(SERVED)
    found = await world.snapshot()
    assert {kind: set(names) for kind, names in found.items()} == {
        LISTENER: {"shop/mesh/listener"},
        ROUTES: {"shop/mesh/routes"},
        CLUSTER: {"shop/mesh/shop/api"},
        ENDPOINTS: {"shop/mesh/shop/api"},
        SECRET: set(),
    }
    (made,) = world.configs.configs
    assert FIRST_PORT <= made.listeners["listener"] < FIRST_PORT + PORTS


async def test_ports_are_the_same_in_every_agent():
    names = [config(name=f"c{i}") for i in range(40)]
    first, second = World(*names), World(*reversed(names))
    assert {each.ref: each.listeners for each in first.configs.configs} == {
        each.ref: each.listeners for each in second.configs.configs
    }


async def test_a_service_goes_to_its_listener_when_envoy_has_taken_all_of_it():
    world = World(SERVED)
    assert world.port is None
    found = await world.snapshot()
    world.take({kind: names for kind, names in found.items() if kind != ROUTES})
    assert world.port is None  # it would be accepted, and not listen
    world.take(found)
    assert world.port == world.configs.configs[0].listeners["listener"]
    world.configs.answered({})  # Envoy is gone
    assert world.port == world.configs.configs[0].listeners["listener"]


async def test_routes_that_nothing_uses_are_not_waited_for():
    world = World(config(listener(), routes(), routes("spare"), cluster(), services=[{"name": "api"}]))
    found = await world.snapshot()
    world.take({kind: {n: r for n, r in names.items() if "spare" not in n} for kind, names in found.items()})
    assert world.port


async def test_a_refused_object_leaves_its_service_as_it_is_and_others_alone():
    world = World(SERVED, config(name="zz", services=[{"name": "api", "ports": [81]}]))
    found = await world.snapshot()
    world.take(found, refuse=["shop/zz/routes"])
    good, bad = world.configs.configs
    assert {each.port for each in world.configs.redirects(FRONTENDS).values()} == {good.listeners["listener"]}
    assert world.configs.taken(good) and not world.configs.refusals(good)
    assert world.configs.refusals(bad) == ["shop/zz/routes: not this one"]
    assert not world.configs.taken(bad)


async def test_an_agent_that_comes_back_opens_nothing_meanwhile():
    world = World(SERVED, adopt={CLUSTER_IP: Redirect(20500, 20500)})
    assert world.port == 20500
    assert World(SERVED, adopt={CLUSTER_IP: Redirect(10500, 10500)}).port is None  # not one of ours


async def test_what_is_wrong_now_keeps_what_was_good():
    world = World(SERVED)
    good = await world.snapshot()
    world.put(broken(), generation=2)
    assert await world.snapshot() == good
    standing = world.configs.standing(ConfigRef("shop", "mesh"))
    assert standing is not None
    assert standing.generation == 2
    assert "spec.resources[0].name" in standing.problem
    world.put(SERVED, generation=3)
    standing = world.configs.standing(ConfigRef("shop", "mesh"))
    assert standing is not None and not standing.problem


async def test_what_goes_stays_until_no_service_points_there():
    world = World(SERVED)
    world.take(await world.snapshot())
    assert world.port and not world.realized
    seen: list[set[str]] = []
    world.remove("mesh")
    assert world.port is None

    async def realize() -> None:
        seen.append(set(world.configs.snapshot.value[LISTENER]))

    task = asyncio.create_task(world.configs.run(realize))
    await asyncio.sleep(0.05)
    task.cancel()
    assert seen == [{"shop/mesh/listener"}]
    assert not world.configs.snapshot.value.get(LISTENER)


async def test_endpoints_follow_and_only_those_of_the_service_are_made_anew():
    world = World(SERVED, config(listener(), routes(cluster="shop/web"), cluster("shop/web"), name="web"))
    before = await world.snapshot()
    world.told.clear()
    world.slices.put(REF.namespace, SLICE.name, replace(SLICE, endpoints=ENDS[:1]))
    after = await world.snapshot()
    made = message(ENDPOINTS, after[ENDPOINTS]["shop/mesh/shop/api"])
    addresses = {each.endpoint.address.socket_address.address for each in made.endpoints[0].lb_endpoints}
    assert addresses == {"10.244.1.9"}
    assert after[ENDPOINTS]["shop/web/shop/web"] is before[ENDPOINTS]["shop/web/shop/web"]
    assert world.told == [ConfigRef("shop", "mesh")]


async def test_clusters_without_endpoints_are_named():
    world = World(SERVED)
    await world.snapshot()
    assert not world.configs.empty_clusters(world.configs.configs[0])
    world.slices.put(REF.namespace, SLICE.name, None)
    await world.snapshot()
    assert world.configs.empty_clusters(world.configs.configs[0]) == ["shop/api"]


async def test_what_is_missing_is_named():
    world = World(config(listener(), routes(cluster="shop/web"), cluster("shop/web"), services=[{"name": "gone"}]))
    await world.snapshot()
    assert world.configs.missing_services(world.configs.configs[0]) == [
        "Service shop/gone is not there",
        "Service shop/web is not there",
    ]


async def test_of_two_objects_the_older_has_a_port_and_the_other_is_told():
    world = World()
    world.put(config(name="a", services=[{"name": "api"}]), created="2026-01-02T00:00:00Z")
    world.put(config(name="b", services=[{"name": "api", "ports": [80]}]), created="2026-01-01T00:00:00Z")
    world.take(await world.snapshot())
    older, younger = world.configs.configs
    assert world.port == older.listeners["listener"]
    assert older.ref.name == "b"
    assert world.configs.missing_services(younger) == [
        "Service shop/api port 80 goes to CiliumEnvoyConfig shop/b, which is older"
    ]
    assert not world.configs.missing_services(older)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "Secret shop/web is not there"),
        ({("shop", "web"): None}, "Secret shop/web is not there"),
        ({("shop", "web"): {"tls.crt": b"x"}}, "Secret shop/web has no tls.key"),
        ({("shop", "web"): {"tls.crt": b"x", "tls.key": b"y"}}, ""),
    ],
)
async def test_a_listener_waits_for_its_certificates(data: dict[tuple[str, str], Any], why: str):
    item = secured("web")
    item["spec"]["services"] = [{"name": "api"}]
    world = World(item)
    world.secrets.found = data
    found = await world.snapshot()
    world.take(found)
    made = world.configs.configs[0]
    assert world.configs.missing_secrets(made) == ([why] if why else [])
    assert set(found[SECRET]) == (set() if why else {"shop/web"})
    assert bool(world.port) == (not why)


async def test_a_missing_certificate_costs_its_own_names_and_a_refused_one_is_told():
    item = secured("web", "other")
    item["spec"]["services"] = [{"name": "api"}]
    world = World(item)
    world.secrets.found = {("shop", "web"): {"tls.crt": b"x", "tls.key": b"y"}, ("shop", "other"): None}
    found = await world.snapshot()
    world.take(found)
    made = world.configs.configs[0]
    assert (world.configs.missing_secrets(made), set(found[SECRET])) == (
        ["Secret shop/other is not there"],
        {"shop/web"},
    )
    assert world.port and not world.configs.refusals(made)
    world.take(found, refuse=["shop/web"])
    assert world.configs.refusals(made) == ["Secret shop/web: not this one"]
    world.secrets.found[("shop", "web")] = {"tls.crt": b"new", "tls.key": b"y"}
    assert not world.configs.refusals(made), "what was refused is not what it is now"


async def test_nodes_that_are_not_selected_hold_nothing():
    world = World(SERVED | {"spec": SERVED["spec"] | {"nodeSelector": {"matchLabels": {"zone": "b"}}}})
    assert not (await world.snapshot()).get(LISTENER)
    world.nodes.put("", "n1", replace(NODE, labels={"zone": "b"}))
    assert (await world.snapshot())[LISTENER]


async def test_with_the_ingress_controller_alone_only_its_objects_count():
    theirs = config(name="theirs")
    theirs["metadata"]["labels"] = {"cilium.io/ingress": "true"}
    world = World(SERVED, theirs, only_ingress=True)
    assert [each.ref.name for each in world.configs.configs] == ["theirs"]


async def test_a_status_that_is_written_reads_nothing_anew():
    world = World(SERVED)
    before = world.configs.configs[0]
    world.put(SERVED | {"status": {"conditions": []}})
    assert world.configs.configs[0] is before


async def test_a_mistake_of_ours_costs_one_object(monkeypatch: pytest.MonkeyPatch):
    """Reading raises what nobody thought of: the others are served, the object says so."""

    def mistaken(item: Json, *arguments: Any, **more: Any) -> Any:
        if item["metadata"]["name"] == "odd":
            raise KeyError("unforeseen")
        return read(item, *arguments, **more)

    monkeypatch.setattr("mycel.agent.envoy_configs.configs.read", mistaken)
    world = World(SERVED, config(name="odd"))
    assert [each.ref.name for each in world.configs.configs] == ["mesh"]
    standing = world.configs.standing(ConfigRef("shop", "odd"))
    assert standing is not None and "KeyError" in standing.problem
