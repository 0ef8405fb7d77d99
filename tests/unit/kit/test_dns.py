"""Our DNS codec against dnspython's, message by message."""

from __future__ import annotations

import contextlib

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mycel.kit import dns as codec
from mycel.kit import dns_records

labels = st.text("abcxyzABC019-_", min_size=1, max_size=12).filter(lambda text: text[0] != "-")
names = st.lists(labels, min_size=1, max_size=6).map(lambda parts: ".".join(parts) + ".")
ttls = st.integers(0, 2**31 - 1)
records = st.one_of(
    st.tuples(names, ttls, st.just("A"), st.ip_addresses(v=4).map(str)),
    st.tuples(names, ttls, st.just("AAAA"), st.ip_addresses(v=6).map(str)),
    st.tuples(names, ttls, st.sampled_from(["CNAME", "NS", "PTR"]), names),
    st.tuples(names, ttls, st.just("SRV"), names.map(lambda name: f"0 100 8080 {name}")),
    st.tuples(names, ttls, st.just("MX"), names.map(lambda name: f"10 {name}")),
    st.tuples(names, ttls, st.just("SOA"), names.map(lambda name: f"ns.{name} root.{name} 7 7200 1800 86400 30")),
    st.tuples(names, ttls, st.just("TXT"), st.text("abc 09", max_size=30).map(lambda text: f'"{text}"')),
)


def theirs(question: str, listed: list[tuple[str, int, str, str]], *, edns: bool) -> dns.message.Message:
    """A response as dnspython builds it."""
    query = dns.message.make_query(question, "A", use_edns=0 if edns else -1, payload=1400 if edns else None, id=77)
    response = dns.message.make_response(query)
    response.answer = [dns.rrset.from_text(name, ttl, "IN", kind, data) for name, ttl, kind, data in listed]
    return response


@given(names, st.lists(records, max_size=6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_we_read_what_dnspython_writes(question: str, listed: list[tuple[str, int, str, str]], edns: bool) -> None:
    """Same names, types, times and data; and dnspython reads our rewriting of it as the same message."""
    message = theirs(question, listed, edns=edns)
    found = codec.parse(message.to_wire(max_size=65535))
    assert [one.name for one in found.questions] == [question]
    expected = [
        (str(rrset.name), int(rrset.rdtype), rrset.ttl, rdata.to_wire()) for rrset in message.answer for rdata in rrset
    ]
    # Names that differ in case alone share a compressed form (RFC 4343): which case is read is the writer's choice.
    assert [(one.name.lower(), one.type, one.ttl, one.data.lower()) for one in found.answers] == [
        (name.lower(), kind, ttl, data.lower()) for name, kind, ttl, data in expected
    ]
    again = dns.message.from_wire(codec.serialize(found), one_rr_per_rrset=True)
    assert [str(one).lower() for one in again.answer] == [str(one).lower() for one in message.answer]
    assert (again.id, again.edns) == (77, 0 if edns else -1)


@given(st.binary(max_size=120))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_message_or_a_format_error(noise: bytes) -> None:
    """Nothing but DnsFormatError ever comes out, with a valid header in front as well."""
    for wire in (noise, b"\0\1\1\0\0\1\0\1\0\0\0\1" + noise):
        with contextlib.suppress(codec.DnsFormatError):
            codec.serialize(codec.parse(wire))


@given(names, st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_message_never_surprises(question: str, data: st.DataObject) -> None:
    """Cut or changed anywhere, a real message parses or is refused."""
    wire = bytearray(theirs(question, [(question, 5, "CNAME", "x." + question)], edns=True).to_wire())
    place = data.draw(st.integers(0, len(wire) - 1))
    wire[place] = data.draw(st.integers(0, 255))
    for damaged in (bytes(wire), bytes(wire[:place])):
        with contextlib.suppress(codec.DnsFormatError):
            codec.parse(damaged)


@given(st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=3))
def test_names_of_any_bytes_survive(parts: list[bytes]) -> None:
    """Dots, backslashes and control bytes within labels are escaped and come back."""
    wire = b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    query = b"\0\1\0\0\0\1\0\0\0\0\0\0" + wire + b"\0\1\0\1"
    (question,) = codec.parse(query).questions
    assert codec.name_labels(question.name) == tuple(parts)
    assert codec.name_wire(question.name) == wire


@pytest.mark.parametrize(
    ("what", "wire"),
    [
        ("pointer to itself", b"\xc0\x0c\0\1\0\1"),
        ("pointer forwards", b"\xc0\x20\0\1\0\1" + bytes(40)),
        ("name without end", b"\x3fabc"),
        ("reserved label type", b"\x80abc\0\0\1\0\1"),
        ("name over 255 bytes", (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1"),
    ],
)
def test_malformed_names_are_refused(what: str, wire: bytes) -> None:
    """Each of them raises."""
    with pytest.raises(codec.DnsFormatError):
        codec.parse(b"\0\1\0\0\0\1\0\0\0\0\0\0" + wire)


def test_too_long_answers_are_truncated_whole() -> None:
    """Beyond the limit the answer section is empty, TC is set, and the OPT record stays."""
    query = codec.Message(9, codec.Flag.RD, questions=(codec.Question("a.example.", codec.Type.TXT),))
    reply = query.reply()
    answers = tuple(dns_records.txt_record("a.example.", 30, "x" * 200) for _ in range(4))
    full = codec.Message(9, reply.flags, questions=query.questions, answers=answers, edns=codec.Edns())
    wire = codec.serialize(full, 512)
    found = codec.parse(wire)
    assert len(wire) <= 512
    assert (found.answers, bool(found.flags & codec.Flag.TC), found.edns is not None) == ((), True, True)
    assert codec.parse(codec.serialize(full)).answers == answers


def test_reverse_names() -> None:
    """Both families, and incomplete ones are none."""
    for text in ("10.244.1.7", "fd00::1:2"):
        address = codec.ipaddress.ip_address(text)
        assert dns_records.address_of_reverse(dns_records.reverse_name(address)) == address
    assert dns_records.address_of_reverse("1.10.in-addr.arpa.") is None
    assert dns_records.address_of_reverse("x.ip6.arpa.") is None
