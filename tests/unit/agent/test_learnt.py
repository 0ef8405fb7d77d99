"""The proxy's journal, as the agent follows it."""

from __future__ import annotations

import time
from pathlib import Path

from mycel.agent.learnt import Learnt
from mycel.dnsproxy.journal import Journal
from mycel.model.address import parse_address
from mycel.policy.name_cache import Entry

A, B, POD = parse_address("192.0.2.1"), parse_address("192.0.2.2"), parse_address("10.1.0.5")


def test_lines_are_added_and_a_new_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "names.jsonl"
    journal, learnt = Journal(path), Learnt(path)
    assert not learnt.look()
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    journal.append([Entry("a.", A, now_s + 30, POD)])
    assert learnt.look()
    assert not learnt.look()
    journal.append([Entry("b.", A, now_s + 30, POD), Entry("b.", B, now_s, POD)])
    with path.open("ab") as file:
        file.write(b'{"n":"half')
    assert learnt.look()
    assert (learnt.names(A), learnt.names(B), learnt.names(POD)) == (("a.", "b."), ("b.",), ())
    shown = learnt.listing(lambda _address: None)
    assert [(each["fqdn"], each["ips"], each["source"]) for each in shown] == [
        ("a.", ["192.0.2.1"], "10.1.0.5"),
        ("b.", ["192.0.2.1"], "10.1.0.5"),
        ("b.", ["192.0.2.2"], "10.1.0.5"),
    ]
    assert 28 <= int(str(shown[0]["ttl-left"])) <= 30
    journal.compact([Entry("b.", B, now_s, POD)], 1, now=True)
    assert learnt.look()
    assert (learnt.names(A), learnt.names(B)) == ((), ("b.",))
