"""The proxy killed, the agent away."""

from __future__ import annotations

import os
import signal
import time

import pytest

from mycel.kit.dns import RCode
from mycel.plan.dns import DnsRules
from tests.clusters import eventually
from tests.dnsproxy.bed import PORT, Bed, FakeAgent

pytestmark = pytest.mark.root


def test_killed_five_times_what_was_learnt_stays(bed: Bed) -> None:
    for number in range(1, 6):
        bed.resolver.records["a.test."] = [f"192.0.2.{number}"]
        assert bed.ask("a.test.").rcode == 0
        bed.kill()
        bed.run_proxy()
        for earlier in range(1, number + 1):
            assert bed.identity(f"192.0.2.{earlier}") == 0x0100_0001, (number, bed.log())
    lines = (bed.folder / "dns-proxy" / "names.jsonl").read_text()
    assert all(f'"192.0.2.{number}"' in lines for number in range(1, 6))


def test_without_the_agent_known_combinations_go_on_and_new_ones_are_withheld(bed: Bed) -> None:
    bed.agent.close()
    bed.resolver.records |= {"a.test.": ["192.0.2.70"], "b.test.": ["192.0.2.71"]}
    assert bed.ask("a.test.").rcode == 0
    assert bed.ask("b.test.").rcode == RCode.SERVFAIL
    assert bed.ask("b.test.", tcp=True).rcode == RCode.SERVFAIL
    assert bed.identity("192.0.2.71") is None
    bed.kill()
    bed.run_proxy()
    assert bed.ask("a.test.").rcode == 0
    bed.agent = FakeAgent(bed.folder / "cilium.sock")
    assert bed.ask("b.test.").rcode == 0
    assert bed.identity("192.0.2.71") == 0x0100_1000


def test_rules_that_go_take_rows_and_listeners_with_them(bed: Bed) -> None:
    bed.resolver.records["a.test."] = ["192.0.2.80"]
    bed.ask("a.test.")
    assert bed.identity("192.0.2.80") == 0x0100_0001
    bed.write_rules(DnsRules({PORT: ("other.",)}))
    bed.poke()
    eventually(lambda: bed.ask("a.test.").rcode == RCode.REFUSED, what="the refusal")
    eventually(lambda: bed.identity("192.0.2.80") is None, what="no row")


def test_a_query_that_comes_before_a_new_proxy_is_ready_waits_for_it(bed: Bed) -> None:
    """Asked once, over UDP and TCP, as soon as another process is there."""
    bed.kill()
    bed.write_rules()
    bed.run_supervised()
    try:
        for number in range(1, 6):
            before = bed.worker()
            os.kill(before, signal.SIGKILL)
            while bed.worker() in (before, 0):
                time.sleep(0.001)
            bed.resolver.records["a.test."] = [f"192.0.2.{90 + number}"]
            assert bed.ask("a.test.", tcp=number == 5).rcode == 0
            assert bed.identity(f"192.0.2.{90 + number}") == 0x0100_0001
    finally:
        bed.kill()
        bed.run_proxy()
