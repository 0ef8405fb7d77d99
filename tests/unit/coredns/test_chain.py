"""Server blocks at work: which plugin answers, what is forwarded, what is remembered."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mycel.cluster.images.coredns.cache import AnswerCache
from mycel.cluster.images.coredns.chain import Chain, Dispatcher, finish
from mycel.cluster.images.coredns.config import Cache, configure
from mycel.cluster.images.coredns.directory import Directory, Service
from mycel.cluster.images.coredns.forward import Forwarder
from mycel.cluster.images.coredns.server import DnsServer
from mycel.kit.dns import Class, Edns, Flag, Message, Question, RCode, Record, Type, parse, serialize
from mycel.kit.dns_records import address_record, soa_record, txt_record

ADDRESS = ipaddress.ip_address("192.0.2.7")


def query(name: str, kind: int = Type.A, **fields: object) -> Message:
    """A query as stub resolvers send it."""
    return replace(Message(7, Flag.RD, questions=(Question(name, kind),)), **fields)  # type: ignore[arg-type]


def dispatcher(corefile: str) -> Dispatcher:
    """A configured dispatcher over a cluster with an alias and a service."""
    directory = Directory(synced=True)
    directory.put_namespace("shop", there=True)
    directory.put_service(("shop", "web"), Service((ipaddress.ip_address("10.96.0.5"),), ()))
    directory.put_service(("shop", "alias"), Service((), (), "web.shop.svc.cluster.local"))
    servers = configure(corefile, environment={}, read_file=lambda _path: "")
    return Dispatcher([Chain(one, directory, one.hosts.entries if one.hosts else {}) for one in servers])


async def ask(found: Dispatcher, asked: Message) -> Message:
    """The response, whether it comes at once or later."""
    response = found.respond(asked)
    return finish(asked, response if isinstance(response, Message) else await response)


async def test_the_longest_zone_answers() -> None:
    """And what is in no zone is refused."""
    found = dispatcher(
        "test {\n hosts {\n  192.0.2.1 a.test\n }\n}\nsub.test {\n hosts {\n  192.0.2.2 a.sub.test\n }\n}"
    )
    outer, inner, other = [await ask(found, query(name)) for name in ("a.test.", "a.sub.test.", "a.example.")]
    assert [one.answers[0].address() for one in (outer, inner)] == [
        ipaddress.ip_address("192.0.2.1"),
        ipaddress.ip_address("192.0.2.2"),
    ]
    assert other.rcode == RCode.REFUSED


@pytest.mark.parametrize(
    ("asked", "rcode"),
    [
        (query("a.test.", opcode=5), RCode.NOTIMP),
        (query("a.test.", questions=()), RCode.FORMERR),
        (query("a.test.", edns=Edns(version=1)), RCode.BADVERS),
        (query("a.test.", Type.AXFR), RCode.REFUSED),
        (query("a.test.", questions=(Question("a.test.", Type.TXT, Class.CH),)), RCode.REFUSED),
        (query("b.test."), RCode.NXDOMAIN),
        (query("a.test.", Type.MX), RCode.NOERROR),
    ],
)
async def test_codes(asked: Message, rcode: RCode) -> None:
    """What is malformed or foreign has its own code; unknown names and types have theirs."""
    response = await ask(dispatcher("test {\n hosts {\n  192.0.2.1 a.test\n }\n}"), asked)
    assert (response.rcode, response.id) == (rcode, 7)


async def test_local_names() -> None:
    """localhost in both families, with and without a search domain, and backwards."""
    found = dispatcher(". {\n local\n}")
    names = ("localhost.", "localhost.shop.svc.cluster.local.", "1.0.0.127.in-addr.arpa.")
    kinds = (Type.A, Type.AAAA, Type.PTR)
    answers = [(await ask(found, query(name, kind))).answers[0] for name, kind in zip(names, kinds, strict=True)]
    assert [str(one.address() or one.target()) for one in answers] == ["127.0.0.1", "::1", "localhost."]
    assert (await ask(found, query("elsewhere."))).rcode == RCode.SERVFAIL


async def test_aliases_are_followed() -> None:
    """An ExternalName service comes with what it points at."""
    response = await ask(dispatcher(". {\n kubernetes cluster.local\n}"), query("alias.shop.svc.cluster.local."))
    assert [one.type for one in response.answers] == [Type.CNAME, Type.A]
    assert response.answers[1].name == "web.shop.svc.cluster.local."


def free_port() -> int:
    """A port that is free for both protocols."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return udp.getsockname()[1]


@pytest.fixture
async def upstream() -> AsyncIterator[int]:
    """A server on loopback, both protocols: `big.test.` has more than a datagram, `seven.test.` an address."""
    corefile = "test {\n hosts {\n  192.0.2.7 seven.test\n }\n}"
    served = _Padded(configure(corefile, environment={}, read_file=lambda _path: ""))
    server, port = DnsServer(served), free_port()
    await server.start(["127.0.0.1"], port)
    yield port
    await server.close()


class _Padded(Dispatcher):
    """Adds `big.test.`"""

    def __init__(self, servers: tuple[object, ...]) -> None:
        super().__init__([Chain(one, Directory(), one.hosts.entries) for one in servers])  # type: ignore[attr-defined]

    def respond(self, query: Message) -> Message:
        if query.questions and query.questions[0].name == "big.test.":
            return replace(query.reply(), answers=tuple(txt_record("big.test.", 30, "x" * 200) for _ in range(20)))
        response = super().respond(query)
        assert isinstance(response, Message)
        return response


async def test_forwarding_over_udp_and_tcp(upstream: int) -> None:
    """A short answer by UDP; a truncated one is fetched by TCP; upper and lower case of the question survive."""
    found = dispatcher(f". {{\n forward . 127.0.0.1:{upstream}\n cache 30\n}}")
    short = await ask(found, query("Seven.TEST."))
    assert [one.address() for one in short.answers] == [ADDRESS]
    assert short.questions[0].name == "Seven.TEST."
    long = await ask(found, query("big.test.", Type.TXT))
    assert len(long.answers) == 20
    over_udp = parse(serialize(long, 512))
    assert (bool(over_udp.flags & Flag.TC), over_udp.answers) == (True, ())


async def test_an_upstream_that_is_not_there_is_a_servfail() -> None:
    """And is not remembered."""
    settings = configure(". {\n forward . 127.0.0.1:9\n}", environment={}, read_file=lambda _path: "")[0].forwards[0]
    assert (await Forwarder(settings).resolve(query("a.test."))).rcode == RCode.SERVFAIL


def answer(asked: Message, *records: Record, rcode: int = RCode.NOERROR, soa_ttl: int | None = None) -> Message:
    """A response of an upstream."""
    timers = (1, 1, 1, soa_ttl or 0)
    soa = soa_record("test.", soa_ttl or 0, mname="a.", rname="b.", serial=1, timers=timers)
    return replace(asked.reply(rcode), answers=records, authority=(soa,) if soa_ttl is not None else ())


def test_the_cache_counts_lives_down_and_forgets() -> None:
    """Served with what is left, under the asker's id and case; gone after the shortest life."""
    cache, asked = AnswerCache(Cache()), query("a.test.")
    cache.put(asked, answer(asked, address_record("a.test.", 60, ADDRESS), address_record("a.test.", 20, ADDRESS)), 100)
    found = cache.get(query("A.test.", id=99), 115)
    assert found is not None
    assert ([one.ttl for one in found.answers], found.id, found.questions[0].name) == ([45, 5], 99, "A.test.")
    assert cache.get(asked, 120) is None


def test_absences_live_as_their_soa_says_and_failures_do_not_live() -> None:
    """NXDOMAIN with an SOA of 10 s; without one, and SERVFAIL, nothing is kept."""
    for rcode, soa_ttl, kept in (
        (RCode.NXDOMAIN, 10, True),
        (RCode.NXDOMAIN, None, False),
        (RCode.SERVFAIL, 10, False),
    ):
        cache, asked = AnswerCache(Cache()), query("no.test.")
        cache.put(asked, answer(asked, rcode=rcode, soa_ttl=soa_ttl), 100)
        assert (cache.get(asked, 109) is not None) is kept
        assert cache.get(asked, 111) is None


def test_the_cache_has_a_size() -> None:
    """The longest unused goes first."""
    cache = AnswerCache(Cache(capacity=2))
    for name in ("a.test.", "b.test."):
        cache.put(query(name), answer(query(name), address_record(name, 60, ADDRESS)), 100)
    assert cache.get(query("a.test."), 101) is not None
    cache.put(query("c.test."), answer(query("c.test."), address_record("c.test.", 60, ADDRESS)), 102)
    assert [cache.get(query(name), 103) is not None for name in ("a.test.", "b.test.", "c.test.")] == [
        True,
        False,
        True,
    ]
