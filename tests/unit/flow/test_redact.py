"""What flows may show: the rules of Cilium's `hubble.redact`, and stricter where nothing is said."""

from __future__ import annotations

import pytest

from mycel.flow.redact import REDACTED, Redaction

A, B = frozenset({"x-a"}), frozenset({"x-b"})


@pytest.mark.parametrize(
    ("redaction", "authority", "path", "shown"),
    [
        (Redaction(), "echo:8080", "/foo?a=1#b", "echo:8080/foo?a=1#b"),
        (Redaction(enabled=True), "echo", "/foo?a=1", "echo/foo?a=1"),
        (Redaction(url_query=True), "echo", "/foo?a=1", "echo/foo?a=1"),  # not enabled
        (Redaction(enabled=True, url_query=True), "echo", "/foo?a=1#b", "echo/foo"),
        (Redaction(enabled=True, url_query=True), "echo", "/foo#b?a=1", "echo/foo"),
        (Redaction(enabled=True, url_query=True), "echo?a=1", "/", "echo"),
        (Redaction(), "me:secret@echo", "/", f"me:{REDACTED}@echo/"),
        (Redaction(), "me:sec@ret@echo", "/", f"me:{REDACTED}@echo/"),
        (Redaction(), "me@echo", "/a:b@c", "me@echo/a:b@c"),
        (Redaction(user_info=False), "me:secret@echo", "/", "me:secret@echo/"),
    ],
)
def test_urls(redaction: Redaction, authority: str, path: str, shown: str) -> None:
    assert redaction.url("http", authority, path) == f"http://{shown}"


@pytest.mark.parametrize(
    ("redaction", "a", "b"),
    [
        (Redaction(), "1", "2"),
        (Redaction(allow=A), "1", "2"),
        (Redaction(deny=A), "1", "2"),  # not enabled
        (Redaction(enabled=True), REDACTED, REDACTED),
        (Redaction(enabled=True, allow=A), "1", REDACTED),
        (Redaction(enabled=True, deny=A), REDACTED, "2"),
        (Redaction(enabled=True, allow=A | B), "1", "2"),
    ],
)
def test_headers(redaction: Redaction, a: str, b: str) -> None:
    """As Hubble writes their names, in their order."""
    assert redaction.headers({"x-b": "2", "x-a": "1"}) == (("X-A", a), ("X-B", b))


def test_only_what_is_allowed_is_asked_for() -> None:
    """What is denied does not even leave Envoy."""
    assert Redaction().asked == Redaction(deny=A).asked == ()
    assert Redaction(allow=A | B).asked == ("x-a", "x-b")


def test_long_values_are_cut() -> None:
    ((_, value),) = Redaction().headers({"user-agent": "x" * 60_000})
    assert len(value) == 2048
