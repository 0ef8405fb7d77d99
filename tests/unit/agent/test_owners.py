"""Which pod has which address, as the agent's stores tell it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mycel.agent import owners
from mycel.agent.owners import PodOwners
from mycel.flow.records import Workload as Controller
from mycel.model.address import parse_address
from mycel.model.workload import EndpointId, IdentityId, LocalEndpoint, PodRef, PublishedEndpoint

HERE, THERE = "172.18.0.2", "172.18.0.3"
NEAR, FAR = "10.244.1.5", "10.244.2.5"


class Store:
    """An informer, or the endpoints, without their sources."""

    def __init__(self) -> None:
        self.store: dict[Any, Any] = {}
        self.synced = True
        self.tell: Callable[..., None] = lambda *_: None

    def subscribe(self, listener: Callable[..., None]) -> None:
        self.tell = listener

    def all(self) -> dict[Any, Any]:
        return self.store

    def get(self, name: str, namespace: str) -> Any:
        return self.store.get((namespace, name))

    def of_pod(self, ref: PodRef) -> Any:
        return next((each for each in self.store.values() if each.ref == ref), None)


class Agent:
    """Stores, a clock, and who has what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100
        monkeypatch.setattr(owners.time, "monotonic_ns", lambda: self.now)
        self.pods, self.published, self.local = Store(), Store(), Store()
        watches: Any = SimpleNamespace(pods=self.pods, endpoints=self.published)
        local: Any = self.local
        self.local.store[1] = wired("restored", 1)
        self.published.store["x"] = published("far", 300)
        self.owners = PodOwners(watches, local, here=HERE, cluster="default")

    def at(self, address: str, at_ns: int) -> str:
        found = self.owners.at(parse_address(address), 0, at_ns).endpoint
        return found.pod_name if found else ""


def wired(name: str, number: int, identity: int = 300) -> LocalEndpoint:
    return LocalEndpoint(
        ref=PodRef("shop", name),
        uid="",
        container_id=name,
        endpoint_id=EndpointId(number),
        addresses=(parse_address(NEAR),),
        interface="",
        ifindex=1,
        mac=b"",
        node_mac=b"",
        netns="",
        identity=IdentityId(identity),
        labels=("k8s:app=web",),
    )


def published(name: str, identity: int, *, address: str = FAR, node: str = THERE) -> PublishedEndpoint:
    return PublishedEndpoint(
        PodRef("shop", name), EndpointId(9), IdentityId(identity), ("k8s:app=web",), (address,), node
    )


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    return Agent(monkeypatch)


def test_who_was_there_at_the_start_always_was(agent: Agent) -> None:
    """Events of the time without an agent have their names."""
    assert [agent.at(address, 1) for address in (NEAR, FAR)] == ["restored", "far"]


def test_addresses_of_this_node_change_hands(agent: Agent) -> None:
    """Removed, made, its identity found: its name from the moment it was made."""
    agent.local.tell(wired("restored", 1), None)
    agent.now = 200
    agent.local.tell(None, wired("next", 2, identity=0))
    agent.now = 300
    agent.local.tell(wired("next", 2, identity=0), wired("next", 2))
    assert [agent.at(NEAR, at_ns) for at_ns in (99, 100, 199, 200, 500)] == ["restored", "", "", "next", "next"]


def test_addresses_of_other_nodes_change_hands(agent: Agent) -> None:
    """By what their agents publish, whichever object comes first."""
    agent.published.tell(None, None, published("next", 300))
    agent.now = 200
    agent.published.tell(None, published("far", 300), None)
    assert [agent.at(FAR, at_ns) for at_ns in (99, 100, 300)] == ["far", "next", "next"]
    agent.published.tell(None, published("next", 300), published("next", 300, address="10.244.2.6"))
    assert [agent.at(FAR, 300), agent.at("10.244.2.6", 300)] == ["", "next"]


def test_what_others_say_of_this_nodes_pods_is_old(agent: Agent) -> None:
    """An object of ours that is not deleted yet names nobody."""
    agent.published.tell(None, None, published("stale", 300, address=NEAR, node=HERE))
    assert agent.at(NEAR, 200) == "restored"


def test_a_pods_controller_may_be_told_later(agent: Agent) -> None:
    """It stays when the pod's object is gone before its wiring is."""
    pod: Any = SimpleNamespace(ref=PodRef("shop", "restored"), owner=("ReplicaSet", "web-5d"), labels={})
    pod.labels = {"pod-template-hash": "5d"}
    agent.pods.store["shop", "restored"] = pod
    agent.pods.tell(None, None, pod)
    del agent.pods.store["shop", "restored"]
    agent.pods.tell(None, pod, None)
    found = agent.owners.at(parse_address(NEAR), 300, 1).endpoint
    assert found is not None
    assert found.workloads == (Controller("Deployment", "web"),)
