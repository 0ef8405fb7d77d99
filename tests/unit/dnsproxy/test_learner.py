"""What the learner writes, and before what."""

from __future__ import annotations

from pathlib import Path

from mycel.dnsproxy.journal import Journal
from mycel.dnsproxy.learner import Learner
from mycel.model.address import Address, parse_address
from mycel.plan.dns import DnsRules, KnownIdentity, Wanted
from mycel.policy.name_cache import NameCache

A, B, POD = parse_address("192.0.2.1"), parse_address("198.51.100.1"), parse_address("10.1.0.5")
V4 = "0.0.0.0/0"


class FakeNames:
    """Rows in memory; `full`: none is taken."""

    def __init__(self) -> None:
        self.rows: dict[Address, int] = {}
        self.full = False

    def dump(self) -> dict[Address, int]:
        return dict(self.rows)

    def put(self, address: Address, identity: int) -> bool:
        if not self.full:
            self.rows[address] = identity
        return not self.full

    def remove(self, address: Address) -> None:
        del self.rows[address]


def rules(*known: tuple[tuple[str, ...], str, int], networks: tuple[str, ...] = ()) -> DnsRules:
    identities = tuple(KnownIdentity(Wanted(selectors, network), number) for selectors, network, number in known)
    return DnsRules({}, ("*.a.", "x.a."), networks, identities)


def learner(folder: Path, rows: FakeNames) -> Learner:
    made = Learner(NameCache(), rows, Journal(folder / "names.jsonl"))
    made.restore()
    return made


def test_known_combinations_are_written_at_once(tmp_path: Path) -> None:
    rows = FakeNames()
    made = learner(tmp_path, rows)
    made.follow(
        rules((("*.a.",), V4, 7), (("*.a.",), "198.51.100.0/24", 8), networks=("198.51.100.0/24", "198.51.0.0/16"))
    )
    assert made.admit("y.a.", [(A, 5), (B, 5)], POD, 0) == ()
    assert rows.rows == {A: 7, B: 8}


def test_what_is_not_known_waits_and_keeps_the_row_it_has(tmp_path: Path) -> None:
    rows = FakeNames()
    made = learner(tmp_path, rows)
    made.follow(rules((("*.a.",), V4, 7)))
    made.admit("y.a.", [(A, 5)], POD, 0)
    both = Wanted(("*.a.", "x.a."), V4)
    assert made.admit("x.a.", [(A, 5)], POD, 0) == (both,)
    assert (rows.rows, made.missing([A])) == ({A: 7}, (both,))
    made.know([(both, 9)])
    assert (made.missing([A]), rows.rows) == ((), {A: 9})


def test_a_row_the_kernel_does_not_take_holds_the_answer(tmp_path: Path) -> None:
    rows = FakeNames()
    made = learner(tmp_path, rows)
    made.follow(rules((("*.a.",), V4, 7)))
    rows.full = True
    assert made.admit("y.a.", [(A, 5)], POD, 0) == (Wanted(("*.a.",), V4),)
    rows.full = False
    assert (made.retry(), rows.rows) == ((), {A: 7})


def test_another_process_goes_on_with_names_and_rows(tmp_path: Path) -> None:
    rows = FakeNames()
    known = rules((("*.a.",), V4, 7))
    first = learner(tmp_path, rows)
    first.follow(known)
    first.admit("y.a.", [(A, 5)], POD, 0)
    with (tmp_path / "names.jsonl").open("ab") as file:
        file.write(b'{"n":"z.a.","a":"192.0')  # killed in the middle of a line
    rows.rows[B] = 99  # nobody's
    second = learner(tmp_path, rows)
    assert second.follow(known) == ()
    assert rows.rows == {A: 7}


def test_what_is_over_goes_with_its_row(tmp_path: Path) -> None:
    rows = FakeNames()
    made = learner(tmp_path, rows)
    made.follow(rules((("*.a.",), V4, 7)))
    made.admit("y.a.", [(A, 5), (B, 500)], POD, 0)
    for now in (10, 11):
        made.sweep(now, {A})
    assert rows.rows == {A: 7, B: 7}
    made.sweep(12, set())
    assert rows.rows == {B: 7}
    assert "192.0.2.1" not in (tmp_path / "names.jsonl").read_text()
    assert made.used == (7,)


def test_a_cidr_of_a_policy_gives_addresses_another_identity(tmp_path: Path) -> None:
    rows = FakeNames()
    made = learner(tmp_path, rows)
    made.follow(rules((("*.a.",), V4, 7)))
    made.admit("y.a.", [(A, 5)], POD, 0)
    assert made.follow(rules((("*.a.",), V4, 7), networks=("192.0.2.0/24",))) == (Wanted(("*.a.",), "192.0.2.0/24"),)
    made.follow(rules((("*.a.",), V4, 7), (("*.a.",), "192.0.2.0/24", 8), networks=("192.0.2.0/24",)))
    assert rows.rows == {A: 8}
