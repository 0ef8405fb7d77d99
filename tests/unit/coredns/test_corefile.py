"""Corefiles: what is understood, and how what is not is named."""

from __future__ import annotations

import pytest

from mycel.cluster.images.coredns.config import Fallthrough, Http, Kubernetes, Server, Upstream, configure
from mycel.cluster.images.coredns.corefile import CorefileError

KUBEADM = """
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
"""


def read(text: str, **environment: str) -> tuple[Server, ...]:
    """Configure with a resolv.conf of two servers."""
    resolv = "# comment\nsearch example\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n"
    return configure(text, environment=environment, read_file=lambda _path: resolv)


def test_kubeadms_corefile() -> None:
    """Every line of it has its meaning."""
    (server,) = read(KUBEADM)
    assert (server.zone, server.port) == (".", 53)
    assert server.kubernetes == Kubernetes(
        zones=("cluster.local.", "in-addr.arpa.", "ip6.arpa."),
        pods="insecure",
        ttl_s=30,
        fallthrough=Fallthrough(("in-addr.arpa.", "ip6.arpa.")),
    )
    assert server.health == Http("", 8080, 5.0)
    assert server.ready == Http("", 8181)
    assert server.forwards[0].upstreams == (Upstream("192.0.2.1"), Upstream("fe80::1"))
    assert server.cache is not None
    assert (server.cache.success_ttl_s, server.cache.denial_ttl_s) == (30, 30)


def test_several_blocks_ports_and_variables() -> None:
    """Zones share a block, ports differ, variables are filled in, networks become reverse zones."""
    servers = read("a.test, B.test:5353 {\n local\n}\n10.1.0.0/16:54 {\n forward . {$UP}:5300\n}\n", UP="192.0.2.9")
    assert [(one.zone, one.port) for one in servers] == [("a.test.", 53), ("b.test.", 5353), ("1.10.in-addr.arpa.", 54)]
    assert servers[2].forwards[0].upstreams == (Upstream("192.0.2.9", 5300),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (".:53 {\n    rewrite name a b\n}\n", "Corefile:2: plugin 'rewrite' is not supported here"),
        (
            ".:53 {\n  kubernetes {\n    pods maybe\n  }\n}\n",
            "Corefile:3: kubernetes: option 'pods maybe' is not known",
        ),
        (".:53 {\n  forward . tls://192.0.2.1\n}\n", "Corefile:2: forward: tls://192.0.2.1: only plain DNS"),
        (".:53 {\n  forward . upstream.test\n}\n", "Corefile:2: forward: 'upstream.test' is neither"),
        (".:53 {\n  errors\n", "Corefile:1: this server block is never closed"),
        (".:53\n{\n}\n", "Corefile:1: expected '{'"),
        (". {\n log\n}\n. {\n log\n}\n", "Corefile:4: zone . on port 53 is served by line 1 already"),
        (". {\n cache 30\n cache 40\n}\n", "Corefile:3: plugin 'cache' appears twice"),
        ("tls://. {\n log\n}\n", "Corefile:1: tls://.: only plain DNS is served"),
        ("# nothing\n", "Corefile:1: there is no server block"),
        ('. {\n log "half\n}\n', "Corefile:2: a string in double quotes"),
    ],
)
def test_errors_name_their_line(text: str, said: str) -> None:
    """The message begins with the line and says what to change."""
    with pytest.raises(CorefileError) as caught:
        read(text)
    assert str(caught.value).startswith(said)
