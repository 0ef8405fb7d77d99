"""The names of Kubernetes' DNS specification 1.1.0, asked one by one."""

from __future__ import annotations

import ipaddress

import pytest

from mycel.cluster.images.coredns.config import Fallthrough, Kubernetes
from mycel.cluster.images.coredns.directory import Directory, Endpoint, Port, Service, Slice
from mycel.cluster.images.coredns.kubernetes import resolve
from mycel.kit.dns import Question, RCode, Record, Type

HTTP = Port("http", "TCP", 8080)


def ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address."""
    return ipaddress.ip_address(text)


@pytest.fixture
def directory() -> Directory:
    """A cluster-IP service, a dual-stack one, a headless one with two endpoints, an alias."""
    found = Directory(synced=True)
    found.put_namespace("shop", there=True)
    found.put_namespace("kube-system", there=True)
    found.put_service(("shop", "web"), Service((ip("10.96.0.50"),), (HTTP,)))
    found.put_service(("shop", "both"), Service((ip("10.96.0.51"), ip("fd00::51")), ()))
    found.put_service(("shop", "db"), Service((), (HTTP,)))
    found.put_service(("shop", "out"), Service((), (), "Example.com"))
    found.put_service(("kube-system", "kube-dns"), Service((ip("10.96.0.10"),), ()))
    named = Endpoint("db-0", "db-0", (ip("10.244.1.5"),))
    plain = Endpoint("", "db-x", (ip("10.244.2.6"),))
    found.put_slice(("shop", "db-abc"), Slice(("shop", "db"), (HTTP,), (named, plain)))
    return found


def ask(directory: Directory, name: str, kind: Type, **settings: object) -> tuple[str, list[str]] | None:
    """rcode and answers as text; None for fallthrough."""
    chosen = Kubernetes(zones=("cluster.local.", "in-addr.arpa."), **settings)  # type: ignore[arg-type]
    answer = resolve(Question(name, kind), chosen, directory)
    if answer is None:
        return None
    assert answer.records or answer.authority[0].type == Type.SOA
    return answer.rcode.name, [show(one) for one in answer.records]


def show(record: Record) -> str:
    """A record in a word or two."""
    if record.type == Type.SRV:
        return f"{int.from_bytes(record.data[4:6])} {record.target()}"
    return str(record.address() or record.target() or record.data)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.shop.svc.cluster.local.", Type.A, ("NOERROR", ["10.96.0.50"])),
        ("WEB.Shop.svc.cluster.LOCAL.", Type.A, ("NOERROR", ["10.96.0.50"])),
        ("web.shop.svc.cluster.local.", Type.AAAA, ("NOERROR", [])),
        ("both.shop.svc.cluster.local.", Type.AAAA, ("NOERROR", ["fd00::51"])),
        ("none.shop.svc.cluster.local.", Type.A, ("NXDOMAIN", [])),
        ("web.other.svc.cluster.local.", Type.A, ("NXDOMAIN", [])),
        ("web.shop.svc.cluster.local.shop.svc.cluster.local.", Type.A, ("NXDOMAIN", [])),
        ("shop.svc.cluster.local.", Type.A, ("NOERROR", [])),
        ("svc.cluster.local.", Type.A, ("NOERROR", [])),
        ("cluster.local.", Type.A, ("NOERROR", [])),
        ("cluster.local.", Type.NS, ("NOERROR", ["ns.dns.cluster.local."])),
        ("ns.dns.cluster.local.", Type.A, ("NOERROR", ["10.96.0.10"])),
        ("dns-version.cluster.local.", Type.TXT, ("NOERROR", ["b'\\x051.1.0'"])),
        ("db.shop.svc.cluster.local.", Type.A, ("NOERROR", ["10.244.1.5", "10.244.2.6"])),
        ("db-0.db.shop.svc.cluster.local.", Type.A, ("NOERROR", ["10.244.1.5"])),
        ("10-244-2-6.db.shop.svc.cluster.local.", Type.A, ("NOERROR", ["10.244.2.6"])),
        ("db-9.db.shop.svc.cluster.local.", Type.A, ("NXDOMAIN", [])),
        ("x.web.shop.svc.cluster.local.", Type.A, ("NXDOMAIN", [])),
        ("out.shop.svc.cluster.local.", Type.A, ("NOERROR", ["Example.com."])),
        ("_http._tcp.web.shop.svc.cluster.local.", Type.SRV, ("NOERROR", ["8080 web.shop.svc.cluster.local."])),
        ("_http._udp.web.shop.svc.cluster.local.", Type.SRV, ("NXDOMAIN", [])),
        (
            "_http._tcp.db.shop.svc.cluster.local.",
            Type.SRV,
            ("NOERROR", ["8080 db-0.db.shop.svc.cluster.local.", "8080 10-244-2-6.db.shop.svc.cluster.local."]),
        ),
        ("50.0.96.10.in-addr.arpa.", Type.PTR, ("NOERROR", ["web.shop.svc.cluster.local."])),
        ("5.1.244.10.in-addr.arpa.", Type.PTR, ("NOERROR", ["db-0.db.shop.svc.cluster.local."])),
        ("9.9.244.10.in-addr.arpa.", Type.PTR, ("NXDOMAIN", [])),
        ("1-2-3-4.shop.pod.cluster.local.", Type.A, ("NXDOMAIN", [])),
        ("example.com.", Type.A, None),
    ],
)
def test_names(directory: Directory, name: str, kind: Type, expected: tuple[str, list[str]] | None) -> None:
    """Each name as the specification wants it."""
    assert ask(directory, name, kind) == expected


def test_pod_names_when_insecure_and_verified(directory: Directory) -> None:
    """`insecure` believes any address, `verified` only those of pods."""
    name = "10-244-1-5.shop.pod.cluster.local."
    assert ask(directory, name, Type.A, pods="insecure") == ("NOERROR", ["10.244.1.5"])
    assert ask(directory, name, Type.A, pods="verified") == ("NXDOMAIN", [])
    directory.put_pod("shop", (), ("10.244.1.5",))
    assert ask(directory, name, Type.A, pods="verified") == ("NOERROR", ["10.244.1.5"])
    assert ask(directory, "x.shop.pod.cluster.local.", Type.A, pods="insecure") == ("NXDOMAIN", [])


def test_unknown_reverse_names_fall_through(directory: Directory) -> None:
    """With fallthrough for the reverse zone the next plugin is asked."""
    through = Fallthrough(("in-addr.arpa.",))
    assert ask(directory, "9.9.244.10.in-addr.arpa.", Type.PTR, fallthrough=through) is None
    assert ask(directory, "no.shop.svc.cluster.local.", Type.A, fallthrough=through) == ("NXDOMAIN", [])


def test_what_goes_away_is_gone(directory: Directory) -> None:
    """Services and slices leave nothing behind, forwards or backwards."""
    directory.put_service(("shop", "web"), None)
    directory.put_slice(("shop", "db-abc"), None)
    assert ask(directory, "web.shop.svc.cluster.local.", Type.A) == ("NXDOMAIN", [])
    assert ask(directory, "db.shop.svc.cluster.local.", Type.A) == ("NOERROR", [])
    assert ask(directory, "50.0.96.10.in-addr.arpa.", Type.PTR) == ("NXDOMAIN", [])
    assert ask(directory, "5.1.244.10.in-addr.arpa.", Type.PTR) == ("NXDOMAIN", [])


def test_negative_answers_carry_the_zones_soa(directory: Directory) -> None:
    """The SOA's own TTL and minimum are the plugin's ttl, so absences are not remembered for long."""
    chosen = Kubernetes(ttl_s=7)
    answer = resolve(Question("no.shop.svc.cluster.local.", Type.A), chosen, directory)
    assert answer is not None
    (soa,) = answer.authority
    assert (soa.name, soa.ttl, int.from_bytes(soa.data[-4:])) == ("cluster.local.", 7, 7)
    assert answer.rcode is RCode.NXDOMAIN


def test_before_the_first_list_nothing_is_denied() -> None:
    """SERVFAIL, which nobody remembers, instead of an NXDOMAIN that is not true."""
    answer = resolve(Question("web.shop.svc.cluster.local.", Type.A), Kubernetes(), Directory())
    assert answer is not None
    assert (answer.rcode, answer.authority) == (RCode.SERVFAIL, ())
