"""What clients see of the proxy, and what is in the kernel when they see it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import socket
from ipaddress import ip_address as ip

import msgspec
import pytest

from mycel.flow import l7
from mycel.kit import dns
from mycel.kit.dns import Message, Question, RCode, Record, Type
from mycel.kit.dns_records import address_record, name_record
from tests.bpf.lab import inside, run
from tests.clusters import eventually
from tests.dnsproxy.bed import CLIENT, DEAD, PORT, Answerer, Bed

pytestmark = pytest.mark.root
_SO_RCVBUFFORCE = 33


def addresses(message: Message) -> list[str]:
    return [str(found) for each in message.answers if (found := each.address())]


def answered(*records: Record) -> Answerer:
    def answer(query: Message, _wire: bytes, tcp: bool) -> list[bytes]:
        made = dataclasses.replace(query.reply(), answers=records)
        return [dns.serialize(made, 65535 if tcp else query.udp_limit())]

    return answer


@pytest.mark.parametrize("tcp", [False, True])
def test_allowed(bed: Bed, *, tcp: bool) -> None:
    """The resolver sees the client's address; the row is there when the answer is."""
    bed.resolver.records["a.test."] = [f"192.0.2.{10 + tcp}"]
    found = bed.ask("A.test.", tcp=tcp)
    assert bed.identity(f"192.0.2.{10 + tcp}") == 0x0100_0001
    assert (found.rcode, addresses(found), found.id) == (0, [f"192.0.2.{10 + tcp}"], 4711)
    assert found.edns is not None
    assert bed.resolver.asked == [(CLIENT, "A.test.")]


@pytest.mark.parametrize("tcp", [False, True])
def test_denied(bed: Bed, *, tcp: bool) -> None:
    found = bed.ask("a.other.", tcp=tcp)
    assert (found.rcode, found.answers, found.questions[0].name) == (RCode.REFUSED, (), "a.other.")
    assert found.edns is not None
    assert bed.resolver.asked == []


def test_ipv6_addresses_have_the_identity_of_their_family(bed: Bed) -> None:
    bed.resolver.records["a.test."] = ["2001:db8::7"]
    assert addresses(bed.ask("a.test.", Type.AAAA)) == ["2001:db8::7"]
    assert bed.identity("2001:db8::7") == 0x0100_0002


def test_any_type_passes(bed: Bed) -> None:
    bed.resolver.answer = answered(Record("a.test.", 65, 60, b"\0\1\0"), Record("a.test.", Type.TXT, 60, b"\1x"))
    assert [each.type for each in bed.ask("a.test.", 65).answers] == [65, Type.TXT]


def test_aliases_lead_to_addresses_and_loops_to_nothing(bed: Bed) -> None:
    bed.resolver.answer = answered(
        name_record("a.test.", Type.CNAME, 60, "b.cdn."),
        name_record("b.cdn.", Type.CNAME, 60, "c.cdn."),
        name_record("c.cdn.", Type.CNAME, 60, "b.cdn."),
        address_record("c.cdn.", 60, ip("192.0.2.30")),
        address_record("elsewhere.cdn.", 60, ip("192.0.2.31")),
    )
    assert len(bed.ask("a.test.").answers) == 5
    assert bed.identity("192.0.2.30") == 0x0100_0001
    assert bed.identity("192.0.2.31") is None


def test_names_no_policy_selects_leave_no_row(bed: Bed) -> None:
    bed.resolver.records["plain.test."] = ["192.0.2.40"]
    assert addresses(bed.ask("plain.test.")) == ["192.0.2.40"]
    assert bed.identity("192.0.2.40") is None


def test_a_new_combination_is_asked_for_before_the_answer_leaves(bed: Bed) -> None:
    bed.resolver.records["a.test."] = bed.resolver.records["x.wild.test."] = ["192.0.2.50"]
    bed.ask("a.test.")
    assert bed.identity("192.0.2.50") == 0x0100_0001
    bed.ask("x.wild.test.")
    assert (bed.identity("192.0.2.50") or 0) >= 0x0100_1000
    assert bed.agent.requests[-1].wanted[0].selectors == ("*.wild.test.", "a.test.")


def test_a_thousand_addresses_by_tcp(bed: Bed) -> None:
    many = [f"198.18.{index // 256}.{index % 256}" for index in range(1500)]
    bed.resolver.answer = answered(*(address_record("a.test.", 60, ip(text)) for text in many))
    assert dns.Flag.TC in bed.ask("a.test.").flags
    found = bed.ask("a.test.", tcp=True)
    assert addresses(found) == many
    assert all(bed.identity(text) is not None for text in many)


def test_what_is_no_answer_is_not_passed_on(bed: Bed) -> None:
    """Wrong question, wrong kind, broken: the real answer, which comes later, is taken."""

    def answer(query: Message, wire: bytes, tcp: bool) -> list[bytes]:
        forged = dataclasses.replace(query.reply(), questions=(Question("b.test.", Type.A),))
        broken = wire[:2] + b"\x80\0\0\1\0\7" + wire[8:]
        return [dns.serialize(forged), wire, broken, b"\0", wire[:2], *bed.resolver.usual(query, wire, tcp)]

    bed.resolver.answer = answer
    found = bed.ask("a.test.")
    assert (found.rcode, found.questions[0].name, len(found.answers)) == (0, "a.test.", 1)


@pytest.mark.parametrize("tcp", [False, True])
def test_a_server_that_says_nothing(bed: Bed, *, tcp: bool) -> None:
    bed.resolver.answer = lambda *_: []
    assert bed.ask("a.test.", tcp=tcp).rcode == RCode.SERVFAIL


@pytest.mark.parametrize("tcp", [False, True])
def test_a_server_that_is_not_there(bed: Bed, *, tcp: bool) -> None:
    assert bed.ask("a.test.", server=DEAD, tcp=tcp).rcode == RCode.SERVFAIL


@pytest.mark.parametrize(
    ("wire", "rcode"),
    [
        (bytes.fromhex("0001 0100 0001 0000 0000 0000"), RCode.FORMERR),
        (bytes.fromhex("0001 0100 0002 0000 0000 0000 0161 00 0001 0001 0161 00 0001 0001"), RCode.FORMERR),
        (bytes.fromhex("0001 2000 0001 0000 0000 0000 0161 00 0001 0001"), RCode.NOTIMP),
        (bytes.fromhex("0001 0100 0001 0000 0000 0000 c00c 0001 0001"), RCode.FORMERR),
    ],
)
def test_queries_that_cannot_be_read(bed: Bed, wire: bytes, rcode: RCode) -> None:
    found = bed.exchange(wire)
    assert (found[:2], found[2] & 0x80, found[3] & 0xF) == (b"\0\1", 0x80, rcode)
    assert bed.resolver.asked == []


def test_what_is_no_query_is_silence(bed: Bed) -> None:
    with bed.client() as made:
        for wire in (b"", b"\0" * 11, bytes.fromhex("0001 8180 0001 0000 0000 0000 0161 00 0001 0001")):
            made.send(wire)
        made.settimeout(0.3)
        with pytest.raises(TimeoutError):
            made.recv(100)
    assert bed.ask("a.test.").rcode == 0


def test_many_at_once_each_get_their_own(bed: Bed) -> None:
    with bed.client() as made:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)  # room for all answers
        for number in range(500):
            query = Message(7, dns.Flag.RD, questions=(Question(f"n{number}.test.", Type.A),))
            made.send(dns.serialize(query))
        names = {dns.parse(made.recv(4096)).questions[0].name for _ in range(500)}
    assert len(names) == 500


def heard(bed: Bed, taker: socket.socket) -> bool:
    """Whether a question leaves a record."""
    bed.ask("before.test.")
    with contextlib.suppress(BlockingIOError):
        return bool(taker.recv(65536))
    return False


def test_records_of_questions_and_answers(bed: Bed) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taker:
        taker.bind(str(bed.folder / "l7-records.sock"))
        taker.settimeout(0)
        eventually(lambda: heard(bed, taker), what="a record, of a proxy that looks for who takes them")
        taker.settimeout(30)
        bed.resolver.records["a.test."] = ["192.0.2.60"]
        bed.ask("a.test.")
        bed.ask("a.other.")
        lines = (line for _ in itertools.count() for line in taker.recv(65536).split(b"\n"))
        told = (each for each in map(l7.decode, lines) if each.dns and each.dns.query != "before.test.")
        both, denied = itertools.islice(told, 2)
    request, response = l7.halves(both)
    (bed.folder / "l7-records.sock").unlink()
    assert request.dns == l7.Dns("a.test.", ("A",))
    assert (request.half, request.verdict, request.listener) == (l7.Half.REQUEST, l7.L7Verdict.FORWARDED, PORT)
    assert response.dns == l7.Dns("a.test.", ("A",), ips=("192.0.2.60",), ttl=60, rrtypes=("A",))
    assert (response.half, response.source.address, response.destination.port) == (l7.Half.RESPONSE, CLIENT, 53)
    assert response.latency_ns == response.time_ns - request.time_ns > 0
    assert l7.halves(denied) == (denied,)
    assert (denied.verdict, denied.half) == (l7.L7Verdict.DROPPED, l7.Half.REQUEST)
    assert msgspec.json.decode(l7.encode(denied))["dns"]["query"] == "a.other."


def test_a_server_that_comes_back_is_asked_at_once(bed: Bed) -> None:
    """The kernel tells of a closed port at the next send; that query is not lost for it."""
    with inside(bed.resolver_ns):
        late = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    run("ip", "-n", bed.resolver_ns, "address", "add", "10.77.2.4/24", "dev", "eth0")
    with late, bed.client("10.77.2.4") as made:
        query = dns.serialize(Message(9, dns.Flag.RD, questions=(Question("late.test.", Type.A),)))
        made.send(query)
        assert dns.parse(made.recv(4096)).rcode == RCode.SERVFAIL
        late.bind(("10.77.2.4", 53))
        late.settimeout(30)
        made.send(query)
        assert dns.parse(late.recv(4096)).questions[0].name == "late.test."
