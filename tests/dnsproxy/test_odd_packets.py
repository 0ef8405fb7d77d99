"""Packets that are allowed but seldom, and those that are meant to mislead."""

from __future__ import annotations

import dataclasses
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address as ip

import msgspec
import pytest

from mycel.kit import dns
from mycel.kit.dns import Message, Question, RCode, Type
from mycel.kit.dns_records import address_record, name_record
from mycel.plan.dns import LearntLine
from tests.bpf.lab import inside, run
from tests.dnsproxy.bed import CLIENT, RESOLVER, Bed
from tests.dnsproxy.test_proxy import addresses, answered

pytestmark = pytest.mark.root
OTHER = "10.77.2.5"


def query(name: str, number: int = 7) -> bytes:
    return dns.serialize(Message(number, dns.Flag.RD, questions=(Question(name, Type.A),), edns=dns.Edns(4096)))


def framed(wire: bytes) -> bytes:
    return struct.pack("!H", len(wire)) + wire


def answer_to(wire: bytes, address: str) -> bytes:
    asked = dns.parse(wire)
    record = address_record(asked.questions[0].name, 60, ip(address))
    return dns.serialize(dataclasses.replace(asked.reply(), answers=(record,)))


@contextmanager
def server(bed: Bed, kind: int = socket.SOCK_DGRAM) -> Iterator[socket.socket]:
    """Another server, worked by hand."""
    run("ip", "-n", bed.resolver_ns, "address", "replace", f"{OTHER}/24", "dev", "eth0")
    with inside(bed.resolver_ns):
        made = socket.socket(socket.AF_INET, kind)
    with made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((OTHER, 53))
        made.settimeout(5)
        yield made


def test_the_letters_of_a_question_stay_as_they_are(bed: Bed) -> None:
    found = bed.ask("X9.wILD.tEst.")
    assert (found.rcode, found.questions[0].name) == (0, "X9.wILD.tEst.")
    assert bed.resolver.asked == [(CLIENT, "X9.wILD.tEst.")]
    assert bed.ask("a.OTHER.").rcode == RCode.REFUSED


@pytest.mark.parametrize("count", [30, 100, 250, 1500])  # beyond 512 bytes, beyond a packet, 4 and 24 KiB
def test_large_answers_by_udp(bed: Bed, count: int) -> None:
    many = [f"198.19.{index // 250}.{index % 250}" for index in range(count)]
    records = tuple(address_record("many.wild.test.", 60, ip(text)) for text in many)
    bed.resolver.answer = lambda asked, *_: [dns.serialize(dataclasses.replace(asked.reply(), answers=records))]
    with bed.client() as made:
        made.send(query("many.wild.test."))
        found = dns.parse(made.recv(65535))
    assert addresses(found) == many
    assert all(bed.identity(text) is not None for text in many)


def test_an_alias_gives_its_name_the_address_and_its_target_nothing(bed: Bed) -> None:
    """b.test is selected: as a target it is not; asked for itself it is."""
    records = (name_record("c.test.", Type.CNAME, 60, "b.test."), address_record("b.test.", 60, ip("192.0.2.100")))
    bed.resolver.answer = answered(*records)
    assert addresses(bed.ask("c.test.")) == ["192.0.2.100"]
    assert bed.identity("192.0.2.100") is None
    bed.resolver.answer = answered(*records[1:])
    bed.ask("b.test.")
    assert bed.identity("192.0.2.100") is not None


def test_both_families_in_one_answer(bed: Bed) -> None:
    both = ("192.0.2.101", "2001:db8::101")
    bed.resolver.answer = answered(*(address_record("a.test.", 60, ip(text)) for text in both))
    bed.ask("a.test.", Type.ANY)
    assert [bed.identity(text) for text in both] == [0x0100_0001, 0x0100_0002]


def test_a_life_of_nothing_and_one_of_ages(bed: Bed) -> None:
    """The first is good for the moment, the other for a week, after a restart as before."""
    lives = {"192.0.2.102": 0, "192.0.2.103": 2**31 - 1}
    bed.resolver.answer = answered(*(address_record("a.test.", ttl, ip(text)) for text, ttl in lives.items()))
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    bed.ask("a.test.")
    assert all(bed.identity(text) == 0x0100_0001 for text in lives)
    content = (bed.folder / "dns-proxy" / "names.jsonl").read_bytes()
    lines = [msgspec.json.decode(raw, type=LearntLine) for raw in content.splitlines()]
    left_s = {line.address: line.until_s - now_s for line in lines if line.address in lives}
    assert 0 <= left_s["192.0.2.102"] < 10
    assert abs(left_s["192.0.2.103"] - 7 * 86400) < 10


def test_a_name_that_begins_in_the_header_is_none(bed: Bed) -> None:
    """The id would be a part of it, and the server is asked with another id."""
    assert bed.exchange(bytes.fromhex("0161 0000 0001 0000 0000 0000 c000 0001 0001"))[3] & 0xF == RCode.FORMERR
    assert bed.resolver.asked == []


def test_an_answer_from_somebody_else_is_none(bed: Bed) -> None:
    """Of another address or port, with the right id and question."""
    with server(bed) as real, bed.client(OTHER) as made:
        made.send(query("a.test."))
        wire, leg = real.recvfrom(4096)
        for place in ((RESOLVER, 5399), (OTHER, 5399)):
            with inside(bed.resolver_ns):
                forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with forger:
                forger.bind(place)
                forger.sendto(answer_to(wire, "192.0.2.110"), leg)
        real.sendto(answer_to(wire, "192.0.2.111"), leg)
        assert addresses(dns.parse(made.recv(4096))) == ["192.0.2.111"]
    assert bed.identity("192.0.2.110") is None


def test_a_late_or_second_answer_is_neither_passed_on_nor_learnt(bed: Bed) -> None:
    with server(bed) as real, bed.client(OTHER) as made:
        made.send(query("a.test.", 1))
        wire, leg = real.recvfrom(4096)
        assert dns.parse(made.recv(4096)).rcode == RCode.SERVFAIL
        real.sendto(answer_to(wire, "192.0.2.112"), leg)
        made.send(query("a.test.", 2))
        wire, leg = real.recvfrom(4096)
        real.sendto(answer_to(wire, "192.0.2.113"), leg)
        real.sendto(answer_to(wire, "192.0.2.114"), leg)
        made.send(query("a.test.", 3))
        wire, leg = real.recvfrom(4096)
        real.sendto(answer_to(wire, "192.0.2.115"), leg)
        found = [dns.parse(made.recv(4096)) for _ in range(2)]
    assert [(each.id, addresses(each)) for each in found] == [(2, ["192.0.2.113"]), (3, ["192.0.2.115"])]
    assert [bed.identity(f"192.0.2.{last}") for last in (112, 114)] == [None, None]


def test_many_questions_at_once_by_tcp_and_nothing_after(bed: Bed) -> None:
    """The client has closed its side before the first answer."""
    with bed.client(kind=socket.SOCK_STREAM) as made:
        made.sendall(b"".join(framed(query(f"n{number}.test.", number)) for number in range(1, 6)))
        made.shutdown(socket.SHUT_WR)
        with made.makefile("rb") as stream:
            content = stream.read()
    found: list[int] = []
    while content:
        (size,) = struct.unpack_from("!H", content)
        found.append(dns.parse(content[2 : 2 + size]).id)
        content = content[2 + size :]
    assert found == [1, 2, 3, 4, 5]


def test_a_server_that_hangs_up_between_questions_is_dialled_again(bed: Bed) -> None:
    with server(bed, socket.SOCK_STREAM) as real, bed.client(OTHER, socket.SOCK_STREAM) as made:
        real.listen()
        for number in (1, 2):
            made.sendall(framed(query("a.test.", number)))
            leg, _ = real.accept()
            with leg, leg.makefile("rb") as stream:
                wire = stream.read(struct.unpack("!H", stream.read(2))[0])
                leg.sendall(framed(answer_to(wire, "192.0.2.116")))
                with made.makefile("rb") as answers:
                    found = dns.parse(answers.read(struct.unpack("!H", answers.read(2))[0]))
            assert (found.id, found.rcode) == (number, 0)


def test_one_client_does_not_take_all_connections(bed: Bed) -> None:
    with bed.client(kind=socket.SOCK_STREAM) as first:
        held: list[socket.socket] = []
        try:
            for _ in range(63):
                with inside(bed.client_ns):
                    held.append(socket.create_connection((RESOLVER, 53), timeout=5))
            with bed.client(kind=socket.SOCK_STREAM) as beyond:
                assert beyond.recv(1) == b""
        finally:
            for each in held:
                each.close()
        first.sendall(framed(query("a.test.")))
        assert first.recv(2) != b""
    assert bed.ask("a.test.", tcp=True).rcode == 0
