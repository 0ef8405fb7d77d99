"""Whatever a client or a server sends: a value, or DnsFormatError."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mycel.dnsproxy.wire import Bad, Query, is_answer, read_answer, read_query, refusal
from mycel.kit import dns
from mycel.kit.dns import DnsFormatError, Message, Question, RCode

QUERY = dns.serialize(Message(1, dns.Flag.RD, questions=(Question("a.b.", 1),)))
ANSWER = bytes.fromhex(
    "000181800001000200000000016101620000010001c00c00050001000000050002c00cc00c00010001000000050004c0000201"
)
mutations = st.lists(st.tuples(st.integers(0, len(ANSWER) - 1), st.integers(0, 255)), max_size=8)


def changed(wire: bytes, changes: list[tuple[int, int]]) -> bytes:
    made = bytearray(wire)
    for at, value in changes:
        made[at % len(made)] = value
    return bytes(made)


@given(st.one_of(st.binary(max_size=600), mutations.map(lambda each: changed(QUERY, each))))
@example(b"")
@settings(max_examples=500)
def test_queries(wire: bytes) -> None:
    found = read_query(wire)
    if isinstance(found, Query):
        assert found.name == found.name.lower()
        assert wire[12:].lower().startswith(found.question)
    if not isinstance(found, Bad) or found.rcode is not None:
        answer = refusal(wire, RCode.REFUSED)
        assert (answer[:2], answer[2] & 0x80, answer[3] & 0xF) == (wire[:2], 0x80, RCode.REFUSED)


@given(st.one_of(st.binary(max_size=600), mutations.map(lambda each: changed(ANSWER, each))))
@settings(max_examples=500)
def test_answers(wire: bytes) -> None:
    query = read_query(QUERY)
    assert isinstance(query, Query)
    if is_answer(wire, query):
        try:
            found = read_answer(wire, query)
        except DnsFormatError:
            return
        assert all(len(address) == 16 for address, _ in found.addresses)


def test_a_name_that_is_its_own_alias_keeps_its_address() -> None:
    query = read_query(QUERY)
    assert isinstance(query, Query)
    found = read_answer(ANSWER, query)
    assert ([ttl for _, ttl in found.addresses], found.aliases) == ([5], ())
