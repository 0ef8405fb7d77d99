"""Which answers leave at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mycel.dnsproxy.gate import Gate, boot_time_s
from mycel.dnsproxy.journal import Journal
from mycel.dnsproxy.learner import Learner
from mycel.dnsproxy.wire import Answer, Query
from mycel.model.address import parse_address
from mycel.plan.dns import DnsRules, KnownIdentity, NamesAnswer, NamesRequest, Wanted
from mycel.policy.name_cache import NameCache
from tests.unit.dnsproxy.test_learner import FakeNames

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
    cache, rows = NameCache(per_name=1, min_ttl_s=0), FakeNames()
    learner = Learner(cache, rows, Journal(tmp_path / "names.jsonl"))
    gate = Gate(learner, _nobody)
    gate.follow(DnsRules({}, ("*.a.",), (), (KnownIdentity(Wanted(("*.a.",), "0.0.0.0/0"), 7),)))
    for ttl_s, fresh_s in ((0, 1), (5, 5), (900, 30)):
        wire = b"id" + bytes([fresh_s])
        before_s = boot_time_s()
        assert gate.admit(wire, QUERY, Answer(0, ((A, ttl_s),), (), ()), "10.1.0.5")
        (entry,) = cache.entries()
        assert entry.until_s >= before_s + ttl_s + fresh_s
        for later_s, fresh in ((fresh_s - 0.1, True), (fresh_s + 0.1, False)):
            now_s = 100.0 + later_s
            assert gate.is_fresh(b"of" + wire[2:]) is fresh
        now_s = 100.0
    assert gate.is_fresh(wire)
    assert gate.admit(b"id other", QUERY, Answer(0, ((B, 2000),), (), ()), "10.1.0.5")
    assert rows.rows == {B: 7}
    assert not gate.is_fresh(wire)
