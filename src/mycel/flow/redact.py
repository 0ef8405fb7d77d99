"""What of HTTP messages flows may show: Cilium's settings `hubble.redact`, stricter where nothing is said.

Headers are a positive list: `USUAL`, and those a person allows by name. No other leaves Envoy: neither credentials nor
cookies do. Pure.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from mycel.flow.l7 import shortened

REDACTED = "HUBBLE_REDACTED"
USUAL = ("user-agent", "x-request-id")
"""Headers of requests that flows have in any case; Envoy's log carries them."""
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Redaction:
    """`allow` and `deny` are names of headers in lower case, and never both given."""

    enabled: bool = False
    url_query: bool = False
    user_info: bool = True  # whether or not it is enabled: a password is nobody's business
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()

    @property
    def asked(self) -> tuple[str, ...]:
        """Headers that Envoy is asked for."""
        return tuple(sorted(self.allow))

    def url(self, scheme: str, authority: str, path: str) -> str:
        """A URL as it may be shown, of bounded length."""
        user, at, host = authority.rpartition("@")
        if at and self.user_info and ":" in user:
            authority = f"{user.partition(':')[0]}:{REDACTED}@{host}"
        url = f"{scheme}://{authority}{path}"
        if self.enabled and self.url_query:
            url = url.partition("#")[0].partition("?")[0]
        return shortened(url)

    def headers(self, found: Mapping[str, str]) -> Headers:
        """Headers (names in lower case) as they may be shown, by name as Hubble writes it."""
        return tuple((_title(name), self._value(name, value)) for name, value in sorted(found.items())) if found else ()

    def _value(self, name: str, value: str) -> str:
        if not self.enabled or name in self.allow:
            return shortened(value)
        hidden = name in self.deny if self.deny else True  # neither list, or not on the one there is
        return REDACTED if hidden else shortened(value)


NOTHING_SAID = Redaction()


@functools.lru_cache(maxsize=1024)
def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))
