"""Names and patterns: the table, and 500 names by 60 patterns beside the oracle's own reading."""

from __future__ import annotations

import random

import pytest

from mycel.policy.fqdn import Selectors, canonical_name, canonical_selector, selects
from tests.oracle.names import means

TABLE = [
    ("a.b", "A.B.", True),
    ("a.b", "x.a.b", False),
    ("*.b", "a.b", True),
    ("*.b", "b", False),
    ("*.b", "x.a.b", False),
    ("**.b", "x.a.b", True),
    ("**.b", "a.b", True),
    ("**.b", "b", False),
    ("a**.b", "axy.b", True),
    ("a**.b", "a.x.b", False),
    ("x.**.b", "x.a.b", True),
    ("x.**.b", "x.a.a.b", False),
    ("*", "a.b.c", True),
    ("***", "", True),
    ("*", "", True),
    ("**.", "", False),
    ("**.", "a.b", True),
    ("*.", "com", True),
    ("*.", "a.com", False),
    ("a*c.b", "ac.b", True),
    ("a*c.b", "abbc.b", True),
    ("a*a.b", "a.b", False),
    ("*a*b*.c", "xaybz.c", True),
    ("*a*b*.c", "xbya.c", False),
    ("", "", True),
    ("", "a", False),
    ("*.b", r"a\.a.b", False),
    ("*", r"a\032.b", False),
    ("_sip._tcp.*", "_sip._tcp.b", True),
]


@pytest.mark.parametrize(("pattern", "name", "expected"), TABLE)
def test_table(pattern: str, name: str, *, expected: bool) -> None:
    assert selects(canonical_selector(pattern), canonical_name(name)) is expected
    assert means(pattern, name) is expected


def test_as_the_oracle_reads_them() -> None:
    dice = random.Random(4)
    alphabet = ("a", "b", "ab", "x-1", "_t", "A")
    names = [".".join(dice.choice(alphabet) for _ in range(dice.randint(0, 4))) for _ in range(500)]
    pieces = (*alphabet, "*", "a*", "*b", "**", "a*b", "*a*")
    patterns = [".".join(dice.choice(pieces) for _ in range(dice.randint(1, 4))) for _ in range(60)]
    both = Selectors(map(canonical_selector, patterns))
    met = 0
    for name in names:
        expected = {canonical_selector(pattern) for pattern in patterns if means(pattern, name)}
        assert both.matching(canonical_name(name)) == expected, name
        assert both.any(canonical_name(name)) == bool(expected)
        met += len(expected)
    assert met > 500


def test_no_pattern_is_slow() -> None:
    """Tried by backtracking, this one takes longer than anybody would wait."""
    assert not selects("*a" * 31 + ".", "a" * 62 + "b.")
