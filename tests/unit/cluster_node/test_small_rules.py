"""Quantities, DNS files, image references, probe thresholds, log lines."""

from datetime import UTC, datetime

import pytest

from mycel.cluster.images import catalog
from mycel.cluster.node import dns, logs, probes, quantity
from mycel.cluster.node.logs import Options
from mycel.cluster.node.probes import Count, Outcome
from tests.unit.cluster_node.samples import pod


@pytest.mark.parametrize(
    ("text", "value"), [("100m", 0.1), ("2", 2), ("1.5Gi", 1.5 * 2**30), ("1e3", 1000), ("64k", 64000), ("-1", -1)]
)
def test_quantities(text: str, value: float) -> None:
    """Suffixes of both kinds."""
    assert float(quantity.parse(text)) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "1x", "Gi", "1 2", "1e"])
def test_what_is_no_quantity(text: str) -> None:
    """Refused."""
    with pytest.raises(ValueError, match="not a quantity"):
        quantity.parse(text)


def test_quantities_are_divided_upwards() -> None:
    """As the downward API does."""
    assert quantity.divided("1500m") == 2
    assert quantity.divided("100Mi", "1Mi") == 100


NODE = dns.parse("# x\nnameserver 192.0.2.53\nsearch corp.example\noptions timeout:2\n")


def test_cluster_first_searches_the_namespace_first() -> None:
    """ndots:5 and the node's own searches after."""
    text = dns.resolver(pod(), cluster_dns="10.96.0.10", cluster_domain="cluster.local", node=NODE).text()
    assert text == (
        "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver "
        "10.96.0.10\noptions ndots:5\n"
    )


@pytest.mark.parametrize(
    ("spec", "servers"),
    [
        ({"dnsPolicy": "Default"}, ("192.0.2.53",)),
        ({"hostNetwork": True}, ("192.0.2.53",)),
        ({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}, ("10.96.0.10",)),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}, ("1.1.1.1",)),
        ({"dnsConfig": {"nameservers": ["1.1.1.1"]}}, ("10.96.0.10", "1.1.1.1")),
    ],
)
def test_policies_choose_the_servers(spec: dict[str, object], servers: tuple[str, ...]) -> None:
    """dnsPolicy and dnsConfig."""
    assert dns.resolver(pod(**spec), cluster_dns="10.96.0.10", cluster_domain="c.l", node=NODE).servers == servers


def test_dns_options_are_replaced_by_name() -> None:
    """The pod's ndots wins."""
    made = dns.resolver(
        pod(dnsConfig={"options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}),
        cluster_dns="1.2.3.4",
        cluster_domain="c",
        node=NODE,
    )
    assert made.options == ("ndots:2", "edns0")


def test_hosts_file_names_the_pod_and_its_aliases() -> None:
    """With the full name when there is a subdomain."""
    text = dns.hosts(
        pod(hostAliases=[{"ip": "9.9.9.9", "hostnames": ["a", "b"]}], subdomain="sub"),
        addresses=["10.244.0.5"],
        hostname="cart",
        node_hosts="",
    )
    assert "10.244.0.5\tcart.sub.shop.svc.cluster.local\tcart" in text
    assert "9.9.9.9\ta\tb" in text


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("quay.io/cilium/alpine-curl:v1.4.0", "cilium/alpine-curl"),
        ("hashicorp/http-echo:0.2.3", "hashicorp/http-echo"),
        ("localhost:5000/coredns@sha256:" + "a" * 64, "coredns"),
        ("busybox", "busybox"),
        ("docker.io/library/busybox:1", "busybox"),
        ("registry.k8s.io/coredns/coredns:v1.11.3", "coredns/coredns"),
        ("registry:5000/a/b:c", "a/b"),
    ],
)
def test_references_lose_registry_and_tag(reference: str, path: str) -> None:
    """Only the repository path counts."""
    assert catalog.repository(reference) == path


def test_references_that_are_none() -> None:
    """InvalidImageName."""
    for reference in ("", "UPPER", "a b", "http://x/y"):
        with pytest.raises(catalog.InvalidReference):
            catalog.repository(reference)
    assert catalog.find("example.com/unknown:1") is None


def test_probe_thresholds_count_in_a_row() -> None:
    """A success in between begins the count anew."""
    probe = {"failureThreshold": 2, "successThreshold": 1}
    count = Count()
    said = [probes.thresholds(count, Outcome(ok), probe) for ok in (False, True, False, False, True)]
    assert said == [None, True, None, False, True]


def test_named_ports() -> None:
    """Numbers, names, and names that are not there."""
    assert probes.port_of(80, {}) == 80
    assert probes.port_of("http", {"http": 8080}) == 8080
    assert probes.port_of("nope", {"http": 8080}) is None


def _lines(count: int) -> list[logs.Line]:
    return [
        logs.Line(
            f"2026-01-01T00:00:0{n}.000000000+00:00".encode(), b"stdout" if n % 2 else b"stderr", True, f"l{n}".encode()
        )
        for n in range(count)
    ]


def test_log_selection() -> None:
    """tail, since, stream."""
    records = _lines(6)
    assert [record.text for record in logs.select(records, Options(tail=2))] == [b"l4", b"l5"]
    assert [record.text for record in logs.select(records, Options(tail=0))] == []
    since = datetime(2026, 1, 1, 0, 0, 4, tzinfo=UTC)
    assert [record.text for record in logs.select(records, Options(since=since))] == [b"l4", b"l5"]
    assert [record.text for record in logs.select(records, Options(stream="stdout"))] == [b"l1", b"l3", b"l5"]


def test_partial_records_are_one_line() -> None:
    """Tail counts lines, not records; the timestamp stands once."""
    records = [logs.Line(b"t1", b"stdout", False, b"ab"), logs.Line(b"t2", b"stdout", True, b"cd")]
    assert list(logs.select(records, Options(tail=1))) == records
    assert logs.render(records[0], timestamps=True, continued=False) == b"t1 ab"
    assert logs.render(records[1], timestamps=True, continued=True) == b"cd\n"
    assert logs.parse_line(b"garbage") is None
