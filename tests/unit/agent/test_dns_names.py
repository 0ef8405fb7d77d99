"""The agent's side of the DNS proxy, with an engine and a planner that is realized at once."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any, cast

import pytest

from mycel.agent.dns_names import DnsNames
from mycel.agent.planner import Part, Planner
from mycel.model.address import Address, parse_address
from mycel.plan.dns import DnsRules, NamesAnswer, NamesRequest, Wanted, read_rules
from mycel.policy.engine import Engine
from tests.unit.policy.test_engine import fqdn_policy, party, put

V4 = "0.0.0.0/0"


class FakePlanner:
    """Counts what is realized."""

    def __init__(self) -> None:
        self.realized: list[Part] = []

    async def realize(self, part: Part) -> None:
        self.realized.append(part)

    def touch(self, part: Part) -> None:
        self.realized.append(part)


def made(folder: Path, *ends: Address) -> tuple[DnsNames, Engine, FakePlanner]:
    engine = Engine()
    names = DnsNames(folder, engine, connections=lambda: frozenset(ends))
    names.adopt()
    put(engine, fqdn_policy({"matchName": "a.b"}, {"matchPattern": "*.b"}, dns=[{"matchPattern": "*"}]))
    engine.sets([engine.subject(party(300, "web")).egress.number])
    planner = FakePlanner()
    cast("Any", names)._planner = cast("Planner", planner)
    return names, engine, planner


def rules(folder: Path) -> DnsRules:
    return read_rules((folder / "rules.json").read_bytes())


def ask(
    names: DnsNames, *selectors: str, used: tuple[int, ...] | None = None, live: tuple[str, ...] = ()
) -> NamesAnswer:
    wanted = (Wanted(selectors, V4),) if selectors else ()
    return asyncio.run(names.answer(NamesRequest(wanted, used, live)))


def test_rules_are_written_once_for_the_owner_alone_and_the_proxy_is_told(tmp_path: Path) -> None:
    names, engine, _ = made(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as proxy:
        proxy.bind(str(tmp_path / "poke.sock"))
        names.tell()
        names.tell()
        assert proxy.recv(8) == b""
        with pytest.raises(BlockingIOError):
            proxy.recv(8)
    found = rules(tmp_path)
    assert (tmp_path / "rules.json").stat().st_mode & 0o777 == 0o600
    assert set(found.listeners.values()) == {("*",)}
    assert found.selectors == ("*.b.", "a.b.")
    assert {each.identity for each in found.identities} == set(engine.names.identities.values())


def test_a_new_combination_is_realized_before_it_is_given(tmp_path: Path) -> None:
    names, engine, planner = made(tmp_path)
    names.tell()
    (number,) = ask(names, "*.b.", "a.b.").identities
    assert (engine.party(cast("Any", number)) is not None, planner.realized) == (True, [Part.POLICY])
    assert ask(names, "*.b.", "a.b.").identities == (number,)
    assert len(planner.realized) == 1


def test_the_next_agent_goes_on_with_the_same_identities(tmp_path: Path) -> None:
    names, engine, _ = made(tmp_path)
    (number,) = ask(names, "*.b.", "a.b.").identities
    names.tell()
    before = rules(tmp_path)
    later, again, _ = made(tmp_path)
    assert again.names.identities == engine.names.identities
    later.tell()
    assert rules(tmp_path) == before
    assert number in {each.identity for each in before.identities}


def test_what_no_address_has_goes_at_the_second_sweep(tmp_path: Path) -> None:
    names, engine, _ = made(tmp_path)
    (number,) = ask(names, "*.b.", "a.b.").identities
    ask(names, used=())
    assert number in engine.names.identities.values()
    ask(names, used=(number,))
    ask(names, used=())
    assert number in engine.names.identities.values()
    ask(names, used=())
    assert number not in engine.names.identities.values()
    assert len(engine.names.identities) == 4


def test_whose_connections_live(tmp_path: Path) -> None:
    names, _, _ = made(tmp_path, parse_address("192.0.2.1"))
    assert ask(names, live=("192.0.2.1", "192.0.2.2")).live == ("192.0.2.1",)


@pytest.mark.parametrize("wanted", [Wanted((), V4), Wanted(("b.", "a."), V4), Wanted(("a.",), "nonsense")])
def test_what_is_not_an_identity_is_refused(tmp_path: Path, wanted: Wanted) -> None:
    names, _, _ = made(tmp_path)
    with pytest.raises(ValueError, match=r"sorted|nonsense"):
        asyncio.run(names.answer(NamesRequest((wanted,))))


def test_a_broken_file_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_bytes(b"{")
    _, engine, _ = made(tmp_path)
    assert len(engine.names.identities) == 4
