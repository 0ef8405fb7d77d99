"""What Envoy gets of a Secret that a header is compared with, and which Secrets are of no use."""

from __future__ import annotations

import pytest

from mycel.envoy.messages import message_class
from mycel.envoy.resources import Resource
from mycel.envoy.secrets import header_value
from mycel.policy.http import SecretRef

TOKEN = SecretRef("shop", "token")


@pytest.mark.parametrize("value", ["user", "caf\xe9", "100% of it", "a\tb"])
def test_a_value(value: str):
    made = header_value(TOKEN, {"any": value.encode()})
    assert isinstance(made, Resource)
    secret: object = message_class("envoy.extensions.transport_sockets.tls.v3.Secret").FromString(made.body)
    assert getattr(secret, "name", "") == "shop/token:value"
    assert "inline_bytes: " in str(secret)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "is not there"),
        ({}, "has 0 keys"),
        ({"a": b"1", "b": b"2"}, "has 2 keys"),
        ({"a": b""}, "no value of a header"),
        ({"a": b"hush\n"}, "no value of a header"),
        ({"a": b" hush"}, "no value of a header"),
        ({"a": b"hush\r\nx-admin: 1"}, "no value of a header"),
        ({"a": b"hush\xff"}, "no value of a header"),
        ({"a": b"hush\0"}, "no value of a header"),
    ],
)
def test_what_is_none(data: dict[str, bytes] | None, said: str):
    """It is named, and what is in it is not."""
    words = header_value(TOKEN, data)
    assert isinstance(words, str)
    assert "shop/token" in words and said in words and "hush" not in words


def test_one_of_another_namespace_is_not_used():
    assert "in another namespace" in str(header_value(TOKEN._replace(foreign=True), {"a": b"1"}))
