"""Which answers leave at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mycel.dnsproxy.gate import Gate, boot_time_s
from mycel.dnsproxy.journal import Journal
from mycel.dnsproxy.learner import Learner
from mycel.dnsproxy.wire import Answer, Query
from mycel.kit import dns
from mycel.kit.dns import Message, Question
from mycel.model.address import parse_address
from mycel.plan.dns import DnsRules, KnownIdentity, NamesAnswer, NamesRequest, Wanted
from mycel.policy.name_cache import NameCache
from tests.unit.dnsproxy.test_learner import V4, FakeNames

A, B = parse_address("192.0.2.1"), parse_address("192.0.2.2")
QUERY = Query("y.a.", 1, b"")


async def _nobody(_request: NamesRequest) -> NamesAnswer:
    raise OSError


def test_an_answer_passes_as_it_is_while_what_it_taught_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its TTL, half a minute at most; addresses are kept beyond the last one that passes. Not when one is gone."""
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    cache, rows = NameCache(per_name=1, put_off=0), FakeNames()
    learner = Learner(cache, rows, Journal(tmp_path / "names.jsonl"))
    gate = Gate(learner, _nobody)
    gate.follow(DnsRules({}, ("*.a.",), (), (KnownIdentity(Wanted(("*.a.",), V4), 7),)))
    for ttl_s, fresh_s in ((0, 1), (5, 5), (900, 30)):
        wire = b"id" + bytes([fresh_s])
        before_s = boot_time_s()
        answer = Answer(0, ((A, ttl_s),), (), ())
        assert gate.admit(wire, QUERY, answer, "10.1.0.5")
        (entry,) = cache.entries()
        assert entry.until_s >= before_s + ttl_s + fresh_s
        for later_s, fresh in ((fresh_s - 0.1, True), (fresh_s + 0.1, False)):
            now_s = 100.0 + later_s
            assert gate.fresh(b"of" + wire[2:]) == (answer if fresh else None)
        now_s = 100.0
    assert gate.fresh(wire)
    assert gate.admit(b"id other", QUERY, Answer(0, ((B, 2000),), (), ()), "10.1.0.5")
    assert rows.rows == {B: 7}
    assert gate.fresh(wire) is None


def test_an_answer_is_read_again_when_an_address_in_it_has_another_identity(tmp_path: Path) -> None:
    """Its row is there still, but with the selectors of other names."""
    cache, rows = NameCache(per_name=1, put_off=0), FakeNames()
    gate = Gate(Learner(cache, rows, Journal(tmp_path / "names.jsonl")), _nobody)
    selectors = (("*.a.", "*.b."), ("*.b.",), ("*.a.",))
    known = (KnownIdentity(Wanted(each, V4), 7 + number) for number, each in enumerate(selectors))
    gate.follow(DnsRules({}, ("*.a.", "*.b."), (), tuple(known)))
    assert gate.admit(b"id b", Query("y.b.", 1, b""), Answer(0, ((A, 60),), (), ()), "10.1.0.5")
    gate.admit(b"id a", QUERY, Answer(0, ((A, 60),), (), ()), "10.1.0.5")
    assert gate.fresh(b"id a")
    gate.admit(b"id other", QUERY, Answer(0, ((B, 600),), (), ()), "10.1.0.5")
    assert rows.rows == {A: 8, B: 9}
    assert gate.fresh(b"id a") is None


def test_what_is_remembered_has_a_bound_in_bytes(tmp_path: Path) -> None:
    """Queries by TCP may have 64 KiB, and answers too."""
    gate = Gate(Learner(NameCache(), FakeNames(), Journal(tmp_path / "names.jsonl")), _nobody)
    gate.follow(DnsRules({15000: ("*",)}, ("*.a.",), (), (KnownIdentity(Wanted(("*.a.",), V4), 7),)))
    query = dns.serialize(Message(1, questions=(Question("y.a.", 1),)))
    gate.judge(15000, query)
    gate.judge(15000, query + bytes(60_000))
    assert list(gate.memo(15000)) == [query[2:]]
    for number in range(200):
        gate.admit(b"id%d" % number + bytes(60_000), QUERY, Answer(0, ((A, 60),), (), ()), "10.1.0.5")
    kept = [number for number in range(200) if gate.fresh(b"id%d" % number + bytes(60_000))]
    assert kept[-1] == 199
    assert len(kept) * 60_000 < 5 << 20
