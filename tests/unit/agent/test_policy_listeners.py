"""Listeners of policies: when rows may name them, and what is said of those that cannot be."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any, cast

from mycel.abi import Direction
from mycel.agent.proxy.header_secrets import HeaderSecrets
from mycel.agent.proxy.policy_listeners import PolicyListeners
from mycel.agent.proxy.port_file import PortFile
from mycel.agent.secrets import Secrets
from mycel.envoy.delta import Outcome
from mycel.envoy.listeners import listener_name
from mycel.envoy.resources import LISTENER, SECRET, Snapshot, Version
from mycel.k8s.errors import NotFound
from mycel.policy.engine import Engine
from mycel.policy.http import SecretRef
from mycel.policy.proxy_ports import ProxyPorts
from mycel.policy.rules import L7
from tests.unit.policy.test_engine import WEB, engine
from tests.unit.policy.worlds import cnp, pods
from tests.virtual_time import run


def rules(*more: object, tls: object = None, **rule: object) -> dict[str, object]:
    """A policy that lets carts into the web pods by one HTTP rule, or several."""
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [rule, *more]}}]
    if tls:
        ports[0]["terminatingTLS"] = tls
    return cnp(
        {"endpointSelector": pods(app="web"), "ingress": [{"fromEndpoints": [pods(app="cart")], "toPorts": ports}]}
    )


class Server:
    """Secrets, by name."""

    def __init__(self, **held: bytes) -> None:
        self.held = held

    async def get(self, _resource: object, name: str, *, namespace: str) -> dict[str, Any]:
        if namespace != "shop" or name not in self.held:
            raise NotFound(404, "NotFound", "no")
        return {"data": {"value": base64.b64encode(self.held[name]).decode()}}


def nothing_secret() -> HeaderSecrets:
    return HeaderSecrets(Secrets(cast("Any", Server())), judged=lambda: ())


def section(path: str) -> frozenset[L7 | None]:
    """One HTTP rule."""
    made = engine(rules(path=path))
    subject(made)
    ((_port, http),) = made.http_listeners.items()
    return frozenset(http.sections)


def subject(made: Engine) -> tuple[int, int]:
    """The sets of the web pods."""
    found = made.subject(WEB)
    return found.ingress.number, found.egress.number


def test_rows_wait_for_the_listener_they_name() -> None:
    """Until Envoy has taken or refused it, for ten seconds, and only while there is an Envoy."""

    async def story() -> None:
        made, connected = engine(rules(method="GET")), True
        listeners = PolicyListeners(made, nothing_secret(), connected=lambda: connected)
        numbers = subject(made)
        ((port, http),) = made.http_listeners.items()
        assert http.direction == Direction.INGRESS
        assert listeners.pending(numbers)
        await asyncio.sleep(9)
        assert listeners.pending(numbers)
        await asyncio.sleep(2)
        assert not listeners.pending(numbers)
        name = listener_name(port, http.direction)
        for error in (None, "bad address"):
            fresh = PolicyListeners(made, nothing_secret(), connected=lambda: True)
            fresh.answered({(LISTENER, name): Outcome(LISTENER, name, Version("1"), error)})
            task = asyncio.create_task(fresh.run(cast("Any", None)))
            await asyncio.sleep(0.1)
            assert fresh.pending(numbers)  # Envoy has said this of what had the port before
            assert not fresh.refused(numbers[0])
            version = fresh.snapshot.value[LISTENER][name].version
            fresh.answered({(LISTENER, name): Outcome(LISTENER, name, version, error)})
            assert not fresh.pending(numbers)
            assert fresh.refused(numbers[0]) == (error or "")
            task.cancel()
        connected = False
        assert not PolicyListeners(made, nothing_secret(), connected=lambda: connected).pending(numbers)

    run(story())


def test_the_next_agent_gives_the_ports_of_the_one_before(tmp_path: Path) -> None:
    """Whichever comes first: of two that want one port, Envoy and the kernel's rows go on with who had it."""
    wanted, others = [section(f"/{each}") for each in range(4)], [section(f"/other/{each}") for each in range(4)]
    first = ProxyPorts()
    place = first.number(Direction.INGRESS, wanted[0])
    for each in (*wanted, *others):
        first.number(Direction.INGRESS, each)
    neighbour = next(
        found
        for number in range(100_000)
        if (found := section(f"/neighbour/{number}")) and ProxyPorts().number(Direction.INGRESS, found) == place
    )
    beside = first.number(Direction.INGRESS, neighbour)
    assert beside != place
    file = tmp_path / "ports.json"
    PortFile(file, first).save()
    second = ProxyPorts()
    PortFile(file, second).load()
    assert second.number(Direction.INGRESS, section("/new")) not in first.digests
    assert second.number(Direction.INGRESS, neighbour) == beside
    assert second.number(Direction.INGRESS, wanted[0]) == place
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("[]")
    third = ProxyPorts()
    PortFile(file, third).load()
    assert third.number(Direction.INGRESS, neighbour) == place


def test_rules_that_no_listener_can_serve_are_not_waited_for() -> None:
    """They are said, and their ports stay closed."""

    async def story() -> None:
        made = engine(rules(method="GET", tls={"secret": {"name": "cert"}}))
        listeners = PolicyListeners(made, nothing_secret(), connected=lambda: True)
        numbers = subject(made)
        assert made.http_listeners
        assert not listeners.pending(numbers)
        assert "terminatingTLS" in listeners.refused(numbers[0])

    run(story())


def test_proxies_that_nodes_do_not_have_are_said() -> None:
    """Where there is none, its ports stay closed for good; the other one's are not spoken of."""
    http = engine(rules(method="GET"))
    ports = [{"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": [{"matchPattern": "*"}]}}]
    dns = engine(cnp({"endpointSelector": pods(app="web"), "egress": [{"toPorts": ports}]}))
    for made, off, number in ((http, "envoy", 0), (dns, "dns_proxy", 1)):
        numbers = subject(made)
        for each, said in ((off, True), ({"envoy": "dns_proxy", "dns_proxy": "envoy"}[off], False)):
            listeners = PolicyListeners(made, nothing_secret(), connected=lambda: False, **{each: False})
            assert bool(listeners.refused(numbers[number])) == said


def test_many_listeners_are_made_between_other_work() -> None:
    """An agent that starts with them goes on answering."""
    ports = ({"ports": [{"port": str(each), "protocol": "TCP"}], "rules": {"http": [{"path": f"/{each}"}]}}
             for each in range(1000, 1100))  # fmt: skip
    made = engine(cnp({"endpointSelector": pods(app="web"), "ingress": [{"toPorts": [each]} for each in ports]}))
    subject(made)

    async def story() -> None:
        listeners = PolicyListeners(made, nothing_secret(), connected=lambda: True)
        task = asyncio.create_task(listeners.run(cast("Any", None)))
        turns = 0
        while not listeners.snapshot.version:
            await asyncio.sleep(0)
            turns += 1
        task.cancel()
        assert len(listeners.snapshot.value[LISTENER]) == 100
        assert turns > 10

    asyncio.run(story())


def test_a_listener_is_without_a_rule_until_its_secret_is_there() -> None:
    """And with it as soon as it comes; what is in it is nowhere but in its own resource. A judge knows others' too."""

    async def story() -> None:
        name = {"name": "x-role", "secret": {"name": "role"}, "mismatch": "REPLACE"}
        made = engine(rules({"path": "/public"}, headerMatches=[name]))
        subject(made)
        server = Server()
        reader = Secrets(cast("Any", server))
        elsewhere = SecretRef("shop", "other")
        secrets = HeaderSecrets(reader, judged=lambda: (elsewhere,))
        listeners = PolicyListeners(made, secrets, connected=lambda: True)
        touched = 0

        def touch() -> None:
            nonlocal touched
            touched += 1

        listeners.subscribe(touch)
        tasks = [asyncio.create_task(each) for each in (listeners.run(cast("Any", None)), reader.run())]
        role = SecretRef("shop", "role")
        assert secrets.problems([role]) is None

        def shown() -> str:
            snapshot: Snapshot = listeners.snapshot.value
            return repr(snapshot[LISTENER])

        await asyncio.sleep(0.1)
        assert touched and "/public" in shown() and "x-role" not in shown()
        assert not listeners.snapshot.value[SECRET]
        assert secrets.problems([role, elsewhere]) == [
            "Secret shop/other is not there",
            "Secret shop/role is not there",
        ]
        server.held["role"] = b"hush-hush"
        before = touched
        await asyncio.sleep(2)
        assert touched > before and "/public" in shown() and "x-role" in shown() and "hush" not in shown()
        assert listeners.snapshot.value[SECRET].keys() == {"shop/role:value"}
        assert secrets.problems([role]) == []
        del server.held["role"]
        await asyncio.sleep(31)
        assert "x-role" not in shown() and not listeners.snapshot.value[SECRET]
        for task in tasks:
            task.cancel()

    run(story())
