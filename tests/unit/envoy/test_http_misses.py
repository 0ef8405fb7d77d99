"""What a request misses of a rule is what Envoy denies it for."""

from typing import Any

import pytest

from mycel.envoy.http_misses import HttpRequest, missed
from mycel.policy.http_text import rule_text

GET = HttpRequest.of("get", "http://Shop.example:8080/public/a?b=/private")


@pytest.mark.parametrize(
    ("rule", "parts"),
    [
        ({}, []),
        ({"method": "GET", "path": "/public/.*", "host": "shop.example"}, []),
        ({"method": "G"}, ["method G (it is GET)"]),
        ({"method": "GET|POST", "path": "/public"}, ["path /public (it is /public/a)"]),
        ({"path": "/public/a;?"}, []),
        ({"host": "shop"}, ["host shop (it is Shop.example:8080)"]),
        ({"host": r".*\.example:8080"}, []),
        ({"method": "PUT", "path": "/"}, ["method PUT (it is GET)", "path / (it is /public/a)"]),
    ],
)
def test_what_a_request_misses(rule: dict[str, Any], parts: list[str]) -> None:
    assert missed(rule, GET).parts == tuple(parts)


def test_headers_are_not_known() -> None:
    """A match with an action lets the request through either way."""
    rule = {
        "headers": ["X-Token: 1"],
        "headerMatches": [{"name": "X-A", "value": "b"}, {"name": "X-B", "value": "c", "mismatch": "ADD"}],
    }
    assert missed(rule, GET) == ((), ("X-Token: 1", "X-A: b"))
    assert rule_text(rule) == "header X-Token: 1, header X-A: b, header X-B: c (else ADD)"


def test_a_path_alone_has_no_host() -> None:
    """Then the host is not judged."""
    assert missed({"host": "a.b", "path": "/x"}, HttpRequest.of("GET", "/x")).parts == ()
    assert rule_text({"method": "GET", "path": "/x", "host": "a.b"}) == "GET /x, host a.b"
    assert rule_text({}) == "every request"
