"""The endpoint manager over devices in memory: order, taking back, restoring."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mycel.agent.endpoints import AddFailed, AddRequest, Endpoints
from mycel.agent.ipam import Pool
from mycel.agent.state import EndpointFiles
from mycel.agent.wiring import Wire, WiringError
from mycel.k8s.errors import Unavailable
from mycel.model.address import Address, format_address
from mycel.model.workload import IdentityId, PodRef, Workload

WEB = PodRef("shop", "web")


@dataclass
class FakeWiring:
    """Devices as a dict; writes down what happened."""

    devices: dict[str, int] = field(default_factory=dict[str, int])
    steps: list[str] = field(default_factory=list[str])
    broken: str = ""

    async def make(self, *, container_id: str, netns: str, pod_interface: str) -> Wire:
        self.step("make")
        name = f"lxc{container_id}"
        self.devices[name] = len(self.steps) + 10
        return Wire(name, self.devices[name], b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2")

    async def furnish(
        self, wire: Wire, *, netns: str, pod_interface: str, addresses: Iterable[Address], routers: Iterable[Address]
    ) -> None:
        self.step("furnish")

    async def remove(self, interface: str) -> bool:
        self.steps.append("remove")
        return self.devices.pop(interface, None) is not None

    async def present(self) -> dict[str, int]:
        return dict(self.devices)

    async def attach(self, ifindex: int) -> None:
        self.steps.append(f"attach {ifindex}")

    def step(self, name: str) -> None:
        self.steps.append(name)
        if self.broken == name:
            raise WiringError(f"{name} is broken")


@dataclass
class FakePods:
    """Pods with labels by name; unknown ones raise."""

    labels: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    slow: bool = False

    async def pod(self, ref: PodRef, uid: str) -> Workload:
        if self.slow:
            await asyncio.sleep(60)
        if ref.name not in self.labels:
            raise Unavailable(0, "", "the API server is away")
        return Workload(ref, "u1", "n1", {}, "", False, (), ("", ""), (), False, False)

    def identity_labels(self, pod: Workload) -> tuple[str, ...] | None:
        return self.labels[pod.ref.name] or None


@dataclass
class Bench:
    """A manager and everything around it."""

    folder: Path
    wiring: FakeWiring = field(default_factory=FakeWiring)
    pods: FakePods = field(default_factory=lambda: FakePods({"web": ("k8s:app=web",), "db": ("k8s:app=db",)}))
    pool: Pool = field(default_factory=lambda: Pool("10.0.0.0/24"))

    def manager(self, *, add_timeout_s: float = 5.0) -> Endpoints:
        async def resolve(labels: tuple[str, ...]) -> IdentityId:
            self.wiring.steps.append("resolve")
            return IdentityId(256 + len(labels[0]))

        async def realize() -> None:
            self.wiring.step("realize")

        return Endpoints(
            files=EndpointFiles(self.folder),
            pools=[self.pool],
            routers=[],
            wiring=self.wiring,
            pods=self.pods,
            resolve=resolve,
            realize=realize,
            add_timeout_s=add_timeout_s,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "endpoints")


def request(name: str = "web", container: str = "c1") -> AddRequest:
    return AddRequest(container, "/run/netns/x", "eth0", PodRef("shop", name), "")


async def test_the_order_of_an_add(bench: Bench) -> None:
    """Devices, identity, kernel rows, and only then addresses and links up."""
    made = await bench.manager().add(request())
    assert bench.wiring.steps == ["make", "resolve", "realize", "furnish"]
    assert (made.ref, made.uid, made.identity, made.labels) == (WEB, "u1", 256 + 11, ("k8s:app=web",))
    assert [path.name for path in bench.folder.iterdir()] == ["1.json"]


@pytest.mark.parametrize("step", ["make", "realize", "furnish"])
async def test_whatever_fails_takes_all_back(bench: Bench, step: str) -> None:
    """No device, no file, no address, no endpoint."""
    bench.wiring.broken = step
    manager = bench.manager()
    with pytest.raises(AddFailed, match=f"pod shop/web: {step} is broken"):
        await manager.add(request())
    assert (bench.wiring.devices, dict(manager.all()), bench.pool.used) == ({}, {}, 0)
    assert list(bench.folder.iterdir()) == []


@pytest.mark.parametrize("labels", [{}, {"web": ()}])
async def test_a_pod_without_known_labels_is_refused(bench: Bench, labels: dict[str, tuple[str, ...]]) -> None:
    """Never a guessed identity."""
    bench.pods.labels = labels
    manager = bench.manager()
    with pytest.raises(AddFailed):
        await manager.add(request())
    assert (bench.wiring.devices, dict(manager.all()), bench.pool.used) == ({}, {}, 0)


async def test_an_add_has_a_bound(bench: Bench) -> None:
    """When nobody knows the pod in time, the runtime hears it and nothing stays."""
    bench.pods.slow = True
    manager = bench.manager(add_timeout_s=0.01)
    with pytest.raises(AddFailed, match="longer than"):
        await manager.add(request())
    assert (bench.wiring.devices, bench.pool.used) == ({}, 0)


async def test_delete_is_idempotent(bench: Bench) -> None:
    """The second one finds nothing and is fine."""
    manager = bench.manager()
    await manager.add(request())
    assert await manager.delete("c1", "eth0") is True
    assert await manager.delete("c1", "eth0") is False
    assert (dict(manager.all()), bench.pool.used, list(bench.folder.iterdir())) == ({}, 0, [])


async def test_a_repeated_add_replaces(bench: Bench) -> None:
    """A runtime that retries does not get two endpoints."""
    manager = bench.manager()
    first = await manager.add(request())
    second = await manager.add(request())
    assert list(manager.all().values()) == [second]
    assert second.addresses != first.addresses


async def test_the_newest_endpoint_of_a_pod(bench: Bench) -> None:
    """A sandbox made again overlaps with the old one; whichever stays is the pod's, also after a restart."""
    manager = bench.manager()
    first, second = await manager.add(request()), await manager.add(request(container="c2"))
    await manager.add(request("db", "c3"))
    assert manager.of_pod(WEB) == second
    manager.set_identity(first.endpoint_id, IdentityId(300), ("k8s:app=x",))
    assert manager.of_pod(WEB) == second
    again = bench.manager()
    bench.pool = Pool("10.0.0.0/24")
    await again.restore()
    assert again.of_pod(WEB) == second
    await again.delete("c2", "eth0")
    left = again.of_pod(WEB)
    assert left is not None and (left.endpoint_id, left.identity) == (first.endpoint_id, 300)
    await again.delete("c1", "eth0")
    assert again.of_pod(WEB) is None


async def test_the_next_agent_finds_everything(bench: Bench) -> None:
    """Same numbers, addresses and identities; devices are adopted, not made."""
    before = bench.manager()
    await before.add(request())
    await before.add(request("db", "c2"))
    bench.wiring.steps.clear()
    bench.pool = Pool("10.0.0.0/24")
    after = bench.manager()
    await after.restore()
    assert dict(after.all()) == dict(before.all())
    assert [step.split()[0] for step in bench.wiring.steps] == ["attach", "attach"]
    third = await after.add(request("web", "c3"))
    assert third.endpoint_id == 3
    assert format_address(third.addresses[0]) == "10.0.0.4"


async def test_reality_wins_over_files(bench: Bench) -> None:
    """Without its device an endpoint is forgotten; a device without a file is removed; a bad file is kept
    aside.
    """
    before = bench.manager()
    await before.add(request())
    await before.add(request("db", "c2"))
    del bench.wiring.devices["lxcc1"]
    bench.wiring.devices["lxcstray"] = 99
    (bench.folder / "9.json").write_text("{")
    after = bench.manager()
    await after.restore()
    assert [each.ref.name for each in after.all().values()] == ["db"]
    assert list(bench.wiring.devices) == ["lxcc2"]
    assert {path.name for path in bench.folder.iterdir()} == {"2.json", "9.json.bad"}


async def test_a_device_of_another_number_is_another_device(bench: Bench) -> None:
    """A name that came back with a new ifindex is not the pod's any more."""
    before = bench.manager()
    await before.add(request())
    bench.wiring.devices["lxcc1"] += 1
    after = bench.manager()
    await after.restore()
    assert dict(after.all()) == {}


async def test_listeners_hear_each_change(bench: Bench) -> None:
    """Made without identity, ready, relabelled, gone."""
    manager = bench.manager()
    heard: list[tuple[int | None, int | None]] = []
    manager.subscribe(lambda old, new: heard.append((old and old.identity, new and new.identity)))
    made = await manager.add(request())
    manager.set_identity(made.endpoint_id, IdentityId(300), ("k8s:app=x",))
    manager.set_identity(made.endpoint_id, IdentityId(300), ("k8s:app=x",))
    await manager.delete("c1", "eth0")
    assert heard == [(None, 0), (0, 267), (267, 300), (300, None)]
